"""Counts the instructions of a malloc and a free that hit, by callgrind.

The bodies of the two functions only, of a 64-byte block with ten live, through
LD_PRELOAD. Instruction counts do not move with the machine's load.
"""

import os
import re
import subprocess
import sys
import tempfile
import unittest

PAIRS = 100000
# Measured the same way: rpmalloc 33, mimalloc 41, gperftools 68, glibc 129.
MOST = 30
# Of a thread that takes samples, of which none of these is one.
MOST_COUNTED = MOST + 7
SAMPLE_BYTES = '1000G'


def own_instructions(program, library, **options):
  """Instructions of each function itself, without what it calls."""
  with tempfile.TemporaryDirectory() as folder:
    out = os.path.join(folder, 'callgrind.out')
    subprocess.run(
        ['valgrind', '--tool=callgrind', f'--callgrind-out-file={out}',
         '--soname-synonyms=somalloc=nouserintercepts', program],
        check=True, env={**os.environ, **options, 'LD_PRELOAD': library},
        capture_output=True)
    text = subprocess.run(['callgrind_annotate', '--threshold=100', out],
                          check=True, capture_output=True, text=True).stdout
  counts = {}
  for line in text.splitlines():
    # The library's name stands on some of a function's lines only.
    match = re.match(r'\s*([\d,]+) .*:(malloc|free)(?: \[|$)', line)
    if match:
      counts[match.group(2)] = (counts.get(match.group(2), 0) +
                                int(match.group(1).replace(',', '')))
  return counts


class PairInstructionsTest(unittest.TestCase):

  def expect_pair(self, least, most, **options):
    counts = own_instructions(PROGRAM, LIBRARY, **options)
    print(counts)
    self.assertEqual(set(counts), {'malloc', 'free'}, 'not hakmem\'s?')
    pair = sum(counts.values()) / PAIRS
    # The calls before and after the loop are a thousandth of it.
    self.assertLess(pair, most + 0.1)
    self.assertGreater(pair, least)

  def test_a_pair_that_hits(self):
    self.expect_pair(10, MOST)

  def test_a_pair_that_hits_and_is_counted(self):
    self.expect_pair(MOST + 1, MOST_COUNTED, HAKMEM_SAMPLE_BYTES=SAMPLE_BYTES)


if __name__ == '__main__':
  PROGRAM, LIBRARY = (os.path.abspath(path) for path in sys.argv[1:3])
  unittest.main(argv=sys.argv[:1])
