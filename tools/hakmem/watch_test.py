"""Drives hakmem top, record, report and run --record as a user would.

Arguments: the command, and a program with tables that this test fills.
"""

import fcntl
import html.parser
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
import unittest
import unittest.mock

from command_case import CommandCase, HAKMEM, NOBODY, hakmem

FAKE_TARGET = os.path.abspath(sys.argv.pop(1))

# Leaks in one of 20 threads, on the line that says so; does what its argument
# says at the end.
LEAKY = '''
#include <sys/wait.h>
#include <unistd.h>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>
void* volatile sink;
__attribute__((noinline)) void Plant() {
  for (int i = 0; i < 50; ++i) {
    sink = malloc(10000);  // the leak
    asm("");
  }
}
__attribute__((noinline)) void Work(int seed) {
  std::vector<void*> blocks;
  for (int i = 0; i < 20000; ++i) {
    blocks.push_back(malloc(16 + i * seed % 500));
    if (blocks.size() > 100) {
      free(blocks[i % 100]);
      blocks[i % 100] = blocks.back();
      blocks.pop_back();
    }
  }
  for (void* block : blocks) free(block);
}
int main(int argc, char** argv) {
  const char* const how = argc > 1 ? argv[1] : "";
  if (strcmp(how, "clean") == 0) return 4;
  std::vector<std::thread> threads;
  for (int i = 0; i < 20; ++i) {
    threads.emplace_back([i] {
      Work(i + 1);
      if (i == 7) Plant();
    });
  }
  for (std::thread& thread : threads) thread.join();
  if (strcmp(how, "kill") == 0) raise(SIGTERM);
  if (strcmp(how, "_exit") == 0) _exit(5);
  if (strcmp(how, "fork") == 0 && fork() == 0) {
    sink = new char[700000];  // the leak of the child
    return 0;
  }
  wait(nullptr);
  puts("done");
  if (strcmp(how, "wait") == 0) getchar();
  return 3;
}
'''

# Counts the signals that it gets, and ends with SIGTERM. Not a shell with traps:
# bash's `read` does not see a signal that comes just before it reads.
CATCHER = (
    sys.executable, '-I', '-S', '-c', '''
import signal, sys
signals = signal.SIGINT, signal.SIGUSR1, signal.SIGHUP, signal.SIGTERM
signal.pthread_sigmask(signal.SIG_BLOCK, signals)
print('ready', flush=True)
counts = dict.fromkeys(signals, 0)
while counts[signal.SIGTERM] == 0:
  number = signal.Signals(signal.sigwait(signals))
  counts[number] += 1
  print(number.name, counts[number], flush=True)
sys.exit(3)
''')

HOSTILE = '</script><img~src=x~onerror=alert(1)>\x1b[31m'


def wait_until(condition):
  """Waits for what another process does; a minute is for ever."""
  end = time.monotonic() + 60
  while not condition():
    if time.monotonic() > end:
      raise AssertionError('waited in vain')
    time.sleep(0.01)


class Target:
  """A fake_target: see there for its commands."""

  def __init__(self, *prefix, **kwargs):
    self.process = subprocess.Popen(
        [*prefix, FAKE_TARGET], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, **kwargs)
    self.answer()

  @property
  def pid(self):
    return self.process.pid

  def answer(self):
    line = self.process.stdout.readline()
    if line != 'ok\n':
      raise AssertionError(f'the target says {line!r}')

  def do(self, *commands):
    for command in commands:
      self.process.stdin.write(command + '\n')
      self.process.stdin.flush()
      self.answer()

  def fill(self):
    self.do('site 0 0 0 - -', 'site 1 77 42 /src/net/server.cc connection',
            'site 2 12 0 - -', f'site 4 9 0 - {HOSTILE}', 'alloc 1 64 1000',
            'alloc 2 4096 10', 'free 2 4096 3 2', 'alloc 3 128 5',
            'heap slab 1048576', 'heap large 2097152', 'heap dirty 65536',
            'heap partial 4096', 'heap cached 8192', 'heap metadata 131072')

  def send(self, command):
    """A command that gets no answer."""
    self.process.stdin.write(command + '\n')
    self.process.stdin.flush()

  def end(self):
    if self.process.poll() is None:
      self.process.kill()
    self.process.wait()
    self.process.stdin.close()
    self.process.stdout.close()


class WatchTestCase(CommandCase):

  def setUp(self):
    self.scratch = tempfile.mkdtemp(dir='/tmp')
    self.addCleanup(shutil.rmtree, self.scratch)

  def path(self, name):
    return os.path.join(self.scratch, name)

  def target(self, *prefix, **kwargs):
    target = Target(*prefix, **kwargs)
    self.addCleanup(target.end)
    return target


