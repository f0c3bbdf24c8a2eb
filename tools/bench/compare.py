"""compare: runs workloads, or any command, under each allocator.

See --help.
"""

import argparse
import json
import math
import os
import sys

import allocators
import html_report
import markdown
import page
import running
import table

# Name of the row, and arguments of the workloads program. Sizes and threads
# that are not the workload's defaults are the rows that the literature and the
# project's bars ask for.
WORKLOADS = (
    ('larson-1', 'larson --threads=1 --lives=24'),
    ('larson-4', 'larson --threads=4'),
    ('larson-16', 'larson --threads=16 --lives=3'),
    ('larson-4-medium', 'larson --threads=4 --min_size=2048 --max_size=32768 '
     '--blocks=500 --replacements=50000'),
    ('larson-4-large', 'larson --threads=4 --min_size=32768 --max_size=1048576 '
     '--blocks=50 --replacements=5000'),
    ('pairs-64', 'pairs --min_size=64 --max_size=64 --live=0'),
    ('pairs-random', 'pairs --live=1000'),
    ('tree', 'tree'),
    ('strings', 'strings'),
    ('prodcons-64', 'prodcons'),
    ('prodcons-4k', 'prodcons --min_size=4096 --max_size=4096 --batches=20000'),
    ('mixed', 'mixed'),
    ('threads', 'threads'),
    ('large', 'large'),
    ('scratch', 'scratch'),
    ('leakless', 'leakless'),
    ('server', 'server'),
    ('idle', 'idle --wait_ms=1000'),
    ('idlers', 'idlers'),
    ('peaks', 'peaks'),
)

EPILOG = """examples:
  compare                                  all workloads, all allocators
  compare --workloads=tree,larson-4        two rows
  compare mine=./libmine.so                one more allocator
  compare --allocators=hakmem,sites sites=hakmem,HAKMEM_SITES=caller
                                           hakmem with and without an option
  compare --rounds=9 --html=report.html -- ./my_program --its-flag
"""


def positive(kind):
  def parse(text):
    value = kind(text)
    if not math.isfinite(value) or value <= 0:
      raise ValueError(text)
    return value
  parse.__name__ = 'number above 0'  # what argparse calls it
  return parse


def parse_arguments(argv):
  """Splits off the user's command and reads the rest."""
  command = []
  if '--' in argv:
    at = argv.index('--')
    argv, command = argv[:at], argv[at + 1:]
    has_command = True
  else:
    has_command = False
  parser = argparse.ArgumentParser(
      prog='compare', epilog=EPILOG,
      formatter_class=argparse.RawDescriptionHelpFormatter,
      usage='compare [flags] [name=path.so[,VARIABLE=value...] ...] '
      '[-- command ...]',
      description='Runs workloads, or a command, under each allocator of this '
      'machine, interleaved, and compares time and peak resident memory.')
  parser.add_argument('named', nargs='*', metavar='name=path.so',
                      help='a further allocator, to be preloaded, and '
                      'variables for its environment; in place of the path '
                      'also the name of one that is there')
  parser.add_argument('--workloads', default='', metavar='NAMES',
                      help='which, separated by commas: ' +
                      ', '.join(name for name, _ in WORKLOADS))
  parser.add_argument('--allocators', default='', metavar='NAMES',
                      help='which, separated by commas; all that are found '
                      'unless given')
  parser.add_argument('--rounds', type=positive(int), default=5,
                      help='how often each is run (5)')
  parser.add_argument('--scale', type=positive(float), default=1.0,
                      help='more or less work for each workload (1)')
  parser.add_argument('--timeout', type=positive(float), default=120.0,
                      metavar='SECONDS', help='for one run (120)')
  parser.add_argument('--format', choices=('text', 'json'), default='text')
  parser.add_argument('--html', metavar='FILE',
                      help='also write a page with charts')
  parser.add_argument('--write', action='store_true',
                      help="also put hakmem's figures into docs/performance.md")
  parser.add_argument('--from', dest='saved', default='', metavar='FILES',
                      help='show what --format=json printed into these files, '
                      'separated by commas, instead of measuring')
  options = parser.parse_args(argv)
  if has_command and not command:
    parser.error('there is no command behind --')
  if command and options.workloads:
    parser.error('either --workloads or a command, not both')
  if options.saved and (command or options.workloads or options.named):
    parser.error('--from shows what was measured: nothing else to run')
  options.command = command
  return parser, options


