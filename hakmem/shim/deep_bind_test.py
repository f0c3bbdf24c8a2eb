"""Plug-ins that a program opens with RTLD_DEEPBIND, libhakmem.so preloaded.

The program and its plug-in are compiled here; the plug-in lies where only the
program's DT_RUNPATH leads, and needs a library of its own. Argument: the
library.
"""

import os
import unittest

from hakmem.shim import preloading

# Says in which file's malloc() a part of the program allocates, and gives and
# takes blocks.
PART_SOURCE = r'''
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
const char* NAME(whose)(void) {
  Dl_info info;
  return dladdr((void*)malloc, &info) != 0 ? info.dli_fname : "nobody's";
}
char* NAME(copy)(const char* text) { return strdup(text); }
char* NAME(make)(size_t size) { return memset(malloc(size), 1, size); }
void NAME(take)(char* block) { free(block); }
'''

PROGRAM_SOURCE = r'''
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void Fail(void) {
  puts(dlerror());
  exit(1);
}

int main(int argc, char** argv) {
  void* const plugin = dlopen(argv[1], RTLD_NOW | RTLD_DEEPBIND);
  if (plugin == NULL) Fail();
  for (int i = 2; i != argc; ++i) {
    char name[64];
    snprintf(name, sizeof(name), "%s_whose", argv[i]);
    const char* (*const whose)(void) = dlsym(plugin, name);
    snprintf(name, sizeof(name), "%s_copy", argv[i]);
    char* (*const copy)(const char*) = dlsym(plugin, name);
    snprintf(name, sizeof(name), "%s_make", argv[i]);
    char* (*const make)(size_t) = dlsym(plugin, name);
    snprintf(name, sizeof(name), "%s_take", argv[i]);
    void (*const take)(char*) = dlsym(plugin, name);
    if (whose == NULL || copy == NULL || make == NULL || take == NULL) Fail();
    printf("%s: %s\n", argv[i], whose());
    fflush(stdout);
    if (getenv("ASK") != NULL) continue;
    for (int n = 0; n != 1000; ++n) {
      const size_t size = 1 + n * 7919 % 3000;
      free(make(size));
      take(malloc(size));
      take(copy("text"));
      free(copy("text"));
    }
  }
  puts("done");
  return 0;
}
'''

FLAGS_SOURCE = r'''
#include <dlfcn.h>
#include <stdio.h>
int main(void) {
  if (dlopen("libno-such-library.so", RTLD_NOW) == NULL) puts(dlerror());
  if (dlopen("libm.so.6", RTLD_NOW | RTLD_NOLOAD) == NULL) puts("not there");
  if (dlopen("libm.so.6", RTLD_NOW | 0x100000) == NULL) puts(dlerror());
  void* const library = dlopen("libm.so.6", RTLD_LAZY | RTLD_GLOBAL);
  if (library == NULL) puts(dlerror());
  if (dlsym(RTLD_DEFAULT, "cosf") == NULL) puts("not global");
  if (dlopen(NULL, RTLD_NOW) == NULL) puts(dlerror());
  return 0;
}
'''


class DeepBindTest(preloading.PreloadCase):

  def setUp(self):
    super().setUp()
    self.plugins = os.path.join(self.scratch, 'plugins')
    os.mkdir(self.plugins)

  def make_program(self):
    shared = ['-shared', '-fPIC']
    self.compile_c('plugins/libneeded.so', PART_SOURCE, *shared,
                   '-DNAME(x)=needed_##x')
    self.compile_c('plugins/libplug-in.so', PART_SOURCE, *shared,
                   '-DNAME(x)=plugin_##x', '-Wl,--no-as-needed',
                   '-L' + self.plugins, '-lneeded',
                   '-Wl,--enable-new-dtags,-rpath,$ORIGIN')
    return self.compile_c('program', PROGRAM_SOURCE,
                          '-Wl,--enable-new-dtags,-rpath,$ORIGIN/plugins')

  def run_program(self, program, preload, **env):
    result = self.run_once(
        'run', [program, 'libplug-in.so', 'plugin', 'needed'], '', preload,
        **env)
    self.assertEqual(result.stderr, '')
    self.assertEqual(result.returncode, 0, result.stdout)
    lines = result.stdout.splitlines()
    self.assertEqual(lines.pop(), 'done')
    found = {}
    for line in lines:
      part, path = line.split(': ')
      found[part] = os.path.basename(path)
    return found

  def test_plug_ins_share_the_heap(self):
    program = self.make_program()
    self.assertEqual(self.run_program(program, preload=True),
                     dict.fromkeys(['plugin', 'needed'], 'libhakmem.so'))
    self.assertEqual(self.run_program(program, preload=False),
                     dict.fromkeys(['plugin', 'needed'], 'libc.so.6'))

  def test_the_flag_is_heeded_where_that_is_asked_for(self):
    # Without this the test above might pass with whatever dlopen().
    found = self.run_program(self.make_program(), preload=True, ASK='1',
                             HAKMEM_DEEPBIND='heed')
    self.assertEqual(found, dict.fromkeys(['plugin', 'needed'], 'libc.so.6'))

  def test_all_else_is_as_the_c_library_does_it(self):
    program = self.compile_c('program', FLAGS_SOURCE)
    lines = self.check('flags', [program]).splitlines()
    self.assertEqual(len(lines), 3, lines)


if __name__ == '__main__':
  unittest.main()
