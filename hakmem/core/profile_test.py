"""The file that WriteProfile() makes. Argument: the program that makes some."""

import errno
import gzip
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

from hakmem.core import pprof

EXAMPLE = os.path.realpath(sys.argv.pop(1))
INTERVAL = 4096


def build_id(path):
  notes = subprocess.run(['readelf', '-n', path], check=True,
                         capture_output=True, text=True).stdout
  found = [line.split()[-1] for line in notes.splitlines() if 'Build ID' in line]
  return found[0] if found else ''


class ProfileTest(unittest.TestCase):

  def setUp(self):
    scratch = tempfile.TemporaryDirectory()
    self.addCleanup(scratch.cleanup)
    self.path = os.path.join(scratch.name, 'profile')

  def run_example(self, *arguments):
    return subprocess.run([EXAMPLE, *map(str, arguments)], check=True,
                          capture_output=True, text=True).stdout.split()

  def make(self, stacks, frames):
    self.assertEqual(self.run_example(stacks, frames, self.path)[0], '0')
    return pprof.read(self.path)

  def test_says_what_it_holds(self):
    before = time.time_ns()
    profile = self.make(1, 3)
    self.assertEqual(profile.types, [
        ('alloc_objects', 'count'), ('alloc_space', 'bytes'),
        ('inuse_objects', 'count'), ('inuse_space', 'bytes')])
    self.assertEqual(profile.default_type, 'inuse_space')
    self.assertEqual(profile.period, INTERVAL)
    self.assertEqual(profile.period_type, ('space', 'bytes'))
    self.assertLessEqual(before, profile.time_nanos)
    self.assertLessEqual(profile.time_nanos, time.time_ns())
    self.assertGreaterEqual(profile.duration_nanos, 2e9)
    self.assertLess(profile.duration_nanos, 1e12)

  # 64-byte blocks were sampled rarely; large ones always.
  def test_scales_the_samples_up(self):
    profile = self.make(2, 3)
    weight = 1 / -math.expm1(-64 / (2 * INTERVAL))
    for i, (_, values) in enumerate(profile.samples):
      allocs, live = 10 + i, 7 + i
      for value, exact in zip(values, [
          allocs * weight + 2, allocs * weight * 64 + 5000000,
          live * weight + 1, live * weight * 64 + 3000000]):
        self.assertLessEqual(abs(value - exact), 1)
    self.assertEqual(len(profile.samples), 2)

  def test_probabilities(self):
    small, one, certain = map(float, self.run_example(0, 0))
    self.assertAlmostEqual(small / -math.expm1(-1e-9), 1, places=12)
    self.assertAlmostEqual(one, 1 - math.exp(-1), places=12)
    self.assertEqual(certain, 1)

  def test_locations_are_in_their_mappings(self):
    profile = self.make(20, 3)
    own = [id for id, mapping in profile.mappings.items()
           if mapping.path == EXAMPLE]
    for (first, *others), _ in profile.samples:
      mapping = profile.mappings[profile.mapping_of[first]]
      self.assertIn(profile.mapping_of[first], own)
      self.assertTrue(mapping.start <= first < mapping.end)
      self.assertEqual(len(others), 2)
      # Nothing is mapped there.
      for address in others:
        self.assertEqual(profile.mapping_of[address], 0)
    # Less one, as the addresses were return addresses.
    self.assertEqual(profile.samples[1][0][1], 0x100000 + 4 * 16 - 1)

  def test_mappings_are_those_of_the_files(self):
    profile = self.make(1, 1)
    names = {os.path.basename(mapping.path): mapping
             for mapping in profile.mappings.values()}
    self.assertIn('libc.so.6', names)
    for mapping in profile.mappings.values():
      self.assertLess(mapping.start, mapping.end)
      if os.path.exists(mapping.path):
        self.assertEqual(mapping.build_id, build_id(mapping.path), mapping.path)
    self.assertRegex(names['libc.so.6'].build_id, '^[0-9a-f]{40}$')
    self.assertIn('[vdso]', names)

  def test_mapping_begins_where_its_segment_does(self):
    (libc,) = [mapping for mapping in self.make(1, 1).mappings.values()
               if os.path.basename(mapping.path) == 'libc.so.6']
    segments = subprocess.run(['readelf', '-lW', libc.path], check=True,
                              capture_output=True, text=True).stdout
    (offset,) = re.findall(r'LOAD +(0x[0-9a-f]+) .* R E ', segments)
    self.assertEqual(libc.offset, int(offset, 16) & ~4095)
    self.assertGreater(libc.offset, 0)

  # Waits for a reader of the pipe, and meanwhile the program's file goes.
  def test_names_a_file_that_was_deleted_as_it_was(self):
    copy = shutil.copy(EXAMPLE, os.path.join(os.path.dirname(self.path), 'copy'))
    pipe = self.path + '.pipe'
    os.mkfifo(pipe)
    with subprocess.Popen([copy, '1', '1', pipe, self.path],
                          stdout=subprocess.DEVNULL) as process:
      os.unlink(copy)
      with open(pipe, 'rb') as file:
        profile = pprof.decode(file.read())
    self.assertEqual(process.returncode, 0)
    self.assertIn(copy, [mapping.path for mapping in profile.mappings.values()])

  def test_is_whole_when_it_is_long(self):
    profile = self.make(5000, 40)
    self.assertEqual(len(profile.samples), 5000)
    addresses = {address for frames, _ in profile.samples for address in frames}
    self.assertEqual(len(addresses), 5000 * 39 + 16)
    with open(self.path, 'rb') as file:
      self.assertGreater(len(gzip.decompress(file.read())), 10 * 65535)

  def test_cuts_a_very_deep_stack(self):
    ((frames, values),) = self.make(1, 600).samples
    self.assertEqual(len(frames), 512)
    self.assertEqual(frames[1], 0x100000 + 16 - 1)
    self.assertGreater(values[0], 10)

  def test_is_a_profile_without_a_stack(self):
    profile = self.make(0, 0)
    self.assertEqual(profile.samples, [])
    self.assertNotEqual(profile.mappings, {})

  def test_replaces_a_file(self):
    with open(self.path, 'w') as file:
      file.write('x' * 10000000)
    self.assertEqual(len(self.make(1, 1).samples), 1)

  # Addresses say how a process is laid out: that is for nobody to change.
  def test_others_may_only_read_it(self):
    self.addCleanup(os.umask, os.umask(0))
    self.make(1, 1)
    self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o644)

  def test_says_what_failed(self):
    results = self.run_example(1, 1, '/', os.path.join(self.path, 'x'),
                               '/dev/full', self.path, self.path)
    self.assertEqual(results[:5], [str(errno.EISDIR), str(errno.ENOENT),
                                   str(errno.ENOSPC), '0', '0'])


if __name__ == '__main__':
  unittest.main()
