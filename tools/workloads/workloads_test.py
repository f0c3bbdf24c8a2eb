"""Runs each workload at a small scale. Argument: the workloads binary."""

import itertools
import json
import os
import re
import subprocess
import sys
import unittest

WORKLOADS = os.path.abspath(sys.argv.pop(1))

NAMES = ['larson', 'pairs', 'tree', 'strings', 'prodcons', 'mixed', 'threads',
         'large', 'scratch', 'leakless', 'server', 'idle',
         'idlers', 'peaks']

# What --scale does not make small enough, because it is the shape of the work.
SMALL = {
    'larson': ['--lives=1000', '--replacements=200', '--blocks=500'],
    'threads': ['--max_size=100000'],
    'large': ['--min_size=100000', '--max_size=3000000'],
    'server': ['--capacity_mib=4', '--keys=5000'],
    'peaks': ['--peak_mib=4'],
    'idle': ['--wait_ms=20', '--peak_mib=1000', '--max_size=1000'],
}


def run(*arguments):
  return subprocess.run([WORKLOADS, *arguments], capture_output=True,
                        text=True, timeout=120, check=False)


def figures(name, *arguments):
  result = run(name, '--scale=0.01', '--format=json', *SMALL.get(name, []),
               *arguments)
  if result.returncode != 0:
    raise AssertionError(f'{name}: {result.returncode}, {result.stderr}')
  return json.loads(result.stdout)


class WorkloadsTest(unittest.TestCase):

  def test_help_lists_every_workload(self):
    result = run('--help')
    self.assertEqual(result.returncode, 0)
    self.assertEqual(re.findall(r'^  (\w+) ', result.stdout, re.M), NAMES)

  def test_each_has_help_with_its_flags(self):
    for name in NAMES:
      with self.subTest(name):
        result = run(name, '--help')
        self.assertEqual(result.returncode, 0)
        for flag in ('--seed', '--scale', '--format'):
          self.assertIn(flag, result.stdout)

  def test_same_seed_same_work_and_another_seed_other_work(self):
    for name in NAMES:
      with self.subTest(name):
        # Sizes that vary, for those whose default is a single one.
        sizes = (['--max_size=100'] if name in ('scratch', 'prodcons') else [])
        first = figures(name, '--seed=7', *sizes)
        again = figures(name, '--seed=7', *sizes)
        other = figures(name, '--seed=8', *sizes)
        self.assertEqual(first['workload'], name)
        self.assertGreater(first['operations'], 0)
        self.assertGreater(first['peak_rss_kib'], 0)
        self.assertGreater(first['time_s'], 0)
        for key in ('operations', 'checksum'):
          self.assertEqual(first[key], again[key], key)
        self.assertNotEqual(first['checksum'], other['checksum'])

  def test_scale_changes_the_amount_of_work(self):
    for name in NAMES:
      if name == 'large':
        continue  # of so few replacements that the first filling shows
      with self.subTest(name):
        ratio = (figures(name, '--scale=0.02')['operations'] /
                 figures(name)['operations'])
        self.assertAlmostEqual(ratio, 2, delta=0.25)

  def test_text_is_one_line(self):
    result = run('pairs', '--pairs=1000')
    self.assertRegex(result.stdout,
                     r'^pairs: [\d.]+ s, 1000 operations, .*KiB\n$')

  def test_figures_of_its_own(self):
    for name, keys in [
        ('server', [f'phase{i}_rss_over_live' for i in range(1, 6)]),
        ('idle', ['rss_peak_kib', 'rss_0s_kib', 'rss_1s_kib', 'rss_5s_kib']),
        ('peaks', ['rss_at_end_kib']),
        ('idlers', ['rss_idle_kib', 'rss_each_kib']),
        ('leakless', ['rss_after_tenth_kib', 'rss_at_end_kib']),
    ]:
      found = figures(name)
      for key in keys:
        self.assertGreater(found[key], 0, key)

  def test_queue_ends_with_whatever_shape(self):
    for producers, consumers, batches, queue, wake in itertools.product(
        (1, 3), (1, 3), (1, 7), (1, 2, 64), (1, 2, 64)):
      arguments = [f'--producers={producers}', f'--consumers={consumers}',
                   f'--batches={batches}', f'--queue={queue}', f'--wake={wake}',
                   '--batch=2', '--scale=1']
      with self.subTest(arguments=arguments):
        self.assertEqual(figures('prodcons', *arguments)['operations'],
                         producers * batches * 2)

  def test_queue_wakes_for_as_many_batches_as_it_is_told(self):
    for producers, consumers, wake in [(1, 1, 64), (2, 2, 32)]:
      waits = figures('prodcons', f'--producers={producers}',
                      f'--consumers={consumers}', f'--wake={wake}',
                      '--queue=64', '--batches=2000', '--scale=1')['waits']
      # A thread waits from one such moment to the next, and once to the end.
      moments = producers * 2000 // wake
      self.assertGreater(waits, 0)
      self.assertLessEqual(waits, (producers + consumers) * (moments + 1))

  def test_nonsense_is_refused_with_status_2(self):
    for arguments, word in [
        ([], 'which workload'),
        (['nonsense'], 'nonsense'),
        (['pairs', 'stray'], 'stray'),
        (['pairs', '--no_such=1'], 'no_such'),
        (['pairs', '--threads=0'], '--threads=0'),
        (['pairs', '--threads=-1'], '--threads=-1'),
        (['pairs', '--threads=two'], '--threads=two'),
        (['pairs', '--threads='], '--threads='),
        (['pairs', '--threads'], '--threads'),
        (['pairs', '--min_size=9', '--max_size=8'], '--min_size'),
        (['pairs', '--scale=0'], '--scale=0'),
        (['pairs', '--scale=nan'], '--scale=nan'),
        (['pairs', '--format=xml'], '--format=xml'),
    ]:
      with self.subTest(arguments=arguments):
        result = run(*arguments)
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertIn(word, result.stderr)
        self.assertEqual(result.stdout, '')


if __name__ == '__main__':
  unittest.main()
