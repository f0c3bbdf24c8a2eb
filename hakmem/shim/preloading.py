"""What every test that preloads libhakmem.so into other programs shares.

The first argument of such a test is the library. A case runs a program twice,
with the library and without, and compares.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import unittest

LIBRARY = os.path.abspath(sys.argv.pop(1))

# A name that is no option: the library says so, once, in each process it is in.
CONTROL = 'HAKMEM_NO_SUCH_OPTION'
CONTROL_LINE = f'hakmem: warning: no such option: {CONTROL}: ignored\n'


class PreloadCase(unittest.TestCase):
  """A test case with a scratch directory and ways to run programs."""

  def setUp(self):
    self.scratch = self.make_scratch()
    self.addCleanup(shutil.rmtree, self.scratch, ignore_errors=True)

  def make_scratch(self):
    return tempfile.mkdtemp(dir=os.environ.get('TEST_TMPDIR'))

  def environment(self, preload, **more):
    """What a program gets: the same on every machine, with the library or not."""
    env = {'PATH': '/usr/bin:/bin', 'HOME': self.scratch, 'LC_ALL': 'C',
           'TMPDIR': self.scratch, **more}
    if preload:
      env['LD_PRELOAD'] = LIBRARY
    return env

  def compile_c(self, name, text, *options):
    """Compiles a program, or what the options say, in the scratch directory."""
    output = os.path.join(self.scratch, name)
    with open(output + '.c', 'w', encoding='utf-8') as file:
      file.write(text)
    # The compiler is not to know what malloc() and free() are.
    subprocess.run(['gcc', '-O1', '-fno-builtin', '-o', output, output + '.c',
                    *options], check=True)
    return output

  def run_once(self, name, command, stdin, preload, **env):
    """Runs the command in an empty directory of the same name every time."""
    directory = os.path.join(self.scratch, name)
    shutil.rmtree(directory, ignore_errors=True)
    os.mkdir(directory)
    return subprocess.run(command, input=stdin, capture_output=True, text=True,
                          cwd=directory, check=False,
                          env=self.environment(preload, **env))

  def check(self, name, command, stdin=''):
    """The same output with and without, and nothing on stderr."""
    plain = self.run_once(name, command, stdin, preload=False)
    self.assertEqual(plain.returncode, 0, plain.stderr)
    preloaded = self.run_once(name, command, stdin, preload=True)
    self.assertEqual(preloaded.stderr, '')
    self.assertEqual(preloaded.returncode, 0)
    self.assertEqual(preloaded.stdout, plain.stdout)
    self.assertNotEqual(plain.stdout, '')
    return plain.stdout

  def check_in_use(self, command):
    """`command`, a program's quickest, says on stderr that hakmem is there."""
    result = self.run_once('control', command, '', preload=True,
                           **{CONTROL: '1'})
    self.assertEqual(result.stderr, CONTROL_LINE)
