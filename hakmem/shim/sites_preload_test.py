"""Sites of programs that do not know of hakmem, and what is written at exit.

Argument: the shared library, which is preloaded.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import unittest

LIBRARY = os.path.abspath(sys.argv.pop(1))

# Twenty threads that allocate and free; one line leaks.
PROGRAM = '''
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/wait.h>
__attribute__((noinline)) void *leak(void) { return malloc(777); }
static void *work(void *number) {
  void *blocks[100];
  for (int round = 0; round < 50; ++round) {
    for (int i = 0; i < 100; ++i) blocks[i] = calloc(1, 10 + i * 30);
    for (int i = 0; i < 100; ++i) blocks[i] = realloc(blocks[i], 20 + i * 40);
    for (int i = 0; i < 100; ++i) free(blocks[i]);
    if (leak() == NULL) abort();
  }
  return number;
}
int main(int argc, char **argv) {
  pthread_t threads[20];
  for (int i = 0; i < 20; ++i) pthread_create(&threads[i], NULL, work, NULL);
  for (int i = 0; i < 20; ++i) pthread_join(threads[i], NULL);
  if (argc > 1) {
    int status;
    if (fork() == 0) exit(0);
    wait(&status);
  }
  return 0;
}
'''
LEAKED_BYTES = 20 * 50 * 896
LEAKED_BLOCKS = 20 * 50


class SitesPreloadTest(unittest.TestCase):

  @classmethod
  def setUpClass(cls):
    cls.scratch = tempfile.TemporaryDirectory()
    cls.program = os.path.join(cls.scratch.name, 'program')
    source = cls.program + '.c'
    with open(source, 'w') as file:
      file.write(PROGRAM)
    subprocess.run(['gcc', '-g', '-O1', '-fno-builtin', '-pthread', source,
                    '-o', cls.program], check=True)

  @classmethod
  def tearDownClass(cls):
    cls.scratch.cleanup()

  def run_program(self, *arguments, **options):
    env = dict(os.environ, LD_PRELOAD=LIBRARY)
    env.update({'HAKMEM_' + name.upper(): value
                for name, value in options.items()})
    result = subprocess.run([self.program, *arguments], env=env, check=True,
                            capture_output=True, text=True)
    self.assertEqual(result.stdout, '')
    return result.stderr

  def line_of(self, place):
    """file:line of a return address, as the address before it has it."""
    file, offset = place.rsplit('+', 1)
    return subprocess.run(
        ['addr2line', '-f', '-e', file, hex(int(offset, 16) - 1)], check=True,
        capture_output=True, text=True).stdout

  def test_the_first_line_of_leaks_is_the_planted_one(self):
    lines = self.run_program(sites='caller', leaks='1').splitlines()
    first = re.fullmatch(
        r'hakmem: leak: (\d+) bytes in (\d+) blocks, (/.*\+0x[0-9a-f]+)',
        lines[0])
    self.assertTrue(first, lines[0])
    self.assertEqual(int(first[1]), LEAKED_BYTES)
    self.assertEqual(int(first[2]), LEAKED_BLOCKS)
    self.assertRegex(self.line_of(first[3]), r'^leak\n.*program\.c:7\b')
    last = re.fullmatch(r'hakmem: leaks: (\d+) bytes in (\d+) blocks of (\d+) '
                        r'sites, process \d+', lines[-1])
    self.assertTrue(last, lines[-1])
    self.assertGreaterEqual(int(last[1]), LEAKED_BYTES)
    self.assertEqual(int(last[3]), len(lines) - 1)

  def test_statistics_are_json_and_exact(self):
    path = os.path.join(self.scratch.name, 'statistics.%p')
    self.assertEqual(self.run_program(sites='caller', stats=path), '')
    [name] = [name for name in os.listdir(self.scratch.name)
              if name.startswith('statistics.')]
    self.assertRegex(name, r'^statistics\.\d+$')
    with open(os.path.join(self.scratch.name, name)) as file:
      statistics = json.load(file)
    self.assertEqual(statistics['version'], 1)
    self.assertEqual(str(statistics['process']), name.split('.')[1])
    self.assertEqual([pool['name'] for pool in statistics['pools']],
                     ['tiny', 'l2', 'l25'])
    sites = {}
    for site in statistics['sites']:
      self.assertEqual(site['kind'], 'caller')
      self.assertEqual(sum(site['sizes'].values()), site['total_blocks'])
      if site['file'].endswith('program'):
        place = '%s+%#x' % (site['file'], site['offset'])
        line = int(re.search(r':(\d+)', self.line_of(place))[1])
        sites[line] = site
    self.assertEqual(set(sites), {7, 11, 12})
    self.assertEqual(sites[7]['live_blocks'], LEAKED_BLOCKS)
    self.assertEqual(sites[11]['total_blocks'], 20 * 50 * 100)
    # All that did not fit where it was came from line 12, and has gone.
    self.assertEqual(sites[11]['live_blocks'], 0)
    self.assertEqual(sites[12]['live_blocks'], 0)
    self.assertGreater(sites[12]['total_blocks'], 20 * 50 * 50)

  def test_a_child_reports_for_itself(self):
    text = self.run_program('fork', sites='caller', leaks='1')
    found = re.findall(r'hakmem: leak: (\d+) bytes in \d+ blocks, .*/program\+',
                       text)
    self.assertEqual(found, [str(LEAKED_BYTES)] * 2)
    self.assertEqual(len(set(re.findall(r'process (\d+)$', text, re.M))), 2)

  def test_nothing_is_written_unless_asked_for(self):
    self.assertEqual(self.run_program(), '')
    self.assertEqual(self.run_program(sites='caller'), '')
    # Blocks of no site are nobody's.
    self.assertRegex(self.run_program(leaks='1'),
                     r'^hakmem: leaks: 0 bytes in 0 blocks of 0 sites, '
                     r'process \d+\n$')
    self.assertRegex(self.run_program(leaks='/no/such/folder/x'),
                     r'^hakmem: warning: cannot open /no/such/folder/x: no '
                     r'report is written\n$')


if __name__ == '__main__':
  unittest.main()