class TopTest(WatchTestCase):

  def test_once(self):
    target = self.target()
    target.fill()
    result = hakmem('top', '--once', target.pid)
    self.assertEqual((result.returncode, result.stderr), (0, ''))
    lines = result.stdout.splitlines()
    self.assertRegex(lines[0],
                     rf'fake_target  pid {target.pid}  fake  up 0:\d\d$')
    # 3 MiB less 12 KiB.
    self.assertRegex(lines[1], r'^rss [\d.]+ MiB  live 2\.99 MiB  cached '
                     r'8\.00 KiB  free 68\.0 KiB  metadata 128 KiB$')
    self.assertRegex(lines[2], '^growth in 0:00  rss 0 B  live 0 B  sites 3  '
                     'by live$')
    rows = [line.split(maxsplit=12) for line in lines[5:]]
    self.assertEqual([' '.join(row[:2]) for row in rows],
                     ['62.5 KiB', '28.0 KiB', '640 B'])
    self.assertEqual([row[2] for row in rows], ['1,000', '7', '5'])
    self.assertEqual([' '.join(row[3:5]) for row in rows],
                     ['62.5 KiB', '40.0 KiB', '640 B'])
    self.assertTrue(lines[5].endswith('64 B  net/server.cc:42 (connection)'))
    self.assertTrue(lines[6].endswith('10  4.00 KiB  id 12'))
    self.assertTrue(lines[7].endswith(
        '128 B  </script><img src=x onerror=alert(1)>?[31m'))
    self.assertNotIn('\x1b', result.stdout)

  def test_without_sites(self):
    target = self.target()
    target.do('heap slab 1048576')
    result = hakmem('top', '--once', target.pid)
    self.assertEqual(result.returncode, 0)
    self.assertIn('live 1.00 MiB', result.stdout)
    self.assertIn('no sites are in use', result.stdout)

  def test_piped_snapshots_show_growth(self):
    target = self.target()
    target.fill()
    top = subprocess.Popen(
        [HAKMEM, 'top', '-n3', '--interval=0.2', '--sort=growth',
         str(target.pid)], stdout=subprocess.PIPE, text=True)
    self.addCleanup(top.stdout.close)
    for line in top.stdout:
      if line == '\n':
        break
    target.do('alloc 2 4096 100', 'alloc 3 128 8')
    rest = top.stdout.read()
    self.assertEqual(top.wait(), 0)
    tables = [table.splitlines() for table in re.split(r'\n\n(?=/)', rest)]
    self.assertEqual(len(tables), 3 if tables[0][0].startswith(' ') else 2,
                     rest)
    last = tables[-1]
    self.assertRegex(last[5], r' \+400 KiB +\+[\d.]+ [KM]iB .* id 12$')
    self.assertRegex(last[6], r' \+1\.00 KiB ')
    self.assertRegex(last[7], r' 0 B .* net/server\.cc:42 ')

  def test_limit_and_sort(self):
    target = self.target()
    target.fill()
    for key, first in [('live', 'connection'), ('blocks', 'connection'),
                       ('peak', 'connection'), ('allocs', 'connection'),
                       ('l', 'connection')]:
      result = hakmem('top', '--once', '--limit=1', f'--sort={key}',
                      target.pid)
      lines = result.stdout.splitlines()
      self.assertEqual(len(lines), 6, result)
      self.assertIn(first, lines[5])
    target.do('alloc 3 16 5000')
    result = hakmem('top', '--once', '-l', '1', '-s', 'blocks', target.pid)
    self.assertIn('onerror', result.stdout.splitlines()[5])

  def test_names_callers(self):
    target = self.target()
    symbols = subprocess.run(['nm', '-C', FAKE_TARGET], capture_output=True,
                             text=True, check=True).stdout
    address = int(re.search(r'^([0-9a-f]+) . main$', symbols, re.M)[1], 16) + 1
    target.do(f'caller {FAKE_TARGET} {address}', 'alloc 0 32 10',
              f'caller /nowhere/lib.so {0xabc}', 'alloc 1 32 5')
    lines = hakmem('top', '--once', target.pid).stdout.splitlines()
    self.assertRegex(lines[5], r'  hakmem/fake_target\.cc:\d+ \(main\)$')
    self.assertTrue(lines[6].endswith('  lib.so+0xabc'))
    # Without addr2line.
    lines = hakmem('top', '--once', target.pid,
                   env={'PATH': self.scratch}).stdout.splitlines()
    self.assertTrue(lines[5].endswith(f'  fake_target+{address:#x}'))

  def test_names_stacks(self):
    target = self.target()
    target.do('stack', 'alloc 0 32 10')
    lines = hakmem('top', '--once', target.pid).stdout.splitlines()
    self.assertRegex(lines[5], r'  sampled: hakmem/fake_target\.cc:\d+ '
                     r'\(FakeTargetMain\)$')

  def test_wrong_arguments(self):
    for arguments, pattern in [
        ([], 'takes the number of one process; .*'),
        (['1', '2'], 'takes the number of one process; .*'),
        (['x'], "'x' is not the number of a process"),
        (['-1'], "there is no option '-1'"),
        (['--sorted=x', '1'],
         "there is no option '--sorted'; did you mean '--sort'\\?"),
        (['--sort=x', '1'],
         "--sort: 'x' is none of live, growth, blocks, peak, allocs"),
        (['--sort', '1'], '--sort needs a value'),
        (['--once=1', '1'], '--once takes no value'),
        (['--interval=x', '1'], "'x' is not a number of seconds"),
        (['--interval=0', '1'], "'0' seconds is out of range, .*"),
        (['--interval=nan', '1'], "'nan' is not a number of seconds"),
        (['--limit=0', '1'], "--limit: '0' is not a number above 0"),
        (['-n', 'x', '1'], "--number: 'x' is not a number above 0"),
    ]:
      with self.subTest(arguments):
        self.assert_refused(hakmem('top', *arguments), 2, 'top: ' + pattern)

  def test_what_is_no_target(self):
    self.assert_refused(hakmem('top', 999999999), 1,
                        'top: there is no process 999999999')
    self.assert_refused(
        hakmem('top', os.getpid()), 1,
        rf'top: process {os.getpid()} \(.*\) does not run on hakmem')
    ended = subprocess.Popen(['true'])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    self.assert_refused(hakmem('top', ended.pid), 1,
                        f'top: process {ended.pid} has ended')
    ended.wait()
    target = self.target()
    for command, pattern in [
        ('set version 7', 'runs on a hakmem whose tables are of version 7, and '
         'this command knows version 4: .*'),
        ('set magic 5', r'\(.*\) does not run on hakmem'),
        ('set magic 0', 'has not set up its heap yet'),
    ]:
      target.do(command)
      self.assert_refused(hakmem('top', '--once', target.pid), 1,
                          f'top: process {target.pid} {pattern}')

  def test_damaged_tables(self):
    target = self.target()
    target.do('set count 1000000')
    self.assert_refused(
        hakmem('top', '--once', target.pid), 1,
        f'top: process {target.pid} has tables that make no sense')

  def test_anothers_process(self):
    if os.getuid() != 0:
      self.skipTest('only root can become somebody else')
    command = shutil.copy(HAKMEM, self.path('hakmem'))
    os.chmod(self.scratch, 0o755)
    target = self.target()
    result = subprocess.run(
        ['setpriv', f'--reuid={NOBODY}', f'--regid={NOBODY}', '--clear-groups',
         command, 'top', '--once', str(target.pid)], capture_output=True,
        text=True, check=False)
    self.assert_refused(result, 1, f'top: process {target.pid} belongs to the '
                        'user root; only that user and root may look into it')

  def test_target_that_ends(self):
    for end, pattern in [('exit', 'has ended'),
                         ('exec', r'has become another program by execve\(2\)')]:
      target = self.target()
      target.fill()
      top = subprocess.Popen([HAKMEM, 'top', '-i0.05', str(target.pid)],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             text=True)
      self.addCleanup(top.stdout.close)
      self.addCleanup(top.stderr.close)
      top.stdout.readline()
      target.send(end)
      if end == 'exit':
        target.process.wait()
      self.assertRegex(top.communicate(timeout=60)[1],
                       f'^hakmem: top: process {target.pid} {pattern}\n$')
      self.assertEqual(top.returncode, 1)

  def test_says_when_its_output_is_lost(self):
    target = self.target()
    with open('/dev/full', 'w', encoding='utf-8') as full:
      result = hakmem('top', '--once', target.pid, stdout=full)
    self.assertEqual(result.returncode, 1)
    self.assertRegex(result.stderr, '^hakmem: cannot write to stdout: .*\n$')


