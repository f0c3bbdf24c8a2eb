"""compare's report as Markdown, for docs/performance.md."""

import statistics_util as stats

# What every row and the geometric mean may be, to the best of the peers.
TIME_BARS = (1.05, 0.95)
RSS_BARS = (1.30, 1.10)


def _to_peers(row, figure, ours):
  """Our median, the best peer's name and median, and the ratio; None without."""
  entries = getattr(row, figure)
  peers = {name: entry.median for name, entry in entries.items()
           if name != ours}
  if ours not in entries or not peers:
    return None
  best = min(peers, key=peers.get)
  return (entries[ours].median, best, peers[best],
          entries[ours].median / max(peers[best], 1e-9))


def _ratio(value, bar):
  return f'**{value:.2f}**' if value > bar else f'{value:.2f}'


def _line(cells):
  return '| ' + ' | '.join(cells) + ' |\n'


def _head(cells):
  return _line(cells) + '|' + '---|' + '---:|' * (len(cells) - 1) + '\n'


def _overview(table, ours):
  text = _head(['workload', f'{ours}, s', 'best peer, s', 'time',
                f'{ours}, MiB', 'least peer, MiB', 'peak RSS'])
  means = {'time': [], 'rss': []}
  for row in table.rows:
    cells = [row.job]
    for figure, bars, unit in (('time', TIME_BARS, '{:.3f}'.format),
                               ('rss', RSS_BARS,
                                lambda kib: f'{kib / 1024:.1f}')):
      found = _to_peers(row, figure, ours)
      if found is None:
        cells += ['-', '-', '-']
        continue
      own, best, least, ratio = found
      means[figure].append(ratio)
      cells += [unit(own), f'{best} {unit(least)}', _ratio(ratio, bars[0])]
    text += _line(cells)
  time, rss = (stats.geometric_mean(means[figure]) for figure in means)
  return text + _line(['geometric mean', '', '',
                       '-' if time is None else _ratio(time, TIME_BARS[1]),
                       '', '', '-' if rss is None else _ratio(rss, RSS_BARS[1])])


def _all(table, figure, unit):
  text = _head(['workload', *table.allocators])
  for row in table.rows:
    entries = getattr(row, figure)
    text += _line([row.job] + [
        unit(entries[name].median) if name in entries
        else row.cells[name].status if name in row.cells else '-'
        for name in table.allocators])
  return text


def format_markdown(table, ours):
  """The rows of `ours` beside the best peer of each, and everybody's figures."""
  return (
      f'{_overview(table, ours)}\nSeconds, medians:\n\n'
      f"{_all(table, 'time', '{:.3f}'.format)}\n"
      'Peak resident memory in MiB, medians:\n\n'
      f"{_all(table, 'rss', lambda kib: f'{kib / 1024:.1f}')}")
