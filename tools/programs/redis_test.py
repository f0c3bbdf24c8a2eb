"""redis-server: data of every type, from many clients, saved and loaded."""

import hashlib
import os
import socket
import unittest

from tools.programs import program_case

CLIENTS = 8
ROUNDS = 400
BENCHMARKS = ('set', 'get', 'incr', 'lpush', 'rpop', 'sadd', 'hset', 'spop',
              'zadd', 'zpopmin', 'lrange_100', 'mset')


class Client:
  """One connection that speaks RESP, the protocol of redis."""

  def __init__(self, port):
    self.socket = socket.create_connection(('127.0.0.1', port))
    self.file = self.socket.makefile('rb')

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.file.close()
    self.socket.close()

  def pipeline(self, commands):
    """Sends all, then reads all of the answers."""
    out = bytearray()
    for command in commands:
      words = [word if isinstance(word, bytes) else str(word).encode()
               for word in command]
      out += b'*%d\r\n' % len(words)
      for word in words:
        out += b'$%d\r\n%s\r\n' % (len(word), word)
    self.socket.sendall(out)
    return [self.answer() for _ in commands]

  def call(self, *command):
    return self.pipeline([command])[0]

  def answer(self):
    line = self.file.readline()
    kind, rest = line[:1], line[1:-2]
    if kind == b'$':
      length = int(rest)
      return None if length < 0 else self.file.read(length + 2)[:-2]
    if kind == b'*':
      return [self.answer() for _ in range(int(rest))]
    if kind == b'-':
      raise RuntimeError(rest.decode())
    return rest


def load(port, number):
  """What one client does; returns a digest of all that it was told."""
  told = hashlib.sha256()
  with Client(port) as client:
    for i in range(ROUNDS):
      key = f'{number}:{i % 97}'
      value = f'{number} {i} '.encode() * (i * i % 3000)
      answers = client.pipeline([
          ('SET', f's:{key}', value),
          ('APPEND', f's:{key}', value[:50]),
          ('GETRANGE', f's:{key}', 5, 500),
          ('RPUSH', f'l:{key}', *range(i % 40 + 1)),
          ('LRANGE', f'l:{key}', 0, 20),
          ('HSET', f'h:{key}', *[f'{n % 50} {i % 7}' for n in range(40)]),
          ('HGET', f'h:{key}', f'3 {i % 7}'),
          ('ZADD', f'z:{key}', *[n * i % 101 if n % 2 == 0 else f'm{n}{i % 9}'
                                 for n in range(60)]),
          ('ZRANGE', f'z:{key}', 0, 30, 'WITHSCORES'),
          ('SETBIT', f'b:{key}', i * 8191 % 2000000, 1),
          ('BITCOUNT', f'b:{key}'),
          ('EVAL', 'local t = {} for i = 1, 200 do t[i] = ARGV[1] .. i end '
                   'return table.concat(t)', 0, key),
          ('DEL', f's:{number}:{i * 31 % 97}', f'l:{number}:{i * 17 % 97}'),
      ])
      told.update(repr(answers).encode())
  return told.hexdigest()


class RedisTest(program_case.ProgramCase):

  PROGRAMS = {'/usr/bin/redis-server': 'redis-server',
              '/usr/bin/redis-benchmark': 'redis-tools'}

  def command(self, port):
    return ['redis-server', '--port', str(port), '--bind', '127.0.0.1',
            '--dir', self.scratch, '--save', '', '--daemonize', 'no',
            '--enable-debug-command', 'local', '--io-threads', '2',
            '--lazyfree-lazy-user-del', 'yes']

  def serve(self, preload):
    port = program_case.free_port()
    dump = os.path.join(self.scratch, 'dump.rdb')
    with self.server(preload, self.command(port), port):
      told = program_case.map_threads(lambda n: load(port, n),
                                      CLIENTS)
      with Client(port) as client:
        digest = client.call('DEBUG', 'DIGEST')
        # A child that shares the heap saves it, and so does a thread the log.
        client.call('BGSAVE')
        client.call('CONFIG', 'SET', 'appendonly', 'yes')
        while b'in_progress:1' in (info := client.call('INFO', 'persistence')):
          self.assertIn(b'rdb_last_bgsave_status:ok', info)
        client.call('DEBUG', 'RELOAD')
        self.assertEqual(client.call('DEBUG', 'DIGEST'), digest)
        client.call('FLUSHALL', 'ASYNC')
        client.call('CONFIG', 'SET', 'appendonly', 'no')
    # What the first server saved another one loads.
    port = program_case.free_port()
    with self.server(preload, self.command(port), port), Client(port) as client:
      while b'loading:1' in client.call('INFO', 'persistence'):
        pass
      self.assertEqual(client.call('DEBUG', 'DIGEST'), digest)
    os.remove(dump)
    return told + [digest]

  def test_same_answers_and_same_data(self):
    self.both(self.serve)

  def test_under_its_own_benchmark(self):
    port = program_case.free_port()
    with self.server(True, self.command(port), port):
      out = self.quiet(True, [
          'redis-benchmark', '-h', '127.0.0.1', '-p', str(port), '-q', '-c',
          '40', '-n', '10000', '-r', '20000', '-d', '700', '-P', '8',
          '--threads', '2', '-t', ','.join(BENCHMARKS)])
      for name in BENCHMARKS:
        self.assertRegex(out, rf'(?m)(^|\r){name.upper()}.*requests per second')


if __name__ == '__main__':
  unittest.main()
