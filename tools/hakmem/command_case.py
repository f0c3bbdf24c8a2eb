"""What the tests that drive the command `hakmem` share.

The command is the test's first argument. One that was built in a place of its
own is to find the library where a build has it: that is the last argument then.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import unittest

HAKMEM = os.path.abspath(sys.argv.pop(1))
if sys.argv[-1].endswith('.so'):
  _build = tempfile.TemporaryDirectory()
  for _name, _file in (('tools/hakmem/hakmem', HAKMEM),
                       ('hakmem/shim/libhakmem.so', sys.argv.pop())):
    os.makedirs(os.path.dirname(os.path.join(_build.name, _name)))
    shutil.copy(_file, os.path.join(_build.name, _name))
  HAKMEM = os.path.join(_build.name, 'tools/hakmem/hakmem')

NOBODY = 65534


def hakmem(*arguments, **kwargs):
  kwargs.setdefault('stdout', subprocess.PIPE)
  return subprocess.run([HAKMEM, *map(str, arguments)], stderr=subprocess.PIPE,
                        text=True, timeout=60, check=False, **kwargs)


class CommandCase(unittest.TestCase):

  def assert_refused(self, result, status, pattern):
    """One line on stderr, and nothing else."""
    self.assertEqual(result.returncode, status, result.stderr)
    self.assertRegex(result.stderr, f'^hakmem: {pattern}\n$')
    self.assertEqual(result.stdout, '')
