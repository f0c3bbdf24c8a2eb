"""What libhakmem.so and libhakmem.a are made of, and what preloading costs.

Arguments: the shared library, the archive, the names that both export, and
those that the shared library alone does, each separated by commas.
"""

import os
import re
import subprocess
import sys
import tempfile
import unittest
from xml.etree import ElementTree

LIBRARY = os.path.abspath(sys.argv.pop(1))
ARCHIVE = os.path.abspath(sys.argv.pop(1))
EXPORTS = set(sys.argv.pop(1).split(','))
SHARED_EXPORTS = set(sys.argv.pop(1).split(','))

MAX_TEXT_BYTES = 256 * 1024
MAX_START_KIB = 1024

# std::get_new_handler() and std::__throw_bad_alloc(): the program's, if any.
WEAK = {'_ZSt15get_new_handlerv', '_ZSt17__throw_bad_allocv'}


def output(*command, **kwargs):
  return subprocess.run(command, check=True, capture_output=True, text=True,
                        **kwargs).stdout


def symbols(*options):
  """(kind, name without version) of each symbol that nm lists."""
  found = set()
  for line in output('nm', *options).splitlines():
    match = re.fullmatch(r'[0-9a-f ]*([A-Za-z]) (\S+)', line)
    if match:
      found.add((match[1], match[2].split('@')[0]))
  return found


class SharedLibraryTest(unittest.TestCase):

  def test_needs_the_c_library_alone(self):
    needed = re.findall(r'\(NEEDED\).*\[(.*)\]',
                        output('readelf', '-d', LIBRARY))
    self.assertLessEqual(set(needed), {'libc.so.6', 'ld-linux-x86-64.so.2'})
    self.assertIn('libc.so.6', needed)

  def test_exports_exactly_what_is_listed(self):
    exported = {name for _, name in symbols('-D', '--defined-only', LIBRARY)}
    self.assertEqual(exported, EXPORTS | SHARED_EXPORTS)

  def test_asks_for_the_cxx_run_time_weakly(self):
    undefined = symbols('-D', '--undefined-only', LIBRARY)
    cxx = {(kind, name) for kind, name in undefined
           if name.startswith('_Z') or name.startswith('__cxa_throw')}
    self.assertEqual(cxx, {('w', name) for name in WEAK})

  def test_reaches_thread_local_storage_without_a_call(self):
    names = {name for _, name in symbols('-D', '--undefined-only', LIBRARY)}
    self.assertNotIn('__tls_get_addr', names)
    self.assertNotIn('_dl_tlsdesc', output('readelf', '-Wr', LIBRARY))

  def test_is_bound_at_once_and_read_only_after(self):
    dynamic = output('readelf', '-d', LIBRARY)
    self.assertIn('BIND_NOW', dynamic)
    self.assertNotIn('TEXTREL', dynamic)
    self.assertIn('[libhakmem.so.0]', dynamic)
    segments = output('readelf', '-Wl', LIBRARY)
    self.assertIn('GNU_RELRO', segments)
    stack = re.search(r'GNU_STACK.*', segments)[0]
    self.assertNotIn('RWE', stack)

  def test_is_small(self):
    sizes = output('size', '-A', LIBRARY)
    text = int(re.search(r'^\.text\s+(\d+)', sizes, re.M)[1])
    self.assertLessEqual(text, MAX_TEXT_BYTES)

  def test_malloc_info_is_xml(self):
    document = output(sys.executable, '-c', '''
import ctypes
c = ctypes.CDLL(None)
c.fdopen.restype = ctypes.c_void_p
stream = ctypes.c_void_p(c.fdopen(1, b'w'))
assert c.malloc_info(0, stream) == 0
c.fclose(stream)
''', env=dict(os.environ, LD_PRELOAD=LIBRARY))
    root = ElementTree.fromstring(document)
    self.assertEqual((root.tag, root.get('version')), ('malloc', 'hakmem-1'))
    totals = {total.get('type'): int(total.get('size'))
              for total in root.findall('.//total')}
    self.assertEqual(set(totals),
                     {'live', 'thread-caches', 'depots', 'slab-free',
                      'slab-tails', 'free-runs', 'tables', 'slabs', 'large',
                      'mmap'})
    system = int(root.find("system[@type='current']").get('size'))
    self.assertEqual(system, totals['slabs'] + totals['large'] +
                     totals['free-runs'] + totals['mmap'] + totals['tables'])
    self.assertEqual(system, totals['live'] + totals['thread-caches'] +
                     totals['depots'] + totals['slab-free'] +
                     totals['slab-tails'] + totals['free-runs'] +
                     totals['tables'])
    resident = {part.get('type'): int(part.get('size'))
                for part in root.findall('resident')}
    self.assertEqual(resident.pop('total'), sum(resident.values()))
    self.assertGreater(totals['slabs'], 0)

  def test_preloading_costs_at_most_a_mebibyte(self):
    # The program prints what the kernel counts as its own peak.
    def peak_kib(**env):
      figures = []
      for _ in range(5):
        status = output('/bin/grep', 'VmHWM', '/proc/self/status',
                        env=dict(os.environ, **env))
        figures.append(int(re.search(r'(\d+) kB', status)[1]))
      return min(figures)
    self.assertLessEqual(peak_kib(LD_PRELOAD=LIBRARY),
                         peak_kib() + MAX_START_KIB)

  def test_loading_reserves_no_address_space(self):
    # So that a program may limit its own before it allocates.
    with tempfile.TemporaryDirectory() as scratch:
      source = os.path.join(scratch, 'status.c')
      program = os.path.join(scratch, 'status')
      with open(source, 'w', encoding='utf-8') as file:
        file.write('#include <fcntl.h>\n#include <unistd.h>\n'
                   'int main(void) {'
                   ' char text[4096];'
                   ' int file = open("/proc/self/status", O_RDONLY);'
                   ' ssize_t size = read(file, text, sizeof(text));'
                   ' return size > 0 && write(1, text, size) == size ? 0 : 1;'
                   '}\n')
      output('gcc', '-O1', source, '-o', program)
      status = output(program, env=dict(os.environ, LD_PRELOAD=LIBRARY))
    self.assertLess(int(re.search(r'VmSize:\s+(\d+) kB', status)[1]), 1 << 20)


