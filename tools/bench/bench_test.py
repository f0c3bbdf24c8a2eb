"""Tests of what compare and phases share."""

import io
import os
import re
import tempfile
import unittest
from unittest import mock

import allocators
import html_report
import running
import statistics_util as stats
import table

MEASURE = running.resolve_runfile('tools/bench/measure')
LIBC = running.Allocator('libc')
OTHER = running.Allocator('other')


class Silent:

  def start(self, total):
    pass

  def step(self, what):
    pass

  def finish(self):
    pass


def cell(job, allocator, times, rss=(100, 100, 100), status='ok', detail=''):
  return running.Cell(job, allocator, status, detail, list(times), list(rss))


class StatisticsTest(unittest.TestCase):

  def test_median_and_geometric_mean(self):
    self.assertEqual(stats.median([5, 1, 3]), 3)
    self.assertEqual(stats.median([4, 1, 2, 3]), 2.5)
    self.assertAlmostEqual(stats.geometric_mean([1, 4]), 2)
    self.assertIsNone(stats.geometric_mean([]))

  def test_noise_is_an_overlap_of_the_middle_halves(self):
    best = [1.0, 1.1, 1.2, 1.3, 1.4]
    self.assertTrue(stats.within_noise([1.2, 1.3, 1.4, 1.5, 1.6], best))
    self.assertFalse(stats.within_noise([1.5, 1.6, 1.7, 1.8, 1.9], best))
    # Neither argument has to be the better one.
    self.assertFalse(stats.within_noise([0.1, 0.2, 0.3], best))
    # One wild round does not make two sets of rounds alike, nor hide that
    # they are.
    self.assertFalse(stats.within_noise([1.0, 1.6, 1.7, 1.8, 1.9], best))
    self.assertTrue(stats.within_noise([1.2, 1.3, 1.3, 1.4, 90], best))

  def test_two_rounds_know_nothing_of_noise(self):
    self.assertTrue(stats.within_noise([9, 9], [1, 1]))


class TableTest(unittest.TestCase):

  def make(self):
    cells = [
        cell('a', 'x', [1, 1, 1], [200, 200, 200]),
        cell('a', 'y', [2, 2, 2]),
        cell('b', 'x', [8, 8, 8], [300, 300, 300]),
        cell('b', 'y', [4, 4, 4.2]),
    ]
    return table.make_table(['a', 'b'], ['x', 'y'],
                            {(c.job, c.allocator): c for c in cells})

  def test_ratios_are_to_the_best_of_the_row(self):
    result = self.make()
    self.assertEqual(result.rows[0].time['x'].ratio, 1)
    self.assertTrue(result.rows[0].time['x'].best)
    self.assertEqual(result.rows[0].time['y'].ratio, 2)
    self.assertFalse(result.rows[0].time['y'].noise)
    self.assertEqual(result.rows[1].time['x'].ratio, 2)
    self.assertEqual(result.rows[1].rss['x'].ratio, 3)
    self.assertAlmostEqual(result.time_mean['x'], 2 ** 0.5)
    self.assertAlmostEqual(result.rss_mean['x'], 6 ** 0.5)

  def test_a_failed_cell_is_marked_and_costs_the_mean(self):
    cells = {('a', 'x'): cell('a', 'x', [1, 1, 1]),
             ('a', 'y'): cell('a', 'y', [0.1], [1], 'crash', 'SIGSEGV')}
    result = table.make_table(['a'], ['x', 'y'], cells)
    # The time until the crash is not a best time.
    self.assertTrue(result.rows[0].time['x'].best)
    self.assertIsNone(result.time_mean['y'])
    text = table.format_table(result)
    self.assertIn('CRASH', text)
    self.assertIn('crash: a under y: SIGSEGV', text)

  def test_a_row_without_any_success_is_no_error(self):
    cells = {('a', 'x'): cell('a', 'x', [], [], 'timeout')}
    result = table.make_table(['a'], ['x'], cells)
    self.assertIn('TIMEOUT', table.format_table(result))
    self.assertIn('timeout', html_report.make_page(result, 3))

  def test_text_has_every_row_and_the_means(self):
    text = table.format_table(self.make())
    self.assertIn('1.00 s 1.00*', text)
    self.assertRegex(text, r'geometric mean +1\.41 +1\.41')

  def test_page_is_self_contained_and_escaped(self):
    cells = {('<a>', 'x&y'): cell('<a>', 'x&y', [1, 2, 3]),
             ('<a>', 'z'): cell('<a>', 'z', [], [], 'crash', '"<boom>"')}
    page = html_report.make_page(
        table.make_table(['<a>'], ['x&y', 'z'], cells), 3)
    self.assertNotIn('<a>', page)
    self.assertNotIn('<boom>', page)
    self.assertIn('x&amp;y', page)
    # Nothing that a browser would fetch.
    self.assertNotRegex(page, r'(?i)https?://|\bsrc=|\bhref=|@import|url\(')
    self.assertIn('prefers-color-scheme: dark', page)
    # A bar for x&y in both charts, and a dot for each of its rounds.
    self.assertEqual(len(re.findall('<path ', page)), 2)
    self.assertEqual(len(re.findall('<circle ', page)), 6)


