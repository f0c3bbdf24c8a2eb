"""The statistics of compare and phases."""

import math
import statistics


def median(values):
  return statistics.median(values)


def geometric_mean(values):
  """Of positive numbers; None of no numbers."""
  values = list(values)
  if not values:
    return None
  return math.exp(sum(math.log(value) for value in values) / len(values))


def middle_half(values):
  """The lower and the upper quartile."""
  if len(values) == 1:
    return values[0], values[0]
  low, _, high = statistics.quantiles(values, n=4, method='inclusive')
  return low, high


def within_noise(values, best):
  """Whether `values` cannot be told from `best` by these rounds.

  That is so if the middle halves of the two overlap, and always if there are
  fewer than three rounds: they say nothing about noise.
  """
  if len(values) < 3 or len(best) < 3:
    return True
  low, high = middle_half(values)
  best_low, best_high = middle_half(best)
  return low <= best_high and best_low <= high
