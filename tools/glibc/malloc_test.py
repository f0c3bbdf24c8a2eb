"""glibc's own tests of malloc, as plain programs with libhakmem.so preloaded.

Arguments: the library, test-skeleton.c of glibc's sources, and the page with
the list of those that are left out. A test in glibc's directory that is not on
that list is run and has to pass.
"""

import concurrent.futures
import glob
import os
import re
import subprocess
import sys
import unittest

from hakmem.shim import preloading

GLIBC = os.path.dirname(os.path.abspath(sys.argv.pop(1)))
PAGE = os.path.abspath(sys.argv.pop(1))
SECTION = "The C library's own tests"

# Of glibc's own headers, those that stand alone.
HEADERS = ['include/array_length.h', 'include/libc-diag.h', 'malloc', 'support',
           'sysdeps/generic/malloc-alignment.h',
           'sysdeps/generic/malloc-size.h']

# Of its library for tests, what those of malloc need, beside all of x*.c.
SUPPORT = ['check', 'delayed_exit', 'ignore_stderr', 'oom_error',
           'support_capture_subprocess', 'support_capture_subprocess_check',
           'support_paths', 'support_record_failure', 'support_shared_allocate',
           'support_subprocess', 'support_test_compare_failure',
           'support_test_main', 'support_test_verify_impl', 'temp_file',
           'write_message']
# Two that need more of glibc's headers, and that nothing here calls.
NOT_SUPPORT = {'xclone', 'xreadlink'}

# Places in glibc's build, where nothing here looks.
PLACES = ['BINDIR', 'COMPLOCALEDIR', 'INSTDIR', 'LIBDIR', 'OBJDIR',
          'OBJDIR_ELF_LDSO', 'ROOTSBINDIR', 'SBINDIR', 'SLIBDIR', 'SRCDIR']

# Reasons that begin so are to go away: such a test is run and has to fail.
WAITING = 'Waits for'

# Each test gives itself 20 seconds or so, times this: for busy machines.
TIMEOUT_FACTOR = '8'


def left_out():
  """{test: reason} as the page lists them."""
  with open(PAGE) as page:
    section = page.read().split(f'## {SECTION}\n')[1].split('\n## ')[0]
  listed = {}
  for names, reason in re.findall(r'^\| (`.*?) \| (.+) \|$', section, re.M):
    for name in re.findall(r'`([^`]+)`', names):
      assert name not in listed, f'{name} is listed twice'
      listed[name] = reason
  return listed


def all_tests():
  """All that glibc has: its name for each ends in .c."""
  files = glob.glob(os.path.join(GLIBC, 'malloc', 'tst-*.c'))
  return sorted(os.path.basename(file)[:-2] for file in files) + ['mallocbug']


class MallocTest(preloading.PreloadCase):

  def setUp(self):
    super().setUp()
    self.include = os.path.join(self.scratch, 'include')
    os.mkdir(self.include)
    for header in HEADERS:
      os.symlink(os.path.join(GLIBC, header),
                 os.path.join(self.include, os.path.basename(header)))
    # Included by files that need nothing of it outside of glibc.
    with open(os.path.join(self.include, 'config.h'), 'w'):
      pass

  def gcc(self, *arguments):
    # As glibc compiles them, but for its warnings.
    result = subprocess.run(
        ['gcc', '-O2', '-std=gnu11', '-w', '-D_GNU_SOURCE', '-DTEST_NO_MALLOPT',
         '-DTIMEOUTFACTOR=1', '-include', 'limits.h', '-I', self.include, '-I',
         os.path.join(GLIBC, 'support'), *arguments],
        cwd=self.scratch, capture_output=True, text=True, check=False,
        env=self.environment(preload=False))
    return result.stderr if result.returncode else ''

  def build_support(self, pool):
    directory = os.path.join(GLIBC, 'support')
    names = SUPPORT + [
        name for file in sorted(os.listdir(directory))
        if (name := file[:-2]) + '.c' == file and name.startswith('x')
        and name not in NOT_SUPPORT]
    defines = [f'-D{place}_PATH="/"' for place in PLACES]
    errors = pool.map(
        lambda name: self.gcc(*defines, '-c', '-o', f'{name}.o',
                              os.path.join(directory, f'{name}.c')), names)
    self.assertEqual('', ''.join(errors))
    objects = [f'{name}.o' for name in names]
    subprocess.run(['ar', 'rcsD', 'support.a', *objects], cwd=self.scratch,
                   check=True)

  def run_test(self, name):
    """'' if the test passes, else what it said."""
    program = os.path.join(self.scratch, name)
    errors = self.gcc(os.path.join(GLIBC, 'malloc', f'{name}.c'), 'support.a',
                      '-pthread', '-o', program)
    if errors:
      return f'{name} does not compile:\n{errors}'
    result = self.run_once(f'{name}.run', [program], '',
                           preload=True, TIMEOUTFACTOR=TIMEOUT_FACTOR)
    if result.returncode == 0:
      return ''
    plain = self.run_once(f'{name}.run', [program], '', preload=False,
                          TIMEOUTFACTOR=TIMEOUT_FACTOR)
    return (f'{name} fails, with status {result.returncode}; with the C '
            f"library's malloc, {plain.returncode}:\n"
            f'{result.stdout[-2000:]}{result.stderr[-2000:]}')

  def test_every_test_that_is_not_left_out_passes(self):
    listed = left_out()
    tests = all_tests()
    self.assertGreater(len(tests), 50)
    self.assertEqual(set(listed) - set(tests), set(),
                     f'{PAGE} lists tests that glibc does not have')
    to_run = [name for name in tests
              if name not in listed or listed[name].startswith(WAITING)]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
      self.build_support(pool)
      said = dict(zip(to_run, pool.map(self.run_test, to_run)))
    for name in sorted(set(to_run) & set(listed)):
      self.assertTrue(said.pop(name),
                      f'{name} passes now: take it off the list in {PAGE}')
    print(f'{len(said)} of {len(tests)} run, {len(listed)} left out')
    failures = [line for line in said.values() if line]
    self.assertEqual(failures, [], '\n' + '\n'.join(failures))


if __name__ == '__main__':
  unittest.main()
