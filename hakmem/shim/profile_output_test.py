"""Profiles of whole programs. Arguments: the library, and a program that is
linked with hakmem.
"""

import errno
import glob
import math
import os
import re
import signal
import statistics
import subprocess
import sys
import time
import unittest

from hakmem.core import pprof
from hakmem.shim import preloading

PROGRAM = os.path.realpath(sys.argv.pop(1))


class ProfileCase(preloading.PreloadCase):

  def run_program(self, *arguments, expect_stderr='', preload=False, **env):
    command = [arg for arg in arguments]
    result = subprocess.run(
        command if preload else [PROGRAM, *command], capture_output=True,
        text=True, cwd=self.scratch, check=False,
        env=self.environment(preload, **env))
    self.assertEqual(result.stderr, expect_stderr)
    self.assertEqual(result.returncode, 0)
    return result.stdout

  def files(self, pattern):
    return sorted(glob.glob(os.path.join(self.scratch, pattern)))


def wait_for_open(pid):
  """Until the process is in an openat(2) for a file that it writes anew."""
  end = time.monotonic() + 60
  while time.monotonic() < end:
    with open(f'/proc/{pid}/syscall', encoding='ascii') as file:
      call = file.read().split()
    if call[0] == '257' and int(call[3], 16) & os.O_TRUNC:
      return
  raise TimeoutError


def wait_for_file(path):
  end = time.monotonic() + 60
  while not os.path.exists(path):
    if time.monotonic() > end:
      raise TimeoutError
    time.sleep(0.01)


def wait_until_handled(pid, number):
  """Until no such signal waits for the process."""
  end = time.monotonic() + 60
  while time.monotonic() < end:
    with open(f'/proc/{pid}/status', encoding='ascii') as file:
      pending = re.findall('^(?:SigPnd|ShdPnd):\t([0-9a-f]+)$', file.read(),
                           re.MULTILINE)
    if not any(int(bits, 16) >> (number - 1) & 1 for bits in pending):
      return
  raise TimeoutError


def by_place(lines, profile):
  """(exact, profiled) of each place: objects and bytes, allocated and in use."""
  exact = [[int(number) for number in line.split()] for line in lines]
  starts = sorted(row[0] for row in exact)
  found = {start: [0, 0, 0, 0] for start in starts}
  for frames, values in profile.samples:
    # The frames of the heap itself are left out.
    begun = [start for start in starts if start <= frames[0]]
    if begun and frames[0] - begun[-1] < 200:
      found[begun[-1]] = [a + b for a, b in zip(found[begun[-1]], values)]
  return [(row[1:], found[row[0]]) for row in exact]


