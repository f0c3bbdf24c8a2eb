"""What the tests of real programs share: packages, servers, client threads.

Every server listens on 127.0.0.1 only, on a port that was free, keeps all that
it writes in a temporary directory, and is stopped before its test ends.
"""

import concurrent.futures
import contextlib
import glob
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from hakmem.shim import preloading

START_SECONDS = 60
STOP_SECONDS = 60


def missing(programs):
  """The line that says which packages to install, or '' if all is there.

  `programs` maps a file, or a pattern of one, to the package that brings it.
  """
  packages = sorted({package for pattern, package in programs.items()
                     if not glob.glob(pattern)})
  if not packages:
    return ''
  return ('this test needs Debian packages that are not installed: '
          f'{", ".join(packages)}. As root run:\n'
          f'apt-get install --no-install-recommends {" ".join(packages)}')


def free_port():
  with socket.socket() as listener:
    listener.bind(('127.0.0.1', 0))
    return listener.getsockname()[1]


def map_threads(work, count):
  """[work(0), ..., work(count - 1)], each in a thread of its own."""
  with concurrent.futures.ThreadPoolExecutor(count) as pool:
    return list(pool.map(work, range(count)))


def process_tree(pid):
  """`pid` and its children, and theirs, as far as they are alive."""
  found = [pid]
  for children in glob.glob(f'/proc/{pid}/task/*/children'):
    with contextlib.suppress(OSError), open(children) as file:
      for child in file.read().split():
        found += process_tree(int(child))
  return found


class ProgramCase(preloading.PreloadCase):
  """A test of one program. PROGRAMS says what has to be installed for it."""

  PROGRAMS = {}

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    line = missing(cls.PROGRAMS)
    if line:
      raise AssertionError(line)

  def make_scratch(self):
    # Short, for the names of sockets, and open to the users that servers
    # change to, which a directory of Bazel's need not be. The library too.
    scratch = tempfile.mkdtemp(prefix='programs-', dir='/tmp')
    os.chmod(scratch, 0o755)
    self.library = os.path.join(scratch, os.path.basename(preloading.LIBRARY))
    shutil.copy(preloading.LIBRARY, self.library)
    os.chmod(self.library, 0o755)
    return scratch

  def environment(self, preload, **more):
    env = super().environment(preload, **more)
    if preload:
      env['LD_PRELOAD'] = self.library
    return env

  def both(self, load):
    """load(preload) without the library and with it gives the same."""
    plain = load(False)
    preloaded = load(True)
    self.assertTrue(plain)
    # Long results: where they differ first says more than all of both.
    if isinstance(plain, list) and len(plain) == len(preloaded):
      for number, (one, other) in enumerate(zip(plain, preloaded)):
        self.assertEqual(other, one, f'result {number} of {len(plain)}')
    self.assertEqual(preloaded, plain)
    return plain

  @contextlib.contextmanager
  def server(self, preload, command, port, stop=signal.SIGTERM, stderr='',
             status=0, cwd=None):
    """Runs a server while the `with` block does; its port answers by then.

    At the end it gets the signal `stop`, has to exit with `status` and to have
    written `stderr` on stderr; None lets it say anything that is not hakmem's.
    """
    log = os.path.join(self.scratch, f'stderr-{port}')
    with open(log, 'wb') as file:
      process = subprocess.Popen(
          command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
          stderr=file, cwd=cwd or self.scratch, env=self.environment(preload))
    try:
      self.await_port(process, port, log)
      yield process
      self.assert_mapped(process.pid, preload)
      process.send_signal(stop)
      self.assertEqual(process.wait(STOP_SECONDS), status, read(log))
    finally:
      for pid in process_tree(process.pid) if process.poll() is None else []:
        with contextlib.suppress(ProcessLookupError):
          os.kill(pid, signal.SIGKILL)
      process.wait()
    said = read(log)
    self.assertNotIn('hakmem', said)
    if stderr is not None:
      self.assertEqual(said, stderr)

  def await_port(self, process, port, log):
    deadline = time.monotonic() + START_SECONDS
    while True:
      self.assertIsNone(process.poll(), f'the server is gone: {read(log)}')
      with contextlib.suppress(OSError):
        socket.create_connection(('127.0.0.1', port), timeout=1).close()
        return
      self.assertLess(time.monotonic(), deadline, f'no answer: {read(log)}')
      time.sleep(0.05)

  def assert_mapped(self, pid, preload):
    """Every process of the server has the library, or none has."""
    for member in process_tree(pid):
      with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        maps = read(f'/proc/{member}/maps')
        if maps:  # none is left of one that has ended
          self.assertEqual('libhakmem' in maps, preload)

  def quiet(self, preload, command, **kwargs):
    """Runs a client to its good end and returns what it printed."""
    result = subprocess.run(
        command, capture_output=True, text=True, check=False,
        env=self.environment(preload), cwd=self.scratch, **kwargs)
    self.assertNotIn('hakmem', result.stderr)
    self.assertEqual(result.returncode, 0, result.stderr + result.stdout)
    return result.stdout


def read(path):
  with open(path, errors='replace') as file:
    return file.read()
