"""nginx: files plain, compressed and in parts, to many clients at once."""

import gzip
import hashlib
import http.client
import os
import random
import signal
import unittest

from tools.programs import program_case

CLIENTS = 16
REQUESTS = 150
FILES = 40

CONFIG = '''
daemon off;
pid {root}/pid;
error_log {root}/error.log notice;
worker_processes 3;
{user}
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {root}/body;
  proxy_temp_path {root}/proxy;
  fastcgi_temp_path {root}/fastcgi;
  uwsgi_temp_path {root}/uwsgi;
  scgi_temp_path {root}/scgi;
  default_type text/plain;
  gzip_min_length 100;
  server {{
    listen 127.0.0.1:{port};
    root {root}/files;
    location /packed/ {{ gzip on; alias {root}/files/; }}
    location /list/ {{ autoindex on; alias {root}/files/; }}
    location /page/ {{ ssi on; ssi_types *; alias {root}/pages/; }}
    location /via/ {{ proxy_pass http://127.0.0.1:{port}/packed/; }}
  }}
}}
'''


def get(connection, path, headers):
  """The response and its body; once more where a worker that retires had
  closed the idle connection in the meantime, as HTTP allows it to.
  """
  try:
    connection.request('GET', path, headers=headers)
    response = connection.getresponse()
  except (http.client.RemoteDisconnected, ConnectionError):
    connection.close()
    connection.request('GET', path, headers=headers)
    response = connection.getresponse()
  return response, response.read()


class NginxTest(program_case.ProgramCase):

  PROGRAMS = {'/usr/sbin/nginx': 'nginx'}

  def setUp(self):
    super().setUp()
    self.root = os.path.join(self.scratch, 'nginx')
    for name in ('', 'files', 'pages'):
      os.mkdir(os.path.join(self.root, name))
    # Text with a fixed seed and fixed times, which autoindex shows.
    source = random.Random(1)
    for number in range(FILES):
      path = os.path.join(self.root, 'files', f'{number}.txt')
      words = [str(source.randrange(5000)) for _ in range(8 ** (number % 6))]
      with open(path, 'w') as file:
        file.write(' '.join(words) + '\n')
      os.utime(path, (1700000000, 1700000000))
      with open(os.path.join(self.root, 'pages', f'{number}.txt'), 'w') as file:
        for other in range(10):
          file.write(f'<!--# include virtual="/{(number + other) % FILES}.txt" -->')

  def request_all(self, port, client):
    """What one client asks for, over a few connections; a digest of it all."""
    told = hashlib.sha256()
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=60)
    for i in range(REQUESTS):
      name = f'{(client * 7 + i * 3) % FILES}.txt'
      path, headers = [
          (f'/{name}', {}),
          (f'/{name}', {'Range': 'bytes=0-9,20-29,40-4000'}),
          (f'/packed/{name}', {'Accept-Encoding': 'gzip'}),
          (f'/via/{name}', {'Accept-Encoding': 'gzip'}),
          (f'/page/{name}', {'X-Long': 'x' * (i * 40)}),
          ('/list/', {}),
          ('/missing', {}),
      ][i % 7]
      response, body = get(connection, path, headers)
      if response.getheader('Content-Encoding') == 'gzip':
        body = gzip.decompress(body)
      # A range's boundary string is a counter of the server.
      boundary = response.getheader('Content-Type', '').partition('boundary=')[2]
      if boundary:
        body = body.replace(boundary.encode(), b'boundary')
      told.update(b'%d %s' % (response.status, body))
      if i % 20 == 19:
        connection.close()
    connection.close()
    return told.hexdigest()

  def serve(self, preload):
    port = program_case.free_port()
    config = os.path.join(self.root, 'nginx.conf')
    with open(config, 'w') as file:
      file.write(CONFIG.format(
          root=self.root, port=port,
          user='user nobody nogroup;' if os.geteuid() == 0 else ''))
    log = os.path.join(self.root, 'error.log')
    command = ['/usr/sbin/nginx', '-e', log, '-c', config, '-p', self.root]
    with self.server(preload, command, port, stop=signal.SIGQUIT) as process:
      def client(number):
        if number == CLIENTS // 2:
          process.send_signal(signal.SIGHUP)  # new workers take over meanwhile
        return self.request_all(port, number)
      told = program_case.map_threads(client, CLIENTS)
    said = program_case.read(log)
    self.assertNotIn('exited on signal', said)
    self.assertNotIn('hakmem', said)
    os.remove(log)
    return told

  def test_same_bytes(self):
    self.both(self.serve)


if __name__ == '__main__':
  unittest.main()