class Terminal:
  """hakmem top in a terminal of its own."""

  def __init__(self, arguments, columns=100, rows=20):
    self.master, slave = pty.openpty()
    self.slave = slave
    self.resize(columns, rows)
    self.before = termios.tcgetattr(slave)
    self.errors = tempfile.TemporaryFile()

    def become_leader():
      fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    self.process = subprocess.Popen(
        [HAKMEM, 'top', *map(str, arguments)], stdin=slave, stdout=slave,
        stderr=self.errors, start_new_session=True, preexec_fn=become_leader)
    self.text = ''

  def resize(self, columns, rows):
    fcntl.ioctl(self.master, termios.TIOCSWINSZ,
                struct.pack('HHHH', rows, columns, 0, 0))

  def read(self):
    while select.select([self.master], [], [], 0)[0]:
      try:
        data = os.read(self.master, 65536)
      except OSError:
        return
      self.text += data.decode()

  def frame(self):
    """The lines of the last complete screen, without control sequences."""
    self.read()
    frames = self.text.split('\x1b[H')
    complete = [f for f in frames[1:] if '\x1b[J' in f]
    if not complete:
      return []
    return [re.sub(r'\x1b\[[\d;?]*[a-zA-Z]', '', line)
            for line in re.split('\r+\n', complete[-1].split('\x1b[J')[0])]

  def wait_for(self, condition):
    wait_until(lambda: condition(self.frame()))

  def press(self, keys):
    os.write(self.master, keys.encode())

  def wait(self):
    # Somebody has to read what it writes, or it waits for that.
    wait_until(lambda: self.read() or self.process.poll() is not None)
    self.read()
    return self.process.returncode

  def is_as_before(self):
    return (termios.tcgetattr(self.slave) == self.before and
            self.text.endswith('\x1b[?7h\x1b[?25h\x1b[?1049l'))

  def error(self):
    self.errors.seek(0)
    return self.errors.read().decode()

  def close(self):
    if self.process.poll() is None:
      self.process.kill()
    self.process.wait()
    self.errors.close()
    os.close(self.slave)
    os.close(self.master)


