"""node: worker threads with buffers, compression and JSON."""

import os
import sys
import unittest

from tools.programs import program_case

LOAD = os.path.abspath(sys.argv.pop(1))


class NodeTest(program_case.ProgramCase):

  PROGRAMS = {'/usr/bin/node': 'nodejs'}

  def test_workers(self):
    self.check_in_use(['node', '-e', '0'])
    out = self.check('workers', ['node', LOAD])
    self.assertEqual(len(out.splitlines()), 8)


if __name__ == '__main__':
  unittest.main()
