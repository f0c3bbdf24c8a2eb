"""What the tests that drive the command `hakmem` share.

The command is the test's first argument.
"""

import os
import subprocess
import sys
import unittest

HAKMEM = os.path.abspath(sys.argv.pop(1))

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
