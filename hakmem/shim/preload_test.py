"""Programs that know nothing of hakmem, with libhakmem.so preloaded.

Each prints what it prints without it, and nothing on stderr. Arguments: the
library, and a Python program for the test of python3.
"""

import os
import re
import sys
import unittest

from hakmem.shim import preloading

PYTHON_LOAD = os.path.abspath(sys.argv.pop(1))

REGEX_SOURCE = r'''
#include <iostream>
#include <map>
#include <regex>
#include <string>
int main() {
  std::map<std::string, int> words;
  const std::string text = "one two three two three three";
  const std::regex word("[a-z]+");
  for (std::sregex_iterator i(text.begin(), text.end(), word), end; i != end;
       ++i) {
    ++words[i->str()];
  }
  for (const auto& [name, count] : words) std::cout << name << count << "\n";
}
'''

# Allocates for the first time where few system calls are left.
SANDBOX_SOURCE = r'''
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#define ALLOW(call)                                \
  BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1), \
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
int main(void) {
  struct sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      ALLOW(SYS_brk), ALLOW(SYS_mmap), ALLOW(SYS_munmap), ALLOW(SYS_mprotect),
      ALLOW(SYS_mremap), ALLOW(SYS_madvise), ALLOW(SYS_futex),
      ALLOW(SYS_getrandom), ALLOW(SYS_prlimit64), ALLOW(SYS_write),
      ALLOW(SYS_exit_group),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS)};
  struct sock_fprog program = {sizeof(filter) / sizeof(*filter), filter};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
    return 1;
  }
  static char* blocks[1000];
  for (size_t i = 0; i < 100000; ++i) {
    char** const block = &blocks[i * 7919 % 1000];
    free(*block);
    const size_t size = 1 + i * 104729 % (i % 10 == 0 ? 30000 : 3000);
    *block = malloc(size);
    if (*block == NULL) _exit(2);
    memset(*block, 1, size);
  }
  if (write(1, "done\n", 5) != 5) _exit(3);
  _exit(0);
}
'''

SQL = '''
CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, value REAL);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 1000000)
INSERT INTO t SELECT i, 'row ' || i, (i * 7919) % 1000003 FROM n;
CREATE INDEX by_value ON t (value);
SELECT count(*), sum(value), min(name), max(name) FROM t;
SELECT id, name FROM t WHERE value BETWEEN 500 AND 510 ORDER BY value;
SELECT substr(name, 1, 6) AS head, count(*) FROM t GROUP BY head ORDER BY head;
DELETE FROM t WHERE id % 3 = 0;
VACUUM;
SELECT count(*), total(value) FROM t;
'''

PERL = r'''
use strict;
my %count;
for my $i (1 .. 300000) { push @{$count{$i % 1000}}, "value $i" x ($i % 7); }
my $text = join ",", map { scalar(@{$count{$_}}) . ":" . length(join "", @{$count{$_}}) }
    sort { $a <=> $b } keys %count;
$text =~ s/(\d+):(\d+)/$2-$1/g;
my @pids = map { my $p = fork // die; if (!$p) { my @x = map { "x" x $_ } 1 .. 2000; exit @x == 2000 ? 0 : 1 } $p } 1 .. 4;
for (@pids) { waitpid $_, 0; print "child $?\n"; }
print "$text\n";
'''


class PreloadTest(preloading.PreloadCase):

  def test_python(self):
    self.check_in_use(['/usr/bin/python3', '-c', 'pass'])
    self.check('python', ['/usr/bin/python3', PYTHON_LOAD])

  # Until the limit, a MemoryError there, and on.
  def test_python_under_a_limit_of_address_space(self):
    program = os.path.join(self.scratch, 'fill.py')
    with open(program, 'w') as file:
      file.write('''
for size in 1000, 100000, 3000000, 1000:
  blocks = []
  try:
    while True:
      blocks.append(bytearray(size))
  except MemoryError:
    pass
  filled = len(blocks) * size
  del blocks
  print(size, 'fills more than 64 MiB:', filled > 64 << 20)
''')
    out = self.check('limit', ['sh', '-c', 'ulimit -v 600000 && '
                               f'exec /usr/bin/python3 {program}'])
    self.assertEqual(out.count('True'), 4)

  def test_gcc_compiles_regex(self):
    self.check_in_use(['gcc', '--version'])
    source = os.path.join(self.scratch, 'words.cc')
    with open(source, 'w') as file:
      file.write(REGEX_SOURCE)
    # The program that comes out runs preloaded as well.
    self.check('gcc', ['sh', '-c', f'gcc -O1 -std=c++17 {source} -lstdc++ '
                       '&& ./a.out && objdump -d a.out | cksum'])

  def test_first_allocation_in_a_sandbox(self):
    self.check('first', [self.compile_c('sandbox', SANDBOX_SOURCE)])

  def test_sqlite(self):
    self.check_in_use(['sqlite3', '--version'])
    self.check('sqlite', ['sqlite3', 'million.db'], SQL)

  def test_git(self):
    self.check_in_use(['git', '--version'])
    self.check('git', ['sh', '-ec', '''
      export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.com
      export GIT_COMMITTER_NAME=c GIT_COMMITTER_EMAIL=c@example.com
      export GIT_AUTHOR_DATE="1700000000 +0000"
      export GIT_COMMITTER_DATE="1700000000 +0000"
      git init -q -b main .
      for round in 1 2 3; do
        for i in $(seq 400); do
          mkdir -p d$((i % 20))
          seq $((i * round)) >d$((i % 20))/f$i
        done
        git add .
        git commit -q -m "round $round"
      done
      git gc -q --aggressive
      git fsck --full 2>&1
      git log --stat
      git diff HEAD~2 HEAD | cksum
      git blame d7/f47
    '''])

  def test_perl(self):
    self.check_in_use(['perl', '-e', '1'])
    self.check('perl', ['perl', '-e', PERL])

  def test_it_is_mapped_where_it_is_preloaded(self):
    result = self.run_once('maps', ['cat', '/proc/self/maps'], '', preload=True)
    self.assertRegex(result.stdout,
                     re.escape(os.path.basename(preloading.LIBRARY)))


if __name__ == '__main__':
  unittest.main()