class SampledTest(ProfileCase):

  def check_five(self, threads):
    path = os.path.join(self.scratch, 'five')
    out = self.run_program('five', str(threads), path,
                           HAKMEM_SAMPLE_BYTES='4K')
    profile = pprof.read(path)
    self.assertEqual(profile.period, 4096)
    for exact, profiled in by_place(out.splitlines(), profile):
      for real, estimated in zip(exact, profiled):
        self.assertLessEqual(abs(estimated - real), 0.1 * real)

  def test_five_places_on_one_thread(self):
    self.check_five(1)

  def test_five_places_on_four_threads(self):
    self.check_five(4)

  # With so short an interval every block is a sample.
  def test_is_exact_where_all_blocks_are_samples(self):
    path = os.path.join(self.scratch, 'exact')
    out = self.run_program('exact', path, HAKMEM_SAMPLE_BYTES='1')
    places = by_place(out.splitlines(), pprof.read(path))
    for exact, profiled in places:
      self.assertEqual(exact, profiled)
    self.assertEqual([exact[0] for exact, _ in places],
                     [3, 1, 1, 1, 1, 0, 1, 1, 1, 1])

  # It counts for a part of the time only. What it keeps makes the heap look at
  # that often; where nothing changes, only the clock does, and who is told so
  # by nobody has counted all of it, as eight times as much, or nothing.
  def check_busiest(self, kept_size, again_size, **env):
    path = os.path.join(self.scratch, 'busiest')
    out = self.run_program('busiest', path, str(kept_size), str(again_size),
                           HAKMEM_PROFILE='3600', **env)
    kept, again = by_place(out.splitlines(), pprof.read(path))
    # In 40 runs of each two sizes the standard deviations were 0.14 or less.
    for real, estimated in zip(*kept):
      self.assertLess(abs(estimated - real), 0.5 * real)
    for real, estimated in zip(again[0][:2], again[1][:2]):
      self.assertLess(real / 2.5, estimated)
      self.assertLess(estimated, real * 2.5)

  # The root mean square of how far the five are off. With distances that only
  # classes have it was 0.39 in the median.
  def test_what_is_kept_beside_much_that_is_not(self):
    path = os.path.join(self.scratch, 'beside')
    errors = []
    for _ in range(5):
      out = self.run_program('beside', '2', '240', '8', path,
                             HAKMEM_PROFILE='3600')
      places = by_place(out.splitlines(), pprof.read(path))[:5]
      errors.append(math.sqrt(statistics.mean(
          (profiled[3] / exact[3] - 1) ** 2 for exact, profiled in places)))
    self.assertLess(statistics.median(errors), 0.25)

  def test_a_program_that_does_little_but_allocate(self):
    self.check_busiest(48, 64)

  def test_one_of_larger_blocks(self):
    self.check_busiest(5000, 3000)

  def test_the_same_where_all_is_counted(self):
    self.check_busiest(48, 64, HAKMEM_PROFILE_THREAD='0')

  def test_stacks_reach_main_and_below(self):
    path = os.path.join(self.scratch, 'exact')
    self.run_program('exact', path, HAKMEM_SAMPLE_BYTES='1')
    profile = pprof.read(path)
    own = {id for id, mapping in profile.mappings.items()
           if mapping.path == PROGRAM}
    libc = {id for id, mapping in profile.mappings.items()
            if os.path.basename(mapping.path) == 'libc.so.6'}
    whole = [frames for frames, _ in profile.samples
             if profile.mapping_of[frames[0]] in own]
    self.assertGreater(len(whole), 3)
    for frames in whole:
      # Ends in _start, of the program; what called main is the C library's.
      self.assertIn(profile.mapping_of[frames[-1]], own)
      self.assertIn(profile.mapping_of[frames[-2]], libc)

  def test_says_that_there_are_none_where_every_block_has_a_site(self):
    path = os.path.join(self.scratch, 'empty')
    self.run_program(
        'exact', path, HAKMEM_SAMPLE_BYTES='1', HAKMEM_SITES='caller',
        expect_stderr='hakmem: warning: no samples are taken with '
        'HAKMEM_SITES=caller: profiles will be empty\n')
    self.assertEqual(pprof.read(path).samples, [])

  def test_is_off_unless_asked_for(self):
    out = self.run_program('write', 'x')
    self.assertEqual(out, f'{errno.ENODATA}\n')
    self.assertEqual(self.files('*'), [])