class TopScreenTest(WatchTestCase):

  def setUp(self):
    super().setUp()
    self.the_target = self.target()
    self.the_target.fill()

  def terminal(self, *arguments, **kwargs):
    terminal = Terminal([*arguments, self.the_target.pid], **kwargs)
    self.addCleanup(terminal.close)
    return terminal

  def test_shows_and_quits(self):
    terminal = self.terminal('-i0.05')
    terminal.wait_for(lambda lines: len(lines) == 8)
    self.assertNotEqual(termios.tcgetattr(terminal.slave), terminal.before)
    lines = terminal.frame()
    self.assertIn('q quit', lines[3])
    self.assertRegex(lines[4], '^ +LIVE +BLOCKS +PEAK +GROWTH')
    self.assertIn('net/server.cc:42', lines[5])
    terminal.press('q')
    self.assertEqual(terminal.wait(), 0)
    self.assertTrue(terminal.is_as_before())
    self.assertEqual(terminal.error(), '')

  def test_follows_the_target(self):
    terminal = self.terminal('-i0.05')
    terminal.wait_for(lambda lines: len(lines) == 8)
    self.the_target.do('alloc 2 4096 1000')
    terminal.wait_for(lambda lines: 'id 12' in lines[5] and
                      '+3.91 MiB' in lines[5])

  def test_keys_sort(self):
    # An interval that never ends: what changes, changes by the keys.
    terminal = self.terminal('-i1000')
    terminal.wait_for(lambda lines: len(lines) == 8)
    for key, name in [('b', 'blocks'), ('g', 'growth'), ('p', 'peak'),
                      ('a', 'allocs'), ('l', 'live')]:
      terminal.press(key)
      terminal.wait_for(lambda lines, name=name: lines[2].endswith(
          ' by ' + name))
    terminal.press('q')
    self.assertEqual(terminal.wait(), 0)

  def test_restarts_growth(self):
    terminal = self.terminal('-i0.05')
    terminal.wait_for(lambda lines: len(lines) == 8)
    self.the_target.do('alloc 2 4096 1000')
    terminal.wait_for(lambda lines: '+3.91 MiB' in lines[5])
    terminal.press('r')
    terminal.wait_for(lambda lines: 'id 12' in lines[5] and
                      '+3.91 MiB        ' not in lines[5][:45])

  def test_resizes(self):
    terminal = self.terminal('-i1000', columns=60, rows=7)
    terminal.wait_for(lambda lines: len(lines) == 7)
    self.assertTrue(all(len(line) <= 60 for line in terminal.frame()))
    terminal.resize(200, 40)
    terminal.wait_for(lambda lines: len(lines) == 8 and
                      len(lines[4]) == 200)
    terminal.resize(10, 2)
    terminal.wait_for(lambda lines: len(lines) == 2)
    self.assertTrue(all(len(line) <= 10 for line in terminal.frame()))

  def test_gives_the_terminal_back_on_signals(self):
    for number in signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT:
      terminal = self.terminal('-i1000')
      terminal.wait_for(lambda lines: len(lines) == 8)
      if number == signal.SIGINT:
        terminal.press('\x03')
      else:
        terminal.process.send_signal(number)
      self.assertEqual(terminal.wait(), -number)
      self.assertTrue(terminal.is_as_before())

  def test_stops_and_goes_on(self):
    terminal = self.terminal('-i1000')
    terminal.wait_for(lambda lines: len(lines) == 8)
    # By itself: the terminal's Ctrl-Z has no effect on a group whose session
    # has nobody who would let it go on.
    terminal.process.send_signal(signal.SIGTSTP)
    pid, status = os.waitpid(terminal.process.pid, os.WUNTRACED)
    self.assertEqual(pid, terminal.process.pid)
    self.assertTrue(os.WIFSTOPPED(status))
    terminal.read()
    self.assertTrue(terminal.is_as_before())
    terminal.text = ''
    terminal.process.send_signal(signal.SIGCONT)
    terminal.wait_for(lambda lines: len(lines) == 8)
    terminal.press('q')
    self.assertEqual(terminal.wait(), 0)
    self.assertTrue(terminal.is_as_before())

  def test_target_ends(self):
    terminal = self.terminal('-i0.05')
    terminal.wait_for(lambda lines: len(lines) == 8)
    self.the_target.send('exit')
    self.the_target.process.wait()
    self.assertEqual(terminal.wait(), 1)
    self.assertTrue(terminal.is_as_before())
    self.assertEqual(terminal.error(), 'hakmem: top: process '
                     f'{self.the_target.pid} has ended\n')

  def test_ends_after_so_many(self):
    terminal = self.terminal('-i0.05', '-n3')
    self.assertEqual(terminal.wait(), 0)
    self.assertTrue(terminal.is_as_before())
    self.assertEqual(terminal.text.count('\x1b[H'), 3)


class Page(html.parser.HTMLParser):
  """What is in a report."""

  def __init__(self, text):
    super().__init__()
    self.elements = []
    self.contents = {}
    self.open = None
    self.feed(text)
    self.close()
    self.data = json.loads(self.contents['data'])

  def handle_starttag(self, tag, attrs):
    self.elements.append((tag, dict(attrs)))
    if tag in ('script', 'title'):
      self.open = dict(attrs).get('id', tag)
      self.contents[self.open] = ''

  def handle_endtag(self, tag):
    if tag in ('script', 'title'):
      self.open = None

  def handle_data(self, data):
    if self.open is not None:
      self.contents[self.open] += data


