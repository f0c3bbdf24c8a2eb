"""Drives compare as a user would.

Arguments: compare, and any shared library, to be named as an allocator.
"""

import json
import os
import subprocess
import sys
import tempfile
import unittest

COMPARE = os.path.abspath(sys.argv.pop(1))
LIBRARY = os.path.abspath(sys.argv.pop(1))

# Two allocators that every machine has.
TWO = ['--allocators=libc,mine', 'mine=' + LIBRARY]


def compare(*arguments):
  return subprocess.run([COMPARE, *arguments], capture_output=True, text=True,
                        timeout=120, check=False)


def misbehaving(how):
  """A command that does `how` under `mine` only."""
  return ['--', 'sh', '-c', f'case "$LD_PRELOAD" in ?*) {how};; esac']


class CompareTest(unittest.TestCase):

  def test_json_of_a_workload(self):
    result = compare(*TWO, '--rounds=2', '--scale=0.01', '--format=json',
                     '--workloads=tree,pairs-64')
    self.assertEqual(result.returncode, 0, result.stderr)
    report = json.loads(result.stdout)
    self.assertEqual([(o['workload'], o['allocator']) for o in report],
                     [('tree', 'mine'), ('tree', 'libc'),
                      ('pairs-64', 'mine'), ('pairs-64', 'libc')])
    for entry in report:
      self.assertEqual(set(entry), {'workload', 'allocator', 'status',
                                    'time_s', 'rss_kib'})
      self.assertEqual(entry['status'], 'ok')
      self.assertEqual(len(entry['time_s']), 2)
      self.assertEqual(len(entry['rss_kib']), 2)
      self.assertGreater(min(entry['time_s'] + entry['rss_kib']), 0)

  def test_a_crash_is_a_cell_and_not_the_end(self):
    arguments = [*TWO, '--rounds=2', *misbehaving('kill -ABRT $$')]
    result = compare('--format=json', *arguments)
    self.assertEqual(result.returncode, 0, result.stderr)
    mine, libc = json.loads(result.stdout)
    self.assertEqual((mine['status'], mine['time_s'], mine['rss_kib']),
                     ('crash', [None, None], [None, None]))
    self.assertEqual((libc['status'], len(libc['time_s'])), ('ok', 2))
    text = compare(*arguments).stdout
    self.assertIn('CRASH', text)
    self.assertIn('SIGABRT', text)

  def test_a_timeout_is_a_cell_and_not_the_end(self):
    result = compare('--format=json', *TWO, '--rounds=2', '--timeout=5',
                     *misbehaving('exec sleep 1000'))
    self.assertEqual(result.returncode, 0, result.stderr)
    mine, libc = json.loads(result.stdout)
    self.assertEqual((mine['status'], libc['status']), ('timeout', 'ok'))

  def test_page_is_written(self):
    with tempfile.TemporaryDirectory() as folder:
      page = os.path.join(folder, 'report.html')
      result = compare(*TWO, '--rounds=1', '--html=' + page, '--', 'true')
      self.assertEqual(result.returncode, 0, result.stderr)
      with open(page, encoding='utf-8') as text:
        self.assertIn('</html>', text.read())

  def test_saved_reports_are_shown_and_put_on_the_page(self):
    with tempfile.TemporaryDirectory() as folder:
      saved = os.path.join(folder, 'saved.json')
      with open(saved, 'w', encoding='utf-8') as report:
        json.dump([{'workload': 'w', 'allocator': name, 'status': 'ok',
                    'time_s': [time, time], 'rss_kib': [kib, kib]}
                   for name, time, kib in [('hakmem', 3.0, 2048),
                                           ('libc', 2.0, 4096),
                                           ('tbb', 6.0, 1024)]], report)
      os.mkdir(os.path.join(folder, 'docs'))
      page = os.path.join(folder, 'docs', 'performance.md')
      begin, end = '<!-- compare: begin -->', '<!-- compare: end -->'
      for text, status in [('no marks', 2), (f'a\n{begin}\nold\n{end}\nb\n', 0)]:
        with open(page, 'w', encoding='utf-8') as file:
          file.write(text)
        result = subprocess.run(
            [COMPARE, '--from=' + saved, '--write'], capture_output=True,
            text=True, timeout=120, check=False,
            env={**os.environ, 'BUILD_WORKSPACE_DIRECTORY': folder})
        self.assertEqual(result.returncode, status, result.stderr)
        self.assertNotIn('Traceback', result.stderr)
      self.assertRegex(result.stdout, r'w +1\.50~ +2\.00 s 1\.00\* +3\.00~')
      with open(page, encoding='utf-8') as file:
        lines = file.read().splitlines()
    self.assertEqual((lines[0], lines[-1]), ('a', 'b'))
    self.assertIn('| w | 3.000 | libc 2.000 | **1.50** | 2.0 | tbb 1.0 | '
                  '**2.00** |', lines)
    self.assertIn('| geometric mean |  |  | **1.50** |  |  | **2.00** |', lines)
    self.assertIn('| w | 3.000 | 2.000 | 6.000 |', lines)
    self.assertNotIn('old', lines)

  def test_paths_are_relative_to_where_the_user_is(self):
    with tempfile.TemporaryDirectory() as folder:
      program = os.path.join(folder, 'my_program')
      with open(program, 'w', encoding='utf-8') as script:
        script.write('#!/bin/sh\nexit 0\n')
      os.chmod(program, 0o755)
      result = subprocess.run(
          [COMPARE, '--allocators=libc', '--rounds=1', '--', './my_program'],
          env={**os.environ, 'BUILD_WORKING_DIRECTORY': folder},
          capture_output=True, text=True, timeout=120, check=False)
    self.assertEqual(result.returncode, 0, result.stderr)
    self.assertIn('my_program', result.stdout)

  def test_mistakes_are_status_2(self):
    for arguments, word in [
        (['--workloads=nonsense'], 'nonsense'),
        (['--allocators=nonsense', '--', 'true'], 'nonsense'),
        (['mine=no_such.so', '--', 'true'], 'no_such.so'),
        (['--rounds=0', '--', 'true'], 'rounds'),
        (['--timeout=-1', '--', 'true'], 'timeout'),
        (['--scale=nan'], 'scale'),
        (['--format=xml', '--', 'true'], 'format'),
        (['--html=/no/such/folder/x.html', '--', 'true'], 'html'),
        (['--'], 'no command'),
        (['--workloads=tree', '--', 'true'], 'not both'),
        (['--from=no_such.json'], 'no_such.json'),
        (['--from=no_such.json', '--', 'true'], 'nothing else'),
        ([*TWO, '--', './no_such_program'], 'no_such_program'),
    ]:
      with self.subTest(arguments=arguments):
        result = compare(*arguments)
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertIn(word, result.stderr)
        self.assertNotIn('Traceback', result.stderr)


if __name__ == '__main__':
  unittest.main()