class RunningTest(unittest.TestCase):

  def run_sh(self, script, timeout_s=60.0, allocator=LIBC):
    return running.run_once(MEASURE, ['sh', '-c', script], allocator,
                            timeout_s)

  def test_success(self):
    run = self.run_sh('echo hello')
    self.assertEqual((run.status, run.stdout), ('ok', 'hello\n'))
    self.assertGreater(run.time_s, 0)
    self.assertGreater(run.rss_kib, 0)

  def test_memory_is_the_command_s_and_not_python_s(self):
    run = running.run_once(MEASURE, ['true'], LIBC, 60.0)
    self.assertLess(run.rss_kib, 4096)

  def test_crash_by_signal_and_by_status(self):
    run = self.run_sh('kill -SEGV $$')
    self.assertEqual(run.status, 'crash')
    self.assertIn('SIGSEGV', run.detail)
    run = self.run_sh('echo because >&2; exit 3')
    self.assertEqual(run.status, 'crash')
    self.assertIn('exit status 3: because', run.detail)

  def test_timeout_ends_all_that_the_command_started(self):
    # The pipe of stdout stays open as long as anybody has it: run_once()
    # returns only if the grandchild is gone too.
    run = self.run_sh('sleep 1000 & sleep 1000', timeout_s=0.2)
    self.assertEqual(run.status, 'timeout')
    self.assertLess(run.time_s, 100)

  def test_a_command_that_is_not_there_is_the_user_s_mistake(self):
    with self.assertRaisesRegex(running.CannotRun, 'no/such'):
      running.run_once(MEASURE, ['no/such/program'], LIBC, 60.0)

  def test_the_library_is_preloaded_in_the_command_only(self):
    with mock.patch.object(running.subprocess, 'Popen',
                           wraps=running.subprocess.Popen) as popen:
      run = self.run_sh('echo "$LD_PRELOAD"',
                        allocator=running.Allocator('no', '/no/such.so'))
    self.assertIn('/no/such.so', run.stdout)
    self.assertIsNone(popen.call_args.kwargs.get('env'))

  def test_variables_are_the_command_s(self):
    run = self.run_sh('echo "$A-$B"', allocator=running.Allocator(
        'no', variables=('A=1', 'B=2,3')))
    self.assertEqual(run.stdout, '1-2,3\n')

  def test_rounds_are_interleaved_and_failed_cells_not_run_again(self):
    jobs = [running.Job('good', ('g',)), running.Job('bad', ('b',))]
    seen = []

    def fake(measure, command, allocator, timeout_s):
      seen.append((command[0], allocator.name))
      if (command[0], allocator.name) == ('b', 'other'):
        return running.Run('crash', detail='x')
      return running.Run('ok', 1.0, 5)

    with mock.patch.object(running, 'run_once', fake):
      cells = running.run_matrix(
          'm', [(job, a) for job in jobs for a in (LIBC, OTHER)], 2, 1,
          Silent())
    self.assertEqual(seen, [
        ('g', 'libc'), ('g', 'other'), ('b', 'libc'), ('b', 'other'),
        # The second round begins with the other allocator.
        ('g', 'other'), ('g', 'libc'), ('b', 'libc'),
    ])
    self.assertEqual(cells['good', 'other'].time_s, [1.0, 1.0])
    self.assertEqual(cells['bad', 'other'].status, 'crash')
    self.assertEqual(cells['bad', 'libc'].rss_kib, [5, 5])