class RecordTest(WatchTestCase):

  def record(self, target, name='recording', *arguments):
    process = subprocess.Popen(
        [HAKMEM, 'record', '-i0.02', *arguments, str(target.pid),
         self.path(name)], stderr=subprocess.PIPE, text=True)
    self.addCleanup(process.stderr.close)
    return process

  def lines(self, name='recording'):
    try:
      with open(self.path(name), encoding='utf-8') as file:
        return [json.loads(line) for line in file if line.endswith('\n')]
    except FileNotFoundError:
      return []

  def snapshots(self, name='recording'):
    return [line for line in self.lines(name) if 't' in line]

  def test_until_the_target_ends(self):
    with open(self.path('recording'), 'w', encoding='ascii') as file:
      file.write('{}\n' * 10000)  # which goes
    target = self.target()
    target.fill()
    process = self.record(target)
    wait_until(self.snapshots)
    target.do('alloc 1 64 500', 'free 3 128 2 0')
    before = len(self.snapshots())
    wait_until(lambda: len(self.snapshots()) > before + 1)
    target.send('exit')
    target.process.wait()
    self.assertRegex(process.communicate(timeout=60)[1],
                     r'^hakmem: record: .*/recording has \d+ snapshots; the '
                     'program ended\n$')
    self.assertEqual(process.returncode, 0)
    lines = self.lines()
    self.assertEqual(lines[0]['hakmem_recording'], 1)
    self.assertEqual(lines[0]['pid'], target.pid)
    self.assertEqual(lines[0]['command'], [FAKE_TARGET])
    self.assertEqual(lines[0]['interval'], 20)
    self.assertEqual((lines[1]['stage'], len(lines[1]['age_bounds'])),
                     ('fake', 8))
    self.assertEqual(lines[-1]['how'], 'the program ended')
    sites = {line['site']: line for line in lines if 'site' in line}
    self.assertEqual(sorted(sites), [1, 2, 3])
    self.assertEqual(sites[1], {'site': 1, 'kind': 'place', 'id': '0x4d',
                                'label': 'connection',
                                'file': '/src/net/server.cc', 'line': 42})
    self.assertEqual(sites[3]['label'], HOSTILE.replace('~', ' '))
    snapshots = self.snapshots()
    self.assertEqual(
        {key: snapshots[0][key]
         for key in ('live', 'cached', 'partial', 'free', 'metadata')},
        {'live': 3145728 - 12288, 'cached': 8192, 'partial': 4096,
         'free': 65536, 'metadata': 131072})
    self.assertEqual(snapshots[0]['sites'],
                     [[1, 64000, 1000, 64000, 1000, 64000],
                      [2, 28672, 7, 40960, 10, 40960],
                      [3, 640, 5, 640, 5, 640]])
    self.assertIn([2, 4096, 10, 3], snapshots[0]['sizes'])
    self.assertIn([2, 0, 0, 3, 0, 0, 0, 0, 0, 0], snapshots[0]['ages'])
    # From then on only what has changed.
    later = [line for line in snapshots[1:] if 'sites' in line]
    self.assertEqual([site for line in later for site in line['sites']],
                     [[1, 96000, 1500, 96000, 1500, 96000],
                      [3, 384, 3, 640, 5, 640]])
    self.assertTrue(all(a['t'] <= b['t']
                        for a, b in zip(snapshots, snapshots[1:])))

  def test_until_it_is_ended(self):
    target = self.target()
    for number in signal.SIGINT, signal.SIGTERM:
      process = self.record(target)
      wait_until(self.snapshots)
      process.send_signal(number)
      self.assertRegex(process.communicate(timeout=60)[1],
                       r'^hakmem: record: .* has \d+ snapshots\n$')
      self.assertEqual(process.returncode, 0)
      self.assertEqual(self.lines()[-1]['how'], 'the recording was ended')
      os.unlink(self.path('recording'))
    self.assertIsNone(target.process.poll())

  def test_names_callers(self):
    target = self.target()
    symbols = subprocess.run(['nm', '-C', FAKE_TARGET], capture_output=True,
                             text=True, check=True).stdout
    address = int(re.search(r'^([0-9a-f]+) . main$', symbols, re.M)[1], 16) + 1
    target.do(f'caller {FAKE_TARGET} {address}', 'alloc 0 32 10')
    process = self.record(target)
    wait_until(self.snapshots)
    target.send('exit')
    process.communicate(timeout=60)
    site = [line for line in self.lines() if 'site' in line][0]
    self.assertEqual((site['module'], site['offset']),
                     (FAKE_TARGET, hex(address)))
    notes = subprocess.run(['readelf', '-n', FAKE_TARGET], capture_output=True,
                           text=True, check=True).stdout
    build_id = re.search('Build ID: (.*)', notes)
    self.assertEqual(site.get('build_id'), build_id and build_id[1])
    name = [line for line in self.lines() if 'name' in line][0]
    self.assertEqual((name['name'], name['function']), (0, 'main'))
    self.assertTrue(name['file'].endswith('fake_target.cc'))
    self.assertGreater(name['line'], 0)

  def test_refusals(self):
    target = self.target()
    for arguments, status, pattern in [
        ([], 2, 'takes the number of a process and the name of a file; .*'),
        (['x', 'y'], 2, "'x' is not the number of a process"),
        (['999999999', self.path('r')], 1, 'there is no process 999999999'),
        ([os.getpid(), self.path('r')], 1, '.* does not run on hakmem'),
        ([target.pid, '/nowhere/r'], 1, '/nowhere/r: No such file .*'),
        ([target.pid, '/dev/full'], 1, '/dev/full: .*No space left .*'),
    ]:
      self.assert_refused(hakmem('record', *arguments), status,
                          'record: ' + pattern)
    self.assertFalse(os.path.exists(self.path('r')))