def make_jobs(parser, options):
  """The rows: the user's command, or the workloads that were asked for."""
  if options.command:
    name = ' '.join([os.path.basename(options.command[0]),
                     *options.command[1:]])
    return [running.Job(name[:40], tuple(options.command))]
  rows = dict(WORKLOADS)
  names = [name for name in options.workloads.split(',') if name] or list(rows)
  for name in names:
    if name not in rows:
      parser.error(f"there is no workload '{name}'; known are "
                   + ', '.join(rows))
  binary = running.resolve_runfile('tools/workloads/workloads')
  if binary is None:
    parser.error('the workloads program is not built')
  return [running.Job(name, (binary, *rows[name].split(),
                             f'--scale={options.scale:g}'))
          for name in dict.fromkeys(names)]


def json_report(result, rounds):
  """The list of objects that --format=json prints.

  One entry a round: null for the round that failed and those after it.
  """
  def padded(values):
    return values + [None] * (rounds - len(values))
  return [{'workload': row.job, 'allocator': name, 'status': cell.status,
           'time_s': padded(cell.time_s), 'rss_kib': padded(cell.rss_kib)}
          for row in result.rows for name, cell in row.cells.items()]


def load_reports(parser, paths):
  """What json_report() made of earlier runs: a Table, and its rounds."""
  jobs, names, cells = {}, {}, {}
  rounds = 1
  for path in paths:
    try:
      with open(path, encoding='utf-8') as report:
        for entry in json.load(report):
          key = entry['workload'], entry['allocator']
          times, sizes = ([value for value in entry[figure] if value is not None]
                          for figure in ('time_s', 'rss_kib'))
          cells[key] = running.Cell(*key, entry['status'], time_s=times,
                                    rss_kib=sizes)
          jobs[key[0]] = names[key[1]] = True
          rounds = max(rounds, len(entry['time_s']))
    except (OSError, ValueError, TypeError, KeyError) as error:
      parser.error(f'--from: {path}: {error}')
  return table.make_table(list(jobs), list(names), cells), rounds


def main(argv):
  measure = running.resolve_runfile('tools/bench/measure')
  hakmem = running.resolve_runfile('hakmem/shim/libhakmem.so')
  parser, options = parse_arguments(argv)
  jobs = [] if options.saved else make_jobs(parser, options)
  # Under `bazel run`, what the user types is relative to where the user is.
  if 'BUILD_WORKING_DIRECTORY' in os.environ:
    os.chdir(os.environ['BUILD_WORKING_DIRECTORY'])
  check_outputs(parser, options)
  if options.saved:
    result, rounds = load_reports(parser, options.saved.split(','))
  else:
    result, rounds = measure_all(parser, options, jobs, measure, hakmem)
  show(options, result, rounds)
  return 0


def performance_page():
  return os.path.join(os.environ.get('BUILD_WORKSPACE_DIRECTORY', '.'), 'docs',
                      'performance.md')


def check_outputs(parser, options):
  """Now, and not after an hour of measuring."""
  if options.html:
    folder = os.path.dirname(os.path.abspath(options.html))
    if not os.access(folder, os.W_OK):
      parser.error(f'--html: cannot write in {folder}')
  if options.write:
    try:
      page.put_table(performance_page(), 'compare', None)
    except (OSError, ValueError) as error:
      parser.error(f'--write: {performance_page()}: {error}')


def measure_all(parser, options, jobs, measure, hakmem):
  """Runs everything; a Table, and its rounds."""
  if measure is None:
    parser.error('the measure program is not built')
  try:
    found, notes = allocators.find_all(
        options.named, [name for name in options.allocators.split(',') if name],
        hakmem)
  except allocators.BadAllocator as error:
    parser.error(str(error))
  for note in notes:
    print(f'compare: {note}', file=sys.stderr)
  if not found:
    parser.error('no allocator is left to run')
  pairs = [(job, allocator) for job in jobs for allocator in found]
  try:
    cells = running.run_matrix(measure, pairs, options.rounds, options.timeout,
                               running.Progress())
  except running.CannotRun as error:
    parser.error(str(error))
  return table.make_table([job.name for job in jobs],
                          [allocator.name for allocator in found],
                          cells), options.rounds


def show(options, result, rounds):
  if options.format == 'json':
    print(json.dumps(json_report(result, rounds), indent=1))
  else:
    print(table.format_table(result), end='')
  if options.html:
    with open(options.html, 'w', encoding='utf-8') as html:
      html.write(html_report.make_page(result, rounds))
    print(f'compare: wrote {os.path.abspath(options.html)}', file=sys.stderr)
  if options.write:
    page.put_table(performance_page(), 'compare',
                   markdown.format_markdown(result, 'hakmem'))


if __name__ == '__main__':
  try:
    sys.exit(main(sys.argv[1:]))
  except KeyboardInterrupt:
    print('\ncompare: interrupted', file=sys.stderr)
    sys.exit(130)
