"""What the rounds say: ratios, means and noise, for text and for HTML alike."""

import dataclasses

import statistics_util as stats


@dataclasses.dataclass
class Entry:
  """One figure (time or memory) of a cell."""
  values: list  # one a round
  median: float
  ratio: float  # to the least median of the row
  noise: bool  # the difference to the least is within noise
  best: bool


@dataclasses.dataclass
class Row:
  job: str
  cells: dict  # allocator -> Cell
  time: dict  # allocator -> Entry, of those that are ok
  rss: dict


@dataclasses.dataclass
class Table:
  allocators: list
  rows: list
  time_mean: dict  # allocator -> geometric mean of ratios, or None
  rss_mean: dict


def _entries(cells, figure):
  values = {name: getattr(cell, figure) for name, cell in cells.items()
            if cell.status == 'ok' and getattr(cell, figure)}
  if not values:
    return {}
  medians = {name: stats.median(rounds) for name, rounds in values.items()}
  best = min(medians, key=medians.get)
  # A clock tick in place of zero, which nothing can be divided by.
  least = max(medians[best], 1e-9)
  return {
      name: Entry(rounds, medians[name], medians[name] / least,
                  name != best and stats.within_noise(rounds, values[best]),
                  name == best)
      for name, rounds in values.items()
  }


def _means(rows, allocators, figure):
  """Of the ratios of all rows.

  An allocator that failed in a row has no mean: one over its good rows only
  would reward it for the crash.
  """
  alive = [name for name in allocators
           if all(name in getattr(row, figure) for row in rows)]
  return {
      name: stats.geometric_mean(getattr(row, figure)[name].ratio
                                 for row in rows) if name in alive else None
      for name in allocators
  }


def make_table(jobs, allocators, cells):
  """`cells` maps (job, allocator) to a Cell; the names give the order."""
  rows = []
  for job in jobs:
    row_cells = {name: cells[job, name] for name in allocators
                 if (job, name) in cells}
    rows.append(Row(job, row_cells, _entries(row_cells, 'time_s'),
                    _entries(row_cells, 'rss_kib')))
  return Table(list(allocators), rows, _means(rows, allocators, 'time'),
               _means(rows, allocators, 'rss'))


def _cell_text(row, name, entries, unit):
  cell = row.cells.get(name)
  if cell is None:
    return '-'
  if cell.status != 'ok':
    return cell.status.upper()
  entry = entries[name]
  mark = '*' if entry.best else '~' if entry.noise else ' '
  if entry.best:
    return f'{unit(entry.median)} {entry.ratio:.2f}{mark}'
  return f'{entry.ratio:.2f}{mark}'


def format_seconds(value):
  return f'{value:.2f} s' if value >= 1 else f'{value * 1000:.3g} ms'


def format_kib(value):
  return f'{value / 1024:.{0 if value >= 102400 else 1}f} MiB'


def _format_block(title, table, figure, mean, unit):
  header = [title, *table.allocators]
  lines = [header]
  for row in table.rows:
    lines.append([row.job] + [_cell_text(row, name, getattr(row, figure), unit)
                              for name in table.allocators])
  if len(table.rows) > 1:
    lines.append(['geometric mean'] +
                 ['-' if mean[name] is None else f'{mean[name]:.2f} '
                  for name in table.allocators])
  widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
  text = []
  for line in lines:
    text.append('  '.join([line[0].ljust(widths[0])] +
                          [cell.rjust(width) for cell, width
                           in zip(line[1:], widths[1:])]).rstrip())
  text.insert(1, '-' * (sum(widths) + 2 * (len(widths) - 1)))
  if len(table.rows) > 1:
    text.insert(-1, text[1])
  return '\n'.join(text) + '\n'


def format_table(table):
  """The whole report as text."""
  text = _format_block('time / best', table, 'time', table.time_mean,
                       format_seconds)
  text += '\n' + _format_block('peak RSS / least', table, 'rss',
                               table.rss_mean, format_kib)
  text += ('\n* the best of the row, with its median   '
           '~ within the noise of the rounds\n')
  for row in table.rows:
    for cell in row.cells.values():
      if cell.status != 'ok':
        text += f'{cell.status}: {row.job} under {cell.allocator}: {cell.detail}\n'
  return text