class RunTest(WatchTestCase):

  def run_recorded(self, *arguments, name='recording', **kwargs):
    return hakmem('run', f'--record={self.path(name)},0.02', '--', *arguments,
                  **kwargs)

  def start(self, *arguments, **kwargs):
    process = subprocess.Popen(
        [HAKMEM, 'run', f'--record={self.path("recording")},0.02', '--',
         *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, **kwargs)
    for stream in process.stdin, process.stdout, process.stderr:
      self.addCleanup(stream.close)
    return process

  def read(self):
    with open(self.path('recording'), encoding='utf-8') as file:
      return [json.loads(line) for line in file if line.endswith('\n')]

  def wait_for_snapshots(self, count=1):
    wait_until(lambda: sum('t' in line for line in self.read()) >= count
               if os.path.exists(self.path('recording')) else False)

  def test_records_from_the_beginning(self):
    process = self.start(FAKE_TARGET)
    self.assertEqual(process.stdout.readline(), 'ok\n')
    process.stdin.write('site 2 5 0 - -\nalloc 0 64 10\n')
    process.stdin.flush()
    wait_until(lambda: os.path.exists(self.path('recording')) and
               any('site' in line for line in self.read()))
    process.stdin.write('exit\n')
    self.assertEqual(process.communicate(timeout=60), ('ok\nok\n', ''))
    self.assertEqual(process.returncode, 0)
    lines = self.read()
    self.assertEqual(lines[0]['command'], [FAKE_TARGET])
    self.assertNotEqual(lines[0]['pid'], process.pid)
    self.assertEqual(lines[-1]['how'], 'the program exited with 0')

  def test_exit_status_and_signal_are_the_programs(self):
    self.assertEqual(self.run_recorded('sh', '-c', 'exit 7').returncode, 7)
    for name in 'TERM', 'KILL', 'SEGV', 'RTMIN':
      self.assertEqual(
          self.run_recorded('bash', '-c', f'kill -{name} $$').returncode,
          -getattr(signal, 'SIG' + name))
    self.assertRegex(self.read()[-1]['how'], '^the program died by ')

  def test_arguments_streams_and_environment_reach_the_program(self):
    result = self.run_recorded(
        'sh', '-c', 'cat; echo "$0 $1 $X"; echo error >&2', 'a b', '--', '-x',
        input='in\n', env=dict(os.environ, X='y'))
    self.assertEqual(result.stdout, 'in\na b -- y\n')
    self.assertTrue(result.stderr.startswith('error\n'), result.stderr)

  def test_signals_reach_the_program(self):
    process = self.start(*CATCHER)
    self.assertEqual(process.stdout.readline(), 'ready\n')
    for number in signal.SIGUSR1, signal.SIGHUP, signal.SIGTERM:
      process.send_signal(number)
      self.assertEqual(process.stdout.readline(), f'{number.name} 1\n')
    self.assertEqual(process.wait(timeout=60), 3)

  def test_stops_with_the_program(self):
    process = self.start('bash', '-c', 'kill -STOP $$; echo on')
    pid, status = os.waitpid(process.pid, os.WUNTRACED)
    self.assertEqual((pid, os.WIFSTOPPED(status)), (process.pid, True))
    process.send_signal(signal.SIGCONT)
    self.assertEqual(process.communicate(timeout=60)[0], 'on\n')
    self.assertEqual(process.returncode, 0)

  def test_ctrl_c_reaches_the_program_once(self):
    master, slave = pty.openpty()
    self.addCleanup(os.close, master)

    def lead():
      fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    # Whoever survives Ctrl-C does so with `run` too.
    process = subprocess.Popen(
        [HAKMEM, 'run', f'--record={self.path("recording")},0.02', '--',
         *CATCHER], stdin=slave, stdout=slave, stderr=slave,
        start_new_session=True, preexec_fn=lead)
    os.close(slave)
    text = ''

    def read(until):
      nonlocal text
      while until not in text:
        text += os.read(master, 1000).decode()

    read('ready')
    os.write(master, b'\x03')
    read('SIGINT 1')
    # Whatever else was sent because of that comes before what is sent now.
    process.send_signal(signal.SIGTERM)
    read('SIGTERM 1')
    self.assertEqual(process.wait(timeout=60), 3)
    self.assertNotIn('SIGINT 2', text)

  def test_signals_that_were_ignored_stay_so(self):
    for number in signal.SIGHUP, signal.SIGCHLD:
      result = self.run_recorded(
          'grep', 'SigIgn', '/proc/self/status',
          preexec_fn=lambda number=number: signal.signal(number,
                                                         signal.SIG_IGN))
      mask = int(result.stdout.split()[1], 16)
      self.assertTrue(mask >> (number - 1) & 1, result.stdout)
      self.assertEqual(result.returncode, 0)

  def test_signal_mask_is_the_callers(self):
    result = self.run_recorded('grep', 'SigBlk', '/proc/self/status')
    self.assertEqual(int(result.stdout.split()[1], 16), 0)

  def test_the_program_dies_with_the_command(self):
    process = self.start('sh', '-c', 'echo $$; exec sleep 1000')
    pid = int(process.stdout.readline())
    process.kill()
    process.wait()

    def has_ended():
      try:
        with open(f'/proc/{pid}/stat', encoding='utf-8') as stat:
          return stat.read().rsplit(')', 1)[1].split()[0] == 'Z'
      except (FileNotFoundError, ProcessLookupError):  # before or while it read
        return True

    wait_until(has_ended)

  def test_follows_execve(self):
    process = self.start(
        'sh', '-c', 'read x; exec "$0"', FAKE_TARGET)
    process.stdin.write('\n')
    process.stdin.flush()
    self.assertEqual(process.stdout.readline(), 'ok\n')
    wait_until(lambda: any(line.get('stage') == 'fake' for line in self.read()))
    process.stdin.write('exit\n')
    process.communicate(timeout=60)
    self.assertEqual(process.returncode, 0)

  def test_refusals(self):
    ran = self.path('ran')
    for value, pattern in [
        ('', '--record needs a file: .*'),
        ('=', '--record: the name of the file is missing'),
        ('=,1', '--record: the name of the file is missing'),
        (f'={self.path("r")},x', "--record: 'x' is not a number of seconds"),
        ('=/nowhere/r', '/nowhere/r: No such file or directory'),
        ('=/dev/full', '/dev/full: .*No space left on device'),
    ]:
      with self.subTest(value):
        self.assert_refused(hakmem('run', '--record' + value, 'touch', ran),
                            125, 'run: ' + pattern)
        self.assertFalse(os.path.exists(ran))
    self.assert_refused(self.run_recorded('/nowhere/program'), 127,
                        'run: /nowhere/program: no such program')
    self.assertFalse(os.path.exists(self.path('recording')))


class RealProgramTest(WatchTestCase):
  """A program on libhakmem.so, with no change to it."""

  @classmethod
  def setUpClass(cls):
    cls.folder = tempfile.mkdtemp(dir='/tmp')
    cls.addClassCleanup(shutil.rmtree, cls.folder)
    cls.source = os.path.join(cls.folder, 'leaky.cc')
    with open(cls.source, 'w', encoding='utf-8') as file:
      file.write(LEAKY)
    cls.leaky = os.path.join(cls.folder, 'leaky')
    subprocess.run(['g++', '-O2', '-g', '-pthread', cls.source, '-o',
                    cls.leaky], check=True)

  @classmethod
  def place(cls, comment, function):
    """The place of the line that ends in the comment, as a pattern."""
    lines = LEAKY.split('\n')
    line = [i + 1 for i, text in enumerate(lines)
            if text.endswith('// ' + comment)]
    return f'{re.escape(cls.source)}:{line[0]} \\({function}\\)'

  def test_leak_of_one_thread_is_the_first_line(self):
    with tempfile.TemporaryDirectory() as folder:
      with unittest.mock.patch.dict(os.environ, TMPDIR=folder):
        result = hakmem('run', '--leaks', '--', self.leaky)
      self.assertEqual(os.listdir(folder), [])
    self.assertEqual((result.returncode, result.stdout), (3, 'done\n'))
    lines = result.stderr.splitlines()
    leak = re.fullmatch(r'(\d+) bytes in 50 blocks  ' +
                        self.place('the leak', 'Plant'), lines[0])
    self.assertTrue(leak, result.stderr)
    # 10,000 bytes, rounded up to a class.
    self.assertTrue(500000 <= int(leak[1]) <= 600000, lines[0])
    self.assertRegex(lines[-1], r'^hakmem: run: the program leaked \d+ bytes in '
                     r'\d+ blocks, at \d+ sites?( \(beside .*\))?$')

  def test_no_leaks(self):
    result = hakmem('run', '--leaks', '--', self.leaky, 'clean')
    self.assertEqual((result.returncode, result.stdout), (4, ''))
    self.assertRegex(result.stderr, r'^hakmem: run: the program leaked nothing'
                     r'( \(beside \d+ bytes that .*\))?\n$')

  def test_program_that_does_not_exit(self):
    with tempfile.TemporaryDirectory() as folder:
      with unittest.mock.patch.dict(os.environ, TMPDIR=folder):
        for how, status in [('kill', -signal.SIGTERM), ('_exit', 5)]:
          result = hakmem('run', '--leaks', '--', self.leaky, how)
          self.assertEqual(result.returncode, status)
          self.assertRegex(result.stderr, r'^hakmem: run: the program did not '
                           r'come to its end by exit\(\), .*\n$')
        self.assert_refused(hakmem('run', '--leaks', '/nowhere/x'), 127,
                            'run: /nowhere/x: no such program')
      self.assertEqual(os.listdir(folder), [])

  def test_processes_report_for_themselves(self):
    result = hakmem('run', '--leaks', '--', self.leaky, 'fork')
    self.assertEqual(result.returncode, 3)
    first, _, second = result.stderr.partition('hakmem: run: the program')
    self.assertRegex(first, self.place('the leak', 'Plant'))
    self.assertNotIn('main', first)
    self.assertRegex(second, r'\n7\d{5} bytes in 1 block  ' +
                     self.place('the leak of the child', 'main') + '\n')
    self.assertRegex(second, r'\nhakmem: run: process \d+, which it started, '
                     r'leaked ')

  def test_with_other_sites(self):
    result = hakmem('run', '--leaks', '--sites=0', '--', self.leaky)
    self.assertEqual(result.returncode, 3)
    self.assertEqual(result.stderr,
                     'hakmem: run: the program leaked nothing\n')

  def test_top_and_recording(self):
    path = self.path('leaky.rec')
    process = subprocess.Popen(
        [HAKMEM, 'run', '--leaks', f'--record={path},0.05', '--', self.leaky,
         'wait'], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
        env=dict(os.environ, HAKMEM_SITES='caller'))
    for stream in process.stdin, process.stdout, process.stderr:
      self.addCleanup(stream.close)

    def lines():
      with open(path, encoding='utf-8') as file:
        return [json.loads(line) for line in file if line.endswith('\n')]

    wait_until(lambda: os.path.exists(path) and
               sum('t' in line for line in lines()) > 2)
    target = lines()[0]['pid']
    # All threads have ended, so the tables are exact.
    shown = []

    def look():
      shown[:] = hakmem('top', '--once', target).stdout.splitlines()
      return len(shown) > 5 and ' 50 ' in shown[5]

    wait_until(look)
    self.assertRegex(shown[0], rf'leaky  pid {target}  tls_full  up ')
    self.assertRegex(shown[1], r'^rss [\d.]+ MiB  live [\d.]+ KiB  cached [\d.]+ '
                     r'[KM]iB  free [\d.]+ [KM]?i?B  metadata [\d.]+ KiB$')
    self.assertRegex(shown[5], r'leaky\.cc:\d+ \(Plant\)$')
    before = sum('t' in line for line in lines())
    wait_until(lambda: sum('t' in line for line in lines()) > before + 1)
    process.stdin.write('\n')
    errors = process.communicate(timeout=60)[1]
    self.assertEqual(process.returncode, 3)
    self.assertRegex(errors.splitlines()[0], self.place('the leak', 'Plant'))
    self.assertEqual(hakmem('report', path).returncode, 0)
    with open(self.path('leaky.html'), encoding='utf-8') as file:
      data = Page(file.read()).data
    plant = [site for site in data['sites'] if site['function'] == 'Plant']
    self.assertEqual(len(plant), 1)
    self.assertEqual((plant[0]['blocks'], plant[0]['file']), (50, self.source))
    self.assertGreater(data['live'][-1], plant[0]['live'])
    self.assertLess(data['live'][-1], 10 * plant[0]['live'])


class ReportTest(WatchTestCase):

  def recording(self):
    target = self.target()
    target.fill()
    path = self.path('server.rec')
    process = subprocess.Popen(
        [HAKMEM, 'record', '-i0.01', str(target.pid), path],
        stderr=subprocess.DEVNULL)

    def shows(live):
      if not os.path.exists(path):
        return False
      with open(path, encoding='utf-8') as file:
        return f'[1,{live},' in file.read()

    for blocks in range(3000, 34000, 2000):
      target.do('alloc 1 64 2000')
      wait_until(lambda blocks=blocks: shows(64 * blocks))
    target.send('exit')
    self.assertEqual(process.wait(timeout=60), 0)
    return path

  def test_page(self):
    path = self.recording()
    result = hakmem('report', path)
    self.assertEqual((result.returncode, result.stderr), (0, ''))
    self.assertEqual(result.stdout, self.path('server.html') + '\n')
    with open(self.path('server.html'), encoding='utf-8') as file:
      text = file.read()
    page = Page(text)
    # Nothing from elsewhere, and nothing that the recording smuggled in.
    for tag, attributes in page.elements:
      self.assertNotIn(tag, ('img', 'link', 'iframe', 'object'))
      self.assertFalse({'src', 'href', 'onerror'} & set(attributes), attributes)
    self.assertNotRegex(text, r'url\(|@import|https?://(?!www\.w3\.org/2000/svg)')
    self.assertEqual([tag for tag, _ in page.elements].count('script'), 2)
    data = page.data
    self.assertEqual(data['command'], [FAKE_TARGET])
    self.assertEqual(data['end'], 'the program ended')
    self.assertEqual(len(data['t']), data['moments'])
    for series in 'rss', 'live', 'cached', 'partial', 'free', 'metadata':
      self.assertEqual(len(data[series]), len(data['t']))
    sites = {site['title']: site for site in data['sites']}
    server = sites['net/server.cc:42 (connection)']
    self.assertEqual(server['live'], 64 * 33000)
    self.assertEqual(server['file'], '/src/net/server.cc')
    self.assertEqual(server['sizes'], [[64, 33000, 0]])
    self.assertEqual(server['points'][-1], server['live'])
    self.assertTrue(server['grows'])
    self.assertFalse(sites['id 12']['grows'])
    self.assertEqual(sites['id 12']['ages'][2], 3)

  def test_where_to(self):
    path = self.recording()
    for flag in ['-o', self.path('a.html')], [f'--output={self.path("b.html")}']:
      result = hakmem('report', *flag, path)
      self.assertEqual(result.returncode, 0)
      self.assertTrue(os.path.exists(result.stdout.strip()))
    self.assertTrue(hakmem('report', '-o', '-', path).stdout.startswith(
        '<!doctype html>'))
    self.assert_refused(hakmem('report', '-o', path, path), 2,
                        'report: .* would be overwritten')
    self.assert_refused(hakmem('report', '-o', '/nowhere/x.html', path), 1,
                        'report: /nowhere/x.html: No such file or directory')
    self.assert_refused(hakmem('report', '-o', '/dev/full', path), 1,
                        'report: /dev/full: .*No space left on device')

  def test_damaged_recordings(self):
    path = self.recording()
    with open(path, 'rb') as file:
      good = file.read()
    lines = good.split(b'\n')
    for name, content, pattern in [
        ('empty', b'', 'line 1: the file is empty'),
        ('text', b'hello\n', 'line 1: column 1: no value'),
        ('json', b'{"a":1}\n', "line 1: this is no recording of hakmem's"),
        ('later', b'{"hakmem_recording":9}\n', 'line 1: the recording is of '
         'version 9, and this command knows version 1'),
        ('header', lines[0] + b'\n', 'there is no snapshot in it'),
        ('stump', lines[0][:30], 'line 1: column 31: .*'),
        ('noise', b'\n'.join(lines[:4] + [b'\xff\xfe'] + lines[4:]),
         'line 5: column 1: no value'),
        ('hole', b'\n'.join(lines[:4] + [lines[4][:9]] + lines[5:]),
         'line 5: column 10: .*'),
        ('zeros', b'\0' * 1000, 'line 1: column 1: no value'),
    ]:
      with self.subTest(name):
        with open(self.path(name), 'wb') as file:
          file.write(content)
        self.assert_refused(hakmem('report', self.path(name)), 1,
                            f'report: {self.path(name)}: {pattern}')
        self.assertFalse(os.path.exists(self.path(name + '.html')))
    self.assert_refused(hakmem('report', self.path('missing')), 1,
                        'report: .*/missing: No such file or directory')
    self.assert_refused(hakmem('report', self.scratch), 1,
                        'report: .*: Is a directory')
    self.assert_refused(hakmem('report'), 2,
                        'report: takes one recording; .*')

  def test_recording_that_was_cut_off(self):
    path = self.recording()
    with open(path, 'rb+') as file:
      file.truncate(os.path.getsize(path) * 2 // 3 // 2 * 2 + 1)
      if file.seek(-1, os.SEEK_END) and file.read() == b'\n':
        file.truncate(file.tell() - 3)
    result = hakmem('report', path)
    self.assertEqual(result.returncode, 0)
    self.assertRegex(result.stderr, 'was cut off; the page has what is there')
    with open(self.path('server.html'), encoding='utf-8') as file:
      self.assertTrue(Page(file.read()).data['cut'])


if __name__ == '__main__':
  unittest.main()
