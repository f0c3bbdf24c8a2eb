"""memcached: sets, gets, counters and comparisons from many connections."""

import hashlib
import socket
import unittest

from tools.programs import program_case

CLIENTS = 12
ROUNDS = 800


class Client:
  """One connection that speaks memcached's text protocol."""

  def __init__(self, port):
    self.socket = socket.create_connection(('127.0.0.1', port))
    self.file = self.socket.makefile('rb')

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.file.close()
    self.socket.close()

  def line(self, command, data=None):
    self.socket.sendall(
        command.encode() + b'\r\n' + (b'' if data is None else data + b'\r\n'))
    return self.file.readline()

  def values(self, command):
    """The answer to a get: all of its lines and data, to END."""
    line, answer = self.line(command), b''
    while line != b'END\r\n':
      answer += line + self.file.read(int(line.split()[3]) + 2)
      line = self.file.readline()
    return answer


def load(port, number):
  told = hashlib.sha256()
  with Client(port) as client:
    told.update(client.line(f'set n{number} 0 0 1', b'0'))
    for i in range(ROUNDS):
      key = f'{number}.{i % 61}'
      size = 900000 if i % 200 == 7 else i * i % 20000
      data = (b'%d %d ' % (number, i) * size)[:size]
      told.update(client.line(f'set {key} {i} 0 {size}', data))
      told.update(client.line(f'append {key} 0 0 5', b'-end-'))
      told.update(client.line(f'add {key} 0 0 1', b'x'))
      told.update(client.line(f'incr n{number} {i}'))
      keys = ' '.join(f'{number}.{(i * 7 + n) % 61}' for n in range(10))
      told.update(client.values(f'get {keys}'))
      if i % 5 == 0:
        told.update(client.line(f'delete {number}.{i * 3 % 61}'))
      if i % 50 == 0:
        # Connections come and go, each with buffers of its own.
        with Client(port) as other:
          told.update(other.values(f'get {keys} n{number}'))
  return told.hexdigest()


class MemcachedTest(program_case.ProgramCase):

  PROGRAMS = {'/usr/bin/memcached': 'memcached'}

  def serve(self, preload):
    port = program_case.free_port()
    # Room for all that is stored, so that nothing is evicted.
    command = ['memcached', '-l', '127.0.0.1', '-p', str(port), '-U', '0',
               '-m', '1024', '-t', '4', '-u', 'nobody', '-I', '2m']
    with self.server(preload, command, port):
      told = program_case.map_threads(lambda n: load(port, n), CLIENTS)
      with Client(port) as client:
        client.socket.sendall(b'stats\r\n')
        stats = dict(line.split()[1:3] for line in
                     iter(client.file.readline, b'END\r\n'))
      self.assertEqual(stats[b'evictions'], b'0')
    return told + [stats[b'curr_items'], stats[b'get_hits'], stats[b'bytes']]

  def test_same_answers(self):
    self.both(self.serve)


if __name__ == '__main__':
  unittest.main()
