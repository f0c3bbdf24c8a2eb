"""PHP: a script by itself, and its own web server.

Its extensions are plug-ins that it opens with RTLD_DEEPBIND.
"""

import os
import signal
import sys
import unittest
import urllib.request

from tools.programs import program_case

LOAD = os.path.abspath(sys.argv.pop(1))
LINES = 6

CLIENTS = 4
REQUESTS = 10


class PhpTest(program_case.ProgramCase):

  PROGRAMS = {'/usr/bin/php': 'php-cli',
              '/usr/lib/php/*/pdo_sqlite.so': 'php-sqlite3',
              '/usr/lib/php/*/dom.so': 'php-xml',
              '/usr/lib/php/*/mbstring.so': 'php-mbstring'}

  def test_a_script(self):
    self.check_in_use(['php', '-r', ''])
    out = self.check('script', ['php', LOAD, '1'])
    self.assertEqual(len(out.splitlines()), LINES)

  def test_a_script_that_mallocs_every_block(self):
    # PHP's own allocator takes blocks of 2 MiB, and so is left out here.
    out = self.check('every', ['env', 'USE_ZEND_ALLOC=0', 'php', LOAD, '2'])
    self.assertEqual(len(out.splitlines()), LINES)

  def test_a_server(self):
    def load(preload):
      port = program_case.free_port()
      command = ['php', '-q', '-S', f'127.0.0.1:{port}', LOAD]

      def client(number):
        texts = []
        for request in range(REQUESTS):
          seed = number * REQUESTS + request
          url = f'http://127.0.0.1:{port}/?seed={seed}'
          with urllib.request.urlopen(url, timeout=60) as response:
            texts.append(response.read().decode())
        return texts

      with self.server(preload, command, port, stop=signal.SIGINT,
                       stderr=None):
        return program_case.map_threads(client, CLIENTS)

    for texts in self.both(load):
      for text in texts:
        self.assertEqual(len(text.splitlines()), LINES)


if __name__ == '__main__':
  unittest.main()
