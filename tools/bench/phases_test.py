"""Tests of phases: the figures, the table, and a whole run over fakes."""

import json
import os
import stat
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

import page
import phases
import running

BEGIN = '<!-- phases: begin -->'
END = '<!-- phases: end -->'


def cell(*rates, status='ok', hits=None, config='other'):
  hit_rate = {'tiny': None, 'l2': None, 'l25': None, **(hits or {})}
  outputs = [json.dumps({'ops_per_sec': rate, 'peak_rss_kib': 2048,
                         'config': config, 'hit_rate': hit_rate})
             for rate in rates]
  return running.Cell('job', 'a', status, outputs=outputs)


def figures_of(**columns):
  """As if each column's larson had said that it is that column's."""
  figures = {}
  for column, value in columns.items():
    value.outputs = [output.replace('"other"', f'"{column}"')
                     for output in value.outputs]
    figures['4 threads', column] = phases.figure_of('4 threads', column, value)
  return figures


class FiguresTest(unittest.TestCase):

  def test_takes_the_median_of_larsons_own_rate(self):
    figure = phases.figure_of('r', 'c', cell(1e6, 9e6, 2e6))
    self.assertEqual(figure.median, 2e6)
    self.assertEqual(figure.rss, 2048)

  def test_a_larson_of_another_stage_gives_no_figure(self):
    figure = phases.figure_of('r', 'tls_full', cell(1e6, config='p0'))
    self.assertEqual(figure.status, 'wrong build')
    self.assertIsNone(figure.median)
    self.assertIn('p0', figure.detail)
    # A peer's name is nobody's to check.
    self.assertEqual(phases.figure_of('r', 'tbb', cell(1e6)).status, 'ok')

  def test_best_peer_leaves_the_stages_out(self):
    figures = figures_of(tls_full=cell(9e6), libc=cell(2e6), jemalloc=cell(3e6))
    self.assertEqual(phases.best_peer(figures, '4 threads'), 3e6)

  def test_bars_are_ratios_of_what_was_measured(self):
    figures = figures_of(p0=cell(2e6), tls_full=cell(9e6), libc=cell(3e6))
    bars = {(bar[1], bar[3]): value
            for bar, value in phases.bar_ratios(figures)}
    self.assertEqual(bars, {('tls_full', 'p0'): 4.5, ('tls_full', 'best'): 3.0})

  def test_table_has_ratios_hits_and_failures(self):
    figures = figures_of(p0=cell(2e6), tls_full=cell(9e6, hits={'tiny': 0.999}),
                         libc=cell(3e6), tbb=cell(status='crash'))
    text = phases.format_markdown(figures, ['4 threads'],
                                  ['p0', 'tls_full', 'libc', 'tbb'])
    line = next(line for line in text.splitlines() if 'tls_full' in line)
    self.assertIn('9.00', line)
    self.assertIn('4.50', line)
    self.assertIn('3.00', line)
    self.assertIn('tiny 99.90 %', line)
    self.assertIn('crash', text)

  def test_replaces_only_what_stands_between_the_marks(self):
    old = f'before\n{BEGIN}\nold\n{END}\nafter\n'
    new = page.replace_table(old, 'phases', 'new \\1\n')
    self.assertEqual(new, f'before\n{BEGIN}\nnew \\1\n{END}\nafter\n')
    with self.assertRaises(ValueError):
      page.replace_table('no marks', 'phases', 'new')

  def test_unlocked_runs_on_one_thread_only(self):
    pairs = phases.plan(phases.ROWS, [], lambda stage: stage, 1)
    threads = {command[1] for job, allocator in pairs
               if allocator.name == 'unlocked' for command in [job.command]}
    self.assertEqual(threads, {'--threads=1'})

  def test_a_row_is_one_job_for_all_its_columns(self):
    # Else the rounds would not begin with another column each.
    peer = running.Allocator('peer', '/peer.so')
    pairs = phases.plan(phases.ROWS[:1], [peer], lambda stage: stage, 1)
    self.assertEqual(len({job for job, _ in pairs}), 1)
    self.assertEqual([allocator.program for _, allocator in pairs],
                     [*phases.STAGES, ''])
    self.assertEqual(pairs[0][0].command[0], 'libc')


FAKE = '''#!/bin/sh
echo '{"threads": 4, "ops_per_sec": 1000000, "peak_rss_kib": 1024,
"config": "'${0##*larson_}'", "hit_rate": {"tiny": 0.5, "l2": null, "l25": null}}'
'''


class CommandTest(unittest.TestCase):

  def run_phases(self, *arguments, broken=()):
    with tempfile.TemporaryDirectory() as folder:
      for name in (*phases.STAGES, 'libc'):
        path = os.path.join(folder, f'larson_{name}')
        with open(path, 'w', encoding='utf-8') as script:
          script.write('#!/bin/sh\nexit 3\n' if name in broken else FAKE)
        os.chmod(path, stat.S_IRWXU)
      return subprocess.run(
          [sys.executable, phases.__file__, f'--binaries={folder}',
           '--rounds=2', '--rows=4 threads', *arguments],
          capture_output=True, text=True, check=False)

  def test_json_has_one_object_a_cell(self):
    run = self.run_phases('--format=json')
    self.assertEqual(run.returncode, 0, run.stderr)
    report = json.loads(run.stdout)
    full = [entry for entry in report if entry['allocator'] == 'tls_full']
    self.assertEqual(len(full), 3)  # the three rows of four threads
    self.assertEqual(full[0]['ops_per_sec'], [1000000, 1000000])
    self.assertEqual(full[0]['to_p0'], 1.0)
    self.assertEqual(full[0]['hit_rate']['tiny'], 0.5)

  def test_a_stage_that_fails_is_said(self):
    run = self.run_phases(broken=('tls_l2',))
    self.assertEqual(run.returncode, 1)
    self.assertIn('tls_l2: exit status 3', run.stderr)
    self.assertIn('crash', run.stdout)

  def run_phases_at(self, text):
    """As under `bazel run`, in a workspace with this docs/phases.md."""
    with tempfile.TemporaryDirectory() as root:
      os.mkdir(os.path.join(root, 'docs'))
      path = os.path.join(root, 'docs', 'phases.md')
      with open(path, 'w', encoding='utf-8') as file:
        file.write(text)
      with mock.patch.dict(os.environ, BUILD_WORKSPACE_DIRECTORY=root):
        run = self.run_phases('--write')
      with open(path, encoding='utf-8') as file:
        return run, file.read()

  def test_write_puts_the_table_on_the_page(self):
    run, text = self.run_phases_at(f'a\n{BEGIN}\nold\n{END}\nb\n')
    self.assertEqual(run.returncode, 0, run.stderr)
    self.assertIn(run.stdout, text)
    self.assertTrue(text.startswith('a\n') and text.endswith('\nb\n'))
    self.assertNotIn('old', text)

  def test_a_page_without_marks_is_said_and_left_alone(self):
    run, text = self.run_phases_at('no marks')
    self.assertEqual(run.returncode, 2)
    self.assertIn('there is no', run.stderr)
    self.assertNotIn('Traceback', run.stderr)
    self.assertEqual((run.stdout, text), ('', 'no marks'))

  def test_bad_arguments(self):
    for arguments in (['--rounds=0'], ['--seconds=-1'], ['--rows=none']):
      run = self.run_phases(*arguments)
      self.assertEqual(run.returncode, 2, arguments)
      self.assertIn('phases: error', run.stderr)


if __name__ == '__main__':
  unittest.main()
