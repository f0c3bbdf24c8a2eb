"""python3's own tests of what uses malloc most: the same results."""

import os
import unittest
import xml.etree.ElementTree

from tools.programs import program_case

MODULES = ['test_thread', 'test_threading', 'test_threading_local',
           'test_queue', 'test_fork1', 'test_subprocess', 'test_ctypes',
           'test_json', 'test_gc', 'test_bytes']


class PythonModulesTest(program_case.ProgramCase):

  PROGRAMS = {'/usr/bin/python3': 'python3',
              '/usr/lib/python3.*/test/test_threading.py':
                  'libpython3.11-testsuite'}

  def results(self, preload):
    """Sorted (test, result) of all test cases."""
    report = os.path.join(self.scratch, f'report-{preload}.xml')
    result = self.run_once(
        'modules', ['/usr/bin/python3', '-m', 'test', '--junit-xml', report,
                    *MODULES], '', preload=preload)
    self.assertNotIn('hakmem', result.stderr + result.stdout)
    self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
    cases = xml.etree.ElementTree.parse(report).getroot().iter('testcase')
    return sorted((case.get('name'), case.get('result'),
                   ' '.join(child.tag for child in case)) for case in cases)

  def test_same_results(self):
    self.check_in_use(['/usr/bin/python3', '-c', 'pass'])
    self.assertGreater(len(self.both(self.results)), 1000)


if __name__ == '__main__':
  unittest.main()
