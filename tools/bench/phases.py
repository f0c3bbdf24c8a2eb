"""phases: larson under every stage of hakmem, beside the C library and peers.

See --help.
"""

import argparse
import dataclasses
import json
import os
import sys

import allocators
import page
import running
import statistics_util as stats

STAGES = ('unlocked', 'p0', 'tls_tiny', 'tls_l2', 'tls_full')
POOLS = ('tiny', 'l2', 'l25')


@dataclasses.dataclass(frozen=True)
class Row:
  name: str
  threads: int
  flags: tuple = ()


_MEDIUM = ('--min_size=2048', '--max_size=32768', '--blocks_per_thread=1000')
_LARGE = ('--min_size=32769', '--max_size=1048576', '--blocks_per_thread=200')

ROWS = (
    Row('1 thread', 1),
    Row('2 threads', 2),
    Row('4 threads', 4),
    Row('16 threads', 16),
    Row('2 threads, 16,000 blocks in all', 2, ('--blocks_per_thread=8000',)),
    Row('16 threads, 16,000 blocks in all', 16, ('--blocks_per_thread=1000',)),
    Row('4 threads, 2-32 KiB', 4, _MEDIUM),
    Row('4 threads, 32 KiB-1 MiB', 4, _LARGE),
)

# What the table is asked for: a row and column over another, and the least that
# the ratio should be. "best" is the best of the C library and the peers.
BARS = (
    ('1 thread', 'p0', '1 thread', 'unlocked', 0.85),
    ('1 thread', 'tls_full', '1 thread', 'unlocked', 1.0),
    ('4 threads', 'tls_full', '4 threads', 'p0', 4.0),
    ('16 threads, 16,000 blocks in all', 'tls_full',
     '2 threads, 16,000 blocks in all', 'tls_full', 0.9),
    ('4 threads', 'tls_full', '4 threads', 'best', 1.0),
    ('16 threads', 'tls_full', '16 threads', 'best', 1.0),
    ('4 threads, 2-32 KiB', 'tls_full', '4 threads, 2-32 KiB', 'best', 1.0),
    ('4 threads, 32 KiB-1 MiB', 'tls_full', '4 threads, 32 KiB-1 MiB', 'best',
     1.0),
)


@dataclasses.dataclass
class Figure:
  """What all rounds of one row and column came to."""
  row: str
  column: str
  status: str
  detail: str
  ops_per_sec: list
  peak_rss_kib: list
  hit_rate: dict

  @property
  def median(self):
    return stats.median(self.ops_per_sec) if self.ops_per_sec else None

  @property
  def rss(self):
    return stats.median(self.peak_rss_kib) if self.peak_rss_kib else None


def figure_of(row, column, cell):
  """Reads larson's own output: its op/s leave the set-up out."""
  outputs = [json.loads(output) for output in cell.outputs]
  # The figures of another build would be worse than none.
  others = [output['config'] for output in outputs
            if column in STAGES and output['config'] != column]
  if others:
    return Figure(row, column, 'wrong build', f'larson is {others[0]}', [], [],
                  dict.fromkeys(POOLS))
  rates = {pool: [output['hit_rate'][pool] for output in outputs
                  if output['hit_rate'][pool] is not None] for pool in POOLS}
  return Figure(row, column, cell.status, cell.detail,
                [output['ops_per_sec'] for output in outputs],
                [output['peak_rss_kib'] for output in outputs],
                {pool: stats.median(values) if values else None
                 for pool, values in rates.items()})


def best_peer(figures, row):
  """The best median among the C library and the peers, or None."""
  medians = [figure.median for (name, column), figure in figures.items()
             if name == row and column not in STAGES and figure.median]
  return max(medians, default=None)


def ratio(value, base):
  return value / base if value and base else None


def bar_ratios(figures):
  """Pairs of a bar and its ratio, for those bars that were measured."""
  def median(row, column):
    if column == 'best':
      return best_peer(figures, row)
    figure = figures.get((row, column))
    return figure.median if figure else None
  for bar in BARS:
    row, column, base_row, base_column, _ = bar
    value = ratio(median(row, column), median(base_row, base_column))
    if value is not None:
      yield bar, value


def _number(value, form):
  return '-' if value is None else format(value, form)


def _hits(figure):
  texts = [f'{pool} {100 * rate:.2f} %' for pool, rate in
           figure.hit_rate.items() if rate is not None]
  return ', '.join(texts) or '-'


def format_markdown(figures, rows, columns):
  """The table, which is readable as text as well."""
  header = ('larson', 'allocator', 'M op/s', '/ p0', '/ best peer', 'hit rate',
            'peak MiB')
  lines = [header]
  for row in rows:
    p0 = figures.get((row, 'p0'))
    peer = best_peer(figures, row)
    for column in columns:
      figure = figures.get((row, column))
      if figure is None:
        continue
      if figure.status != 'ok':
        lines.append((row, column, figure.status, '-', '-', '-', '-'))
        continue
      lines.append((row, column, f'{figure.median / 1e6:.2f}',
                    _number(ratio(figure.median, p0 and p0.median), '.2f'),
                    _number(ratio(figure.median, peer), '.2f'),
                    _hits(figure), f'{figure.rss / 1024:.0f}'))
  widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
  numeric = (2, 3, 4, 6)
  def row_text(line):
    return '| ' + ' | '.join(
        text.rjust(width) if i in numeric else text.ljust(width)
        for i, (text, width) in enumerate(zip(line, widths))) + ' |'
  rule = '|' + '|'.join('-' * (width + 1) + (':' if i in numeric else '-')
                        for i, width in enumerate(widths)) + '|'
  text = [row_text(lines[0]), rule, *map(row_text, lines[1:]), '']
  for (row, column, base_row, base_column, least), value in bar_ratios(figures):
    base = base_column if base_row == row else f'{base_column} on {base_row}'
    base = 'the best peer' if base_column == 'best' else base
    text.append(f'- {row}: {column} / {base} = {value:.2f} '
                f'(asked for: {least:g} or more)')
  return '\n'.join(text) + '\n'


