"""Drives a larson binary as a user would.

Arguments: the binary, the config that it has to name, and a library that
answers as hakmem does (see fake_hakmem.cc).
"""

import json
import os
import subprocess
import sys
import unittest

LARSON = os.path.abspath(sys.argv.pop(1))
CONFIG = sys.argv.pop(1)
FAKE_HAKMEM = os.path.abspath(sys.argv.pop(1))

THREADS = 1 if CONFIG == 'unlocked' else 3

QUICK = ['--seconds=0.05', '--blocks_per_thread=200', '--rounds=2']


def larson(*arguments, env=None):
  return subprocess.run([LARSON, *arguments], capture_output=True, text=True,
                        timeout=120, check=False, env=env)


class LarsonCliTest(unittest.TestCase):

  def test_json_is_one_object_with_the_promised_keys(self):
    result = larson(f'--threads={THREADS}', '--format=json', *QUICK)
    self.assertEqual(result.returncode, 0, result.stderr)
    report = json.loads(result.stdout)
    self.assertEqual(
        set(report),
        {'threads', 'ops_per_sec', 'peak_rss_kib', 'config', 'hit_rate'})
    self.assertEqual(report['threads'], THREADS)
    self.assertGreater(report['ops_per_sec'], 0)
    self.assertGreater(report['peak_rss_kib'], 100)
    self.assertEqual(report['config'], CONFIG)
    self.assertEqual(set(report['hit_rate']), {'tiny', 'l2', 'l25'})
    # Default sizes are all tiny, so that is the one pool with a rate, if its
    # calls are cached.
    tiny = report['hit_rate'].pop('tiny')
    if CONFIG.startswith('tls_'):
      self.assertGreater(tiny, 0)
      self.assertLessEqual(tiny, 1)
    else:
      self.assertIsNone(tiny)
    self.assertEqual(report['hit_rate'], {'l2': None, 'l25': None})

  def test_text_names_the_figures(self):
    result = larson(f'--threads={THREADS}', *QUICK)
    self.assertEqual(result.returncode, 0, result.stderr)
    for word in ('threads' if THREADS > 1 else '1 thread', 'config', 'op/s', 'peak RSS', 'hit rate'):
      self.assertIn(word, result.stdout)

  def test_verify_says_how_much_it_checked(self):
    result = larson(f'--threads={THREADS}', '--verify', *QUICK)
    self.assertEqual(result.returncode, 0, result.stderr)
    self.assertRegex(result.stdout, r'verified +\d+ blocks, no error')

  def test_nonsense_is_refused_with_status_2_and_a_message(self):
    for arguments, word in [
        (['--threads=0'], '--threads'),
        (['--threads=-3'], '--threads'),
        (['--threads=many'], 'threads'),
        (['--seconds=0'], '--seconds'),
        (['--seconds=nan'], '--seconds'),
        (['--min_size=9', '--max_size=8'], '--min_size'),
        (['--min_size=0'], '--min_size'),
        (['--min_size=-1'], '--min_size'),
        (['--max_size=99999999999999'], 'sizes'),
        (['--blocks_per_thread=0'], '--blocks_per_thread'),
        (['--rounds=0'], '--rounds'),
        (['--format=xml'], '--format'),
        (['--no_such_flag'], 'no_such_flag'),
        (['stray'], 'stray'),
    ]:
      with self.subTest(arguments=arguments):
        result = larson(*arguments)
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertIn(word, result.stderr)
        self.assertEqual(result.stdout, '')

  def test_help_lists_the_flags_and_is_no_mistake(self):
    result = larson('--help')
    self.assertEqual(result.returncode, 0, result.stderr)
    for flag in ('threads', 'seconds', 'min_size', 'max_size',
                 'blocks_per_thread', 'rounds', 'seed', 'format', 'verify'):
      self.assertIn('--' + flag, result.stdout)

  @unittest.skipUnless(CONFIG == 'libc', 'would preload a second hakmem')
  def test_a_preloaded_hakmem_is_asked(self):
    for config, sizes, rates in [
        ('tls_full', (8, 2000), {'tiny': True, 'l2': True, 'l25': False}),
        ('p0', (8, 2000), {'tiny': False, 'l2': False, 'l25': False}),
        ('tls_full', (32769, 40000), {'tiny': False, 'l2': False, 'l25': True}),
    ]:
      with self.subTest(config=config, sizes=sizes):
        result = larson(
            '--threads=2', '--format=json', *QUICK,
            f'--min_size={sizes[0]}', f'--max_size={sizes[1]}',
            env={'LD_PRELOAD': FAKE_HAKMEM, 'FAKE_HAKMEM_CONFIG': config})
        self.assertEqual(result.returncode, 0, result.stderr)
        report = json.loads(result.stdout)
        self.assertEqual(report['config'], config)
        self.assertEqual({pool: rate is not None
                          for pool, rate in report['hit_rate'].items()}, rates)

  def test_a_heap_without_locks_is_not_given_two_threads(self):
    if CONFIG == 'unlocked':
      env = None
    elif CONFIG == 'libc':
      env = {'LD_PRELOAD': FAKE_HAKMEM, 'FAKE_HAKMEM_CONFIG': 'unlocked'}
    else:
      self.skipTest('this one has locks')
    result = larson('--threads=2', *QUICK, env=env)
    self.assertEqual(result.returncode, 2, result.stderr)
    self.assertIn('unlocked', result.stderr)
    # One at a time is fine, with hand-overs to new threads too.
    result = larson('--threads=1', *QUICK, env=env)
    self.assertEqual(result.returncode, 0, result.stderr)
    self.assertNotIn(' 0 hand-overs', result.stdout)

  def test_running_out_of_memory_is_reported(self):
    # 64 blocks of 1 GiB do not fit into 4 GiB of address space.
    result = subprocess.run(
        ['sh', '-c', 'ulimit -v 4194304; exec "$@"', 'sh', LARSON,
         '--threads=1', '--seconds=0.05', '--blocks_per_thread=64',
         '--min_size=1073741824', '--max_size=1073741824'],
        capture_output=True, text=True, timeout=120, check=False)
    self.assertEqual(result.returncode, 1, result.stderr)
    self.assertIn('null pointer', result.stderr)


if __name__ == '__main__':
  unittest.main()