class ProgressTest(unittest.TestCase):

  def test_a_bar_on_a_terminal_and_silence_elsewhere(self):
    class Terminal(io.StringIO):

      def isatty(self):
        return True

    terminal, log = Terminal(), io.StringIO()
    for stream in (terminal, log):
      progress = running.Progress(stream, clock=iter(range(0, 100, 10)).__next__)
      progress.start(4)
      progress.step('first')
      progress.step('second')
      progress.finish()
    self.assertEqual(log.getvalue(), '')
    self.assertIn('0/4', terminal.getvalue())
    self.assertIn('1/4 0:30 left second', terminal.getvalue())
    self.assertTrue(terminal.getvalue().endswith('\r\x1b[K'))


class AllocatorsTest(unittest.TestCase):

  def test_missing_ones_are_said(self):
    with tempfile.TemporaryDirectory() as folder:
      with open(os.path.join(folder, 'libjemalloc.so.2'), 'wb') as library:
        library.write(b'\x7fELF')
      found, missing = allocators.find_peers([folder])
    self.assertEqual([allocator.name for allocator in found], ['jemalloc'])
    self.assertEqual(len(missing), 3)
    self.assertIn('mimalloc is not installed', missing[0])

  def test_named_ones_are_checked(self):
    with tempfile.TemporaryDirectory() as folder:
      good = os.path.join(folder, 'good.so')
      with open(good, 'wb') as library:
        library.write(b'\x7fELF...')
      bad = os.path.join(folder, 'bad.so')
      with open(bad, 'wb') as library:
        library.write(b'text')
      self.assertEqual(allocators.parse_named('a=' + good),
                       running.Allocator('a', good))
      for wrong, word in [('a=' + bad, 'not a shared library'),
                          ('a=' + folder + '/none.so', 'No such file'),
                          ('a', 'name=path.so'), ('=x', 'name=path.so'),
                          ('a b=' + good, 'name=path.so')]:
        with self.assertRaisesRegex(allocators.BadAllocator, word):
          allocators.parse_named(wrong)
      # With variables, and in the name of one that is known.
      self.assertEqual(
          allocators.parse_named(f'a={good},B=1,2,C_D=x=y'),
          running.Allocator('a', good, variables=('B=1,2', 'C_D=x=y')))
      known = {'b': running.Allocator('b', '/b.so')}
      self.assertEqual(allocators.parse_named('a=b,C=', known),
                       running.Allocator('a', '/b.so', variables=('C=',)))
      found, _ = allocators.find_all(['x=hakmem,C=1'], ['hakmem', 'x'], good)
      self.assertEqual(found, [running.Allocator('hakmem', good),
                               running.Allocator('x', good,
                                                 variables=('C=1',))])
      # A named one takes the place of one that was found.
      found, _ = allocators.find_all(['libc=' + good], ['libc'])
      self.assertEqual(found, [running.Allocator('libc', good)])
    with self.assertRaisesRegex(allocators.BadAllocator, 'no allocator'):
      allocators.find_all([], ['nonsense'])


if __name__ == '__main__':
  unittest.main()