def json_report(figures):
  report = []
  for (row, _), figure in figures.items():
    p0 = figures.get((row, 'p0'))
    report.append({
        'row': row, 'allocator': figure.column, 'status': figure.status,
        'ops_per_sec': figure.ops_per_sec, 'median': figure.median,
        'to_p0': ratio(figure.median, p0 and p0.median),
        'to_best_peer': ratio(figure.median, best_peer(figures, row)),
        'hit_rate': figure.hit_rate, 'peak_rss_kib': figure.rss})
  return report


def plan(rows, peers, binary_of, seconds):
  """The (Job, Allocator) pairs of one round.

  A row is one job for all, so that each round begins it with another one.
  """
  pairs = []
  for row in rows:
    job = running.Job(row.name, (
        binary_of('libc'), f'--threads={row.threads}', f'--seconds={seconds:g}',
        '--format=json', *row.flags))
    pairs += [(job, running.Allocator(stage, program=binary_of(stage)))
              for stage in STAGES
              if stage != 'unlocked' or row.threads == 1]  # larson refuses
    pairs += [(job, peer) for peer in peers]
  return pairs


def parse_arguments(argv):
  def positive(text):
    value = float(text)
    if not 0 < value < 3600:
      raise ValueError(text)
    return value
  positive.__name__ = 'number above 0'
  parser = argparse.ArgumentParser(
      prog='phases',
      description='Runs larson linked with each stage of hakmem, and under the '
      'C library and the installed peers, interleaved over several rounds; '
      'prints medians.')
  parser.add_argument('--rounds', type=int, choices=range(1, 101), default=5,
                      metavar='N', help='how often each is run (5)')
  parser.add_argument('--seconds', type=positive, default=1.0,
                      help='the timed part of one run (1)')
  parser.add_argument('--rows', default='', metavar='TEXT',
                      help='only the rows whose name begins with this')
  parser.add_argument('--format', choices=('text', 'json'), default='text')
  parser.add_argument('--write', action='store_true',
                      help='also put the table into docs/phases.md')
  parser.add_argument('--binaries', metavar='DIR', help=argparse.SUPPRESS)
  options = parser.parse_args(argv)
  options.chosen = [row for row in ROWS if row.name.startswith(options.rows)]
  if not options.chosen:
    parser.error(f"no row begins with '{options.rows}'; there are: " +
                 '; '.join(row.name for row in ROWS))
  return parser, options


def main(argv):
  parser, options = parse_arguments(argv)
  measure = running.resolve_runfile('tools/bench/measure')

  def binary_of(stage):
    name = f'larson_{stage}'
    path = (os.path.join(options.binaries, name) if options.binaries
            else running.resolve_runfile(f'tools/{name}'))
    if path is None or not os.path.isfile(path):
      parser.error(f'{name} is not built')
    return path

  path = os.path.join(os.environ.get('BUILD_WORKSPACE_DIRECTORY', '.'),
                      'docs', 'phases.md')
  if options.write:
    # Now, and not after ten minutes of measuring.
    if not os.access(path, os.W_OK):
      parser.error(f'--write: cannot write {path}')
    try:
      page.put_table(path, 'phases', None)
    except ValueError as error:
      parser.error(f'--write: {path}: {error}')
  peers, missing = allocators.find_peers()
  for note in missing:
    print(f'phases: {note}', file=sys.stderr)
  peers = [allocators.LIBC, *peers]
  pairs = plan(options.chosen, peers, binary_of, options.seconds)
  cells = running.run_matrix(measure, pairs, options.rounds,
                             options.seconds + 60, running.Progress())
  figures = {key: figure_of(*key, cell) for key, cell in cells.items()}
  table = format_markdown(figures, [row.name for row in options.chosen],
                          [*STAGES, *(peer.name for peer in peers)])
  if options.format == 'json':
    print(json.dumps(json_report(figures), indent=1))
  else:
    print(table, end='')
  if options.write:
    page.put_table(path, 'phases', table)
  failed = [figure for figure in figures.values() if figure.status != 'ok']
  for figure in failed:
    print(f'phases: {figure.row} under {figure.column}: {figure.detail}',
          file=sys.stderr)
  return 1 if any(figure.column in STAGES for figure in failed) else 0


if __name__ == '__main__':
  try:
    sys.exit(main(sys.argv[1:]))
  except KeyboardInterrupt:
    print('\nphases: interrupted', file=sys.stderr)
    sys.exit(130)