class ArchiveTest(unittest.TestCase):

  def test_shows_exactly_what_is_listed(self):
    defined = {name for kind, name
               in symbols('--defined-only', '--extern-only', ARCHIVE)
               if not name.endswith('.o')}
    self.assertEqual(defined, EXPORTS)

  def test_asks_for_the_cxx_run_time_weakly(self):
    cxx = {(kind, name) for kind, name in symbols('--undefined-only', ARCHIVE)
           if name.startswith('_Z')}
    self.assertEqual(cxx, {('w', name) for name in WEAK})

  def test_c_and_cxx_programs_link_with_it(self):
    for compiler, suffix, body in [
        ('gcc', '.c', 'void* p = malloc(5000000); hak_stats s;'
         ' hak_stats_get(&s, sizeof s); free(p);'
         ' return s.large_bytes >= 5000000 ? 0 : 1;'),
        ('g++', '.cc', 'static char* volatile p;'
         ' try { p = new char[~0UL / 4]; }'
         ' catch (const std::bad_alloc&) { return 0; } return 1;')]:
      with self.subTest(compiler), tempfile.TemporaryDirectory() as scratch:
        source = os.path.join(scratch, 'program' + suffix)
        program = os.path.join(scratch, 'program')
        with open(source, 'w') as file:
          file.write('#include <stdlib.h>\n#include "hakmem/shim/hakmem.h"\n')
          if suffix == '.cc':
            file.write('#include <new>\n')
          file.write('int main(void) { %s }\n' % body)
        output(compiler, '-O1', '-fno-builtin', '-Wno-alloc-size-larger-than',
               '-I.', source, ARCHIVE, '-o', program)
        self.assertEqual(subprocess.run([program]).returncode, 0)

  # The C library's own malloc stays out of it, or the names would clash; and
  # its set-up calls this one before any constructor.
  def test_a_static_program_links_with_it(self):
    with tempfile.TemporaryDirectory() as scratch:
      source = os.path.join(scratch, 'program.c')
      program = os.path.join(scratch, 'program')
      with open(source, 'w') as file:
        file.write('''
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include "hakmem/shim/hakmem.h"
void *__libc_memalign(size_t, size_t);
static void *use(void *unused) { free(malloc(5000)); return unused; }
int main(void) {
  void *large = __libc_memalign(4096, 5000000);
  pthread_t thread;
  hak_stats stats;
  int status = 1;
  hak_stats_get(&stats, sizeof stats);
  if (stats.large_bytes < 5000000) return 1;
  if (pthread_create(&thread, NULL, use, NULL) != 0) return 2;
  pthread_join(thread, NULL);
  pid_t child = fork();
  if (child == 0) { use(NULL); free(large); _exit(0); }
  waitpid(child, &status, 0);
  if (status != 0) return 3;
  free(large);
  malloc_trim(0);
  printf("%zu bytes\\n", mallinfo2().uordblks);
  return 0;
}
''')
      output('gcc', '-O1', '-static', '-I.', source, ARCHIVE, '-o', program)
      self.assertRegex(output(program), r'^[0-9]+ bytes$')


if __name__ == '__main__':
  unittest.main()