class WrittenTest(ProfileCase):

  def test_at_exit(self):
    self.run_program('raise', '0', '1', HAKMEM_PROFILE='exit')
    (path,) = self.files('hakmem-*-1.pb.gz')
    self.assertEqual(pprof.read(path).period, 512 * 1024)

  def test_at_exit_of_parent_and_child(self):
    out = self.run_program('fork', HAKMEM_PROFILE='exit',
                           HAKMEM_PROFILE_FILE='./%p.prof',
                           HAKMEM_SAMPLE_BYTES='1K')
    for pid in out.split():
      profile = pprof.read(os.path.join(self.scratch, pid + '.prof'))
      self.assertGreater(profile.total('alloc_space'), 100000)
    self.assertEqual(len(self.files('*.prof')), 2)

  def test_every_second(self):
    self.run_program('busy', '3', HAKMEM_PROFILE='1',
                     HAKMEM_PROFILE_FILE='./%n')
    self.assertIn(len(self.files('*')), [2, 3])
    totals = [pprof.read(path).total('alloc_space')
              for path in self.files('*')]
    self.assertEqual(totals, sorted(totals))
    self.assertGreater(totals[0], 0)

  # The file is there as soon as somebody begins to write it.
  def test_the_end_of_a_program_cuts_no_file_short(self):
    for _ in range(3):
      self.run_program('until', '1', HAKMEM_PROFILE='1',
                       HAKMEM_PROFILE_FILE='./%n', HAKMEM_SAMPLE_BYTES='1K')
      (path,) = self.files('*')
      self.assertGreater(pprof.read(path).total('alloc_space'), 0)
      os.remove(path)

  def test_every_second_while_the_program_does_nothing(self):
    with subprocess.Popen(
        [PROGRAM, 'idle'], stdin=subprocess.PIPE, cwd=self.scratch,
        env=self.environment(False, HAKMEM_PROFILE='1',
                             HAKMEM_PROFILE_FILE='./%n')) as process:
      wait_for_file(os.path.join(self.scratch, '2'))
      process.communicate(timeout=60)
    self.assertEqual(process.returncode, 0)

  # A program that may have no threads but its own can be profiled too.
  def test_a_thread_helps_unless_that_is_not_wanted(self):
    for threads, env in [
        ('2', {'HAKMEM_PROFILE': 'exit'}),
        ('2', {'HAKMEM_PROFILE': '60', 'HAKMEM_SAMPLE_BYTES': '64K'}),
        ('2', {'HAKMEM_PROFILE_SIGNAL': '10'}),
        ('1', {'HAKMEM_PROFILE': '60', 'HAKMEM_PROFILE_THREAD': '0'}),
        ('1', {'HAKMEM_PROFILE': 'exit', 'HAKMEM_SAMPLE_BYTES': '64K'}),
        ('1', {'HAKMEM_SAMPLE_BYTES': '64K'}),
        ('1', {'HAKMEM_PROFILE_THREAD': '1'}),
    ]:
      out = self.run_program('threads', **env)
      self.assertEqual(out.split(), [threads, threads], env)

  def test_on_a_signal(self):
    self.run_program('raise', str(int(signal.SIGUSR2)), '3',
                     HAKMEM_PROFILE_SIGNAL=str(int(signal.SIGUSR2)),
                     HAKMEM_PROFILE_FILE='./%n.prof', HAKMEM_SAMPLE_BYTES='1K')
    paths = self.files('*.prof')
    self.assertEqual(len(paths), 3)
    totals = [pprof.read(path).total('alloc_space') for path in paths]
    self.assertEqual(totals, sorted(totals))
    self.assertGreater(totals[2], totals[0])

  def test_by_the_program(self):
    out = self.run_program('write', 'a', 'b', '/', 'none/c',
                           HAKMEM_SAMPLE_BYTES='64K')
    self.assertEqual(out.split(), ['0', '0', str(errno.EISDIR),
                                   str(errno.ENOENT)])
    self.assertEqual(len(self.files('*')), 2)

  # The program waits in hak_profile_write() for somebody to read the pipe. A
  # handler must not write another one in the middle of it, nor end the wait.
  def test_a_signal_while_one_is_written(self):
    number = int(signal.SIGUSR2)
    pipe = os.path.join(self.scratch, 'pipe')
    os.mkfifo(pipe)
    with subprocess.Popen(
        [PROGRAM, 'write', pipe], stdout=subprocess.PIPE, text=True,
        cwd=self.scratch, env=self.environment(
            False, HAKMEM_PROFILE_SIGNAL=str(number),
            HAKMEM_PROFILE_FILE='./%n.prof')) as process:
      wait_for_open(process.pid)
      for _ in range(3):
        process.send_signal(number)
        wait_until_handled(process.pid, number)
        wait_for_open(process.pid)
      self.assertIsNone(process.poll())
      with open(pipe, 'rb') as file:
        profile = pprof.decode(file.read())
      out = process.communicate(timeout=60)[0]
    self.assertEqual(out, '0\n')
    self.assertEqual(profile.period, 512 * 1024)
    self.assertEqual(self.files('*.prof'), [])

  def test_a_path_that_cannot_be_written_costs_a_line(self):
    line = ('hakmem: warning: cannot write the profile /none/p: '
            'No such file or directory\n')
    self.run_program('raise', '0', '1', HAKMEM_PROFILE='exit',
                     HAKMEM_PROFILE_FILE='/none/p', expect_stderr=line)
    self.run_program('raise', str(int(signal.SIGUSR2)), '3',
                     HAKMEM_PROFILE_SIGNAL=str(int(signal.SIGUSR2)),
                     HAKMEM_PROFILE_FILE='/none/p', expect_stderr=line)

  # Said at the start, not when the time has come.
  def test_says_so_before_the_program_begins(self):
    self.run_program(
        'write', HAKMEM_PROFILE='3600', HAKMEM_PROFILE_FILE='/dev/null/p',
        expect_stderr='hakmem: warning: cannot write the profile /dev/null/p: '
        'Not a directory\n')


class PreloadedTest(ProfileCase):

  def test_python(self):
    self.run_program(
        '/usr/bin/python3', '-c',
        'x = [bytes(1000 + i) for i in range(20000)]', preload=True,
        HAKMEM_PROFILE='exit', HAKMEM_PROFILE_FILE='./python',
        HAKMEM_SAMPLE_BYTES='64K')
    profile = pprof.read(os.path.join(self.scratch, 'python'))
    self.assertGreater(profile.total('alloc_space'), 150e6)
    self.assertLess(profile.total('alloc_space'), 400e6)
    # No frame of the library, which allocated them.
    for frames, _ in profile.samples:
      mapping = profile.mappings.get(profile.mapping_of[frames[0]])
      self.assertNotEqual(mapping and mapping.path, preloading.LIBRARY)


if __name__ == '__main__':
  unittest.main()
