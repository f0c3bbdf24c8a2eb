"""Programs that are linked with an installed hakmem, as its users would.

For the tests of what is installed: each function takes a folder to work in, and
fails by an exception that says what a tool had to say.
"""

import os
import shlex
import subprocess

C_PROGRAM = '''
#include <hakmem/hakmem.h>
#include <stdio.h>
#include <stdlib.h>
int main(void) {
  void* block = malloc(5000000);
  hak_stats stats;
  if (hak_stats_get(&stats, sizeof(stats)) != 0) return 1;
  free(block);
  if (stats.large_bytes < 5000000) return 2; /* malloc is another one */
  puts(hak_config());
  return 0;
}
'''

CXX_PROGRAM = '''
#include <cstdio>
#include <hakmem/allocator.h>
#include <memory_resource>
#include <new>
#include <vector>
struct alignas(128) Wide { char bytes[128]; };
int main() {
  std::vector<Wide, hakmem::Allocator<Wide>> wide(40000);
  std::pmr::vector<int> numbers({1, 2, 3}, hakmem::SharedMemoryResource());
  hak_stats stats;
  if (hak_stats_get(&stats, sizeof(stats)) != 0) return 1;
  if (stats.large_bytes < 5120000) return 2;
  try {
    numbers.resize(numbers.max_size());
    return 3;
  } catch (const std::bad_alloc&) {
  }
  std::puts(hak_config());
  return numbers.size() == 3 ? 0 : 4;
}
'''

# Calls nothing of malloc's itself.
QUIET_PROGRAM = '''
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
int main(void) {
  const char* (*config)(void) =
      (const char* (*)(void))dlsym(RTLD_DEFAULT, "hak_config");
  puts(config != NULL ? config() : "libc");
  return 0;
}
'''

CMAKE_PROJECT = '''
cmake_minimum_required(VERSION 3.16)
project(user C CXX)
set(CMAKE_CXX_STANDARD 20)
find_package(hakmem 0.1 REQUIRED)
find_package(hakmem 0.1 REQUIRED)  # a second time, as by a subproject
find_package(hakmem 1.0 QUIET)
if(hakmem_FOUND)
  message(FATAL_ERROR "took version ${hakmem_VERSION} for 1.0")
endif()
find_package(hakmem 0.1)
add_executable(c_shared program.c)
target_link_libraries(c_shared PRIVATE hakmem::hakmem)
add_executable(c_static program.c)
target_link_libraries(c_static PRIVATE hakmem::static)
add_executable(cxx_shared program.cc)
target_link_libraries(cxx_shared PRIVATE hakmem::hakmem)
add_executable(cxx_static program.cc)
target_link_libraries(cxx_static PRIVATE hakmem::static)
add_executable(quiet_static quiet.c)
target_link_libraries(quiet_static PRIVATE hakmem::static ${CMAKE_DL_LIBS})
'''


def run(*command, **kwargs):
  """Runs a command and returns its output; raises with that if it fails."""
  result = subprocess.run(command, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False,
                          **kwargs)
  if result.returncode != 0:
    raise AssertionError(f'{shlex.join(command)}: exit status '
                         f'{result.returncode}\n{result.stdout}')
  return result.stdout


def _write(folder, name, content):
  path = os.path.join(folder, name)
  with open(path, 'w', encoding='utf-8') as file:
    file.write(content)
  return path


def _needs_the_library(program):
  return '[libhakmem.so.0]' in run('readelf', '-d', program)


def pkg_config_flags(prefix, *arguments, libdir='lib', sysroot=None):
  """What pkg-config says of the hakmem below `prefix`; see below."""
  env = dict(os.environ,
             PKG_CONFIG_PATH=os.path.join(prefix, libdir, 'pkgconfig'),
             PKG_CONFIG_ALLOW_SYSTEM_CFLAGS='1',
             PKG_CONFIG_ALLOW_SYSTEM_LIBS='1')
  if sysroot:
    env['PKG_CONFIG_SYSROOT_DIR'] = sysroot
  return shlex.split(run('pkg-config', *arguments, 'hakmem', env=env))


def link_by_pkg_config(folder, prefix, libdir='lib', sysroot=None):
  """Links and runs programs with the flags of hakmem.pc, in every way.

  Args:
    folder: to work in.
    prefix: where hakmem is now.
    libdir: where its libraries are, below the prefix.
    sysroot: what stands in front of the prefix that it was installed for.

  Returns:
    The stage that the library says it is.
  """
  env = dict(os.environ, LD_LIBRARY_PATH=os.path.join(prefix, libdir))
  stages = set()
  for name, compiler, content, options, dynamic in [
      ('a.c', 'gcc', C_PROGRAM, [], True),
      ('b.c', 'gcc', C_PROGRAM, ['-static'], False),
      ('c.cc', 'g++', CXX_PROGRAM, ['-std=c++20'], True),
      ('d.cc', 'g++', CXX_PROGRAM, ['-std=c++20', '-static'], False),
      ('e.c', 'gcc', QUIET_PROGRAM, ['-Wl,--as-needed'], True)]:
    flags = pkg_config_flags(prefix, '--cflags', '--libs',
                             *([] if dynamic else ['--static']),
                             libdir=libdir, sysroot=sysroot)
    program = os.path.join(folder, name + '.out')
    run(compiler, '-O1', '-fno-builtin', '-Wall', '-Wextra', '-Werror',
        *options, _write(folder, name, content), *flags, '-o', program)
    if _needs_the_library(program) != dynamic:
      raise AssertionError(f'{name}: static and dynamic are mixed up')
    stages.add(run(program, env=env))
  if len(stages) != 1:
    raise AssertionError(f'not one library: {stages}')
  return stages.pop().strip()


def link_by_cmake(folder, prefix):
  """Builds and runs a CMake project that finds hakmem below `prefix`."""
  source = os.path.join(folder, 'source')
  build = os.path.join(folder, 'build')
  os.mkdir(source)
  _write(source, 'CMakeLists.txt', CMAKE_PROJECT)
  _write(source, 'program.c', C_PROGRAM)
  _write(source, 'program.cc', CXX_PROGRAM)
  _write(source, 'quiet.c', QUIET_PROGRAM)
  run('cmake', '-S', source, '-B', build, '-DCMAKE_PREFIX_PATH=' + prefix,
      '-DCMAKE_C_FLAGS=-fno-builtin', '-G', 'Unix Makefiles')
  run('cmake', '--build', build)
  stages = set()
  for name in 'c_shared', 'c_static', 'cxx_shared', 'cxx_static':
    program = os.path.join(build, name)
    if _needs_the_library(program) != name.endswith('_shared'):
      raise AssertionError(f'{name} is not what its name says')
    stages.add(run(program))
  if ' T hak_alloc\n' not in run('nm', os.path.join(build, 'quiet_static')):
    raise AssertionError('a program that never calls malloc left it out')
  if len(stages) != 1:
    raise AssertionError(f'not one library: {stages}')
  return stages.pop().strip()
