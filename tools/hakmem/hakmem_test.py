"""Drives the command `hakmem` as a user would.

Arguments: the command, and docs/options.md.
"""

import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import unittest

from command_case import CommandCase, HAKMEM, NOBODY, hakmem

OPTIONS_PAGE = os.path.abspath(sys.argv.pop(1))

# Says which malloc it runs on, and exits with its first argument.
REPORTER = '''
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
int main(int argc, char** argv) {
  const char* (*config)(void) =
      (const char* (*)(void))dlsym(RTLD_DEFAULT, "hak_config");
  printf("%s\\n", config != NULL ? config() : "libc");
  return argc > 1 ? atoi(argv[1]) : 0;
}
'''

STAGE = '^(p0|tls_tiny|tls_l2|tls_full|unlocked)\n$'


class ProgramsTestCase(CommandCase):

  @classmethod
  def setUpClass(cls):
    # Not Bazel's folder for this test: nobody else may enter that.
    cls.scratch = tempfile.mkdtemp(dir='/tmp')
    cls.addClassCleanup(shutil.rmtree, cls.scratch)
    os.chmod(cls.scratch, 0o755)
    source = cls.path('reporter.c')
    with open(source, 'w', encoding='utf-8') as file:
      file.write(REPORTER)
    cls.reporter = cls.path('reporter')
    cls.static = cls.path('static')
    subprocess.run(['gcc', source, '-o', cls.reporter], check=True)
    with open(source, 'w', encoding='utf-8') as file:
      file.write('int main(void) { return 0; }')
    subprocess.run(['gcc', '-static', source, '-o', cls.static], check=True)

  @classmethod
  def path(cls, name):
    return os.path.join(cls.scratch, name)

  @classmethod
  def write(cls, name, content, mode=0o755):
    path = cls.path(name)
    with open(path, 'wb') as file:
      file.write(content.encode() if isinstance(content, str) else content)
    os.chmod(path, mode)
    return path

  def copy(self, name, mode=0o755):
    path = self.path(name)
    shutil.copyfile(self.reporter, path)
    os.chmod(path, mode)
    return path


class RunTest(ProgramsTestCase):

  def test_program_is_on_hakmem(self):
    self.assertEqual(
        subprocess.run([self.reporter], capture_output=True, text=True,
                       check=True).stdout, 'libc\n')
    result = hakmem('run', '--', self.reporter)
    self.assertRegex(result.stdout, STAGE)
    self.assertEqual((result.returncode, result.stderr), (0, ''))

  def test_is_found_in_path(self):
    env = dict(os.environ, PATH=f'/nowhere:{self.scratch}:/usr/bin')
    self.assertRegex(hakmem('run', 'reporter', env=env).stdout, STAGE)
    env['PATH'] = '/usr/bin:'
    self.assertRegex(
        hakmem('run', 'reporter', env=env, cwd=self.scratch).stdout, STAGE)
    env['PATH'] = '/usr/bin'
    self.assert_refused(hakmem('run', 'reporter', env=env, cwd=self.scratch),
                        127, 'run: reporter: no such program in PATH')

  def test_exit_status_and_signal_are_the_programs(self):
    self.assertEqual(hakmem('run', '--', self.reporter, '7').returncode, 7)
    result = hakmem('run', 'sh', '-c', 'kill -TERM $$')
    self.assertEqual(result.returncode, -signal.SIGTERM)

  def test_arguments_reach_the_program_as_they_are(self):
    arguments = ['--cache_bytes=x', '--', '', 'a b', '-n']
    script = 'for i; do echo "[$i]"; done'
    expected = ''.join(f'[{argument}]\n' for argument in arguments)
    for separator in [], ['--']:
      result = hakmem('run', *separator, 'sh', '-c', script, 'sh', *arguments)
      self.assertEqual(result.stdout, expected)
      self.assertEqual(result.returncode, 0, result.stderr)

  def test_goes_in_front_of_what_is_preloaded(self):
    for before, after in [(None, ''), ('', ''), ('libm.so.6', ':libm.so.6'),
                          ('libm.so.6 libdl.so.2', ':libm.so.6 libdl.so.2')]:
      env = {name: value for name, value in os.environ.items()
             if name != 'LD_PRELOAD'}
      if before is not None:
        env['LD_PRELOAD'] = before
      result = hakmem('run', 'printenv', 'LD_PRELOAD', env=env)
      self.assertRegex(result.stdout,
                       r'^/[^:\n]*libhakmem\.so[.\d]*' + re.escape(after) +
                       '\n$')

  def test_options_reach_the_program_however_they_are_written(self):
    for option in ('--cache_bytes=64M', '--cache-bytes=64M',
                   '--HAKMEM_CACHE_BYTES=64M'):
      env = dict(os.environ, HAKMEM_CACHE_BYTES='1M')
      result = hakmem('run', option, '--direct_maps', '--retain_bytes=0', '--',
                      'sh', '-c', 'echo $HAKMEM_CACHE_BYTES '
                      '$HAKMEM_DIRECT_MAPS $HAKMEM_RETAIN_BYTES', env=env)
      self.assertEqual(result.stdout, '64M 1 0\n', result.stderr)

  def test_mistaken_options(self):
    for option, pattern in [
        ('--cach_bytes=1', "there is no option '--cach_bytes'; did you mean "
         "'--cache_bytes'\\?"),
        ('--verbose', "there is no option '--verbose'; `hakmem options` lists "
         'those that there are'),
        ('-n', "there is no option '-n'; `hakmem options` .*"),
        ('--=3', "there is no option '--'; `hakmem options` .*"),
        ('--cache_bytes', '--cache_bytes needs a value: --cache_bytes=0'),
        ('--cache_bytes=', "--cache_bytes: '' is not a decimal number .*"),
        ('--cache_bytes=3X', "--cache_bytes: '3X' is not a decimal number .*"),
        ('--cache_bytes=-1', "--cache_bytes: '-1' is not a decimal number .*"),
        ('--cache_bytes=99999999T',
         "--cache_bytes: '99999999T' is not a decimal number .*"),
        ('--cache_bytes=5T',
         '--cache_bytes: 5T is out of range, which is 0 to 4T'),
        ('--arena_bytes=4095K',
         '--arena_bytes: 4095K is out of range, which is 4M to 4T'),
        ('--direct_maps=2',
         '--direct_maps: 2 is out of range, which is 0 to 1'),
    ]:
      with self.subTest(option):
        self.assert_refused(hakmem('run', option, '--', self.reporter), 125,
                            'run: ' + pattern)

  def test_no_program(self):
    for arguments in [], ['--'], ['--cache_bytes=1M'], ['--direct_maps', '--']:
      self.assert_refused(hakmem('run', *arguments), 125,
                          'run: no program to run is named; .*')

  def test_missing_program(self):
    missing = self.path('missing')
    self.assert_refused(hakmem('run', missing), 127,
                        f'run: {missing}: no such program')
    self.assert_refused(hakmem('run', self.reporter + '/x'), 127,
                        'run: .*: no such program')
    self.assert_refused(hakmem('run', ''), 127,
                        'run: the name of the program is empty')

  def test_what_is_no_program(self):
    self.assert_refused(hakmem('run', self.scratch), 126,
                        'run: .* is a directory, not a program')
    text = self.write('text', 'echo here', mode=0o644)
    self.assert_refused(hakmem('run', text), 126,
                        'run: .*/text is not a program that you may run')
    env = dict(os.environ, PATH=f'{self.scratch}:/usr/bin')
    self.assert_refused(hakmem('run', 'text', env=env), 126,
                        'run: .*/text is not a program that you may run')
    data = self.write('data', b'\x00\x01\x02\x03')
    self.assert_refused(hakmem('run', data), 126,
                        'run: .*/data is neither a program nor a script')

  def test_static_program(self):
    self.assert_refused(
        hakmem('run', self.static), 126,
        'run: .*/static is statically linked, .*: link it with libhakmem.a '
        'instead')

  def test_loader_is_no_static_program(self):
    result = hakmem('run', '/lib64/ld-linux-x86-64.so.2', self.reporter)
    self.assertRegex(result.stdout, STAGE)

  def test_programs_of_other_kinds(self):
    with open(self.reporter, 'rb') as file:
      program = bytearray(file.read())
    for name, offset, change, pattern in [
        ('small', 4, b'\x01', 'is a 32-bit program, .*'),
        ('arm', 18, struct.pack('<H', 183),
         'is a program for another kind of processor'),
        ('odd', 4, b'\x09', 'is a damaged program: .*'),
        ('endless', 32, struct.pack('<Q', 1 << 62),
         'is a damaged program: its segments are missing'),
    ]:
      with self.subTest(name):
        changed = bytearray(program)
        changed[offset:offset + len(change)] = change
        self.assert_refused(hakmem('run', self.write(name, bytes(changed))),
                            126, f'run: .*/{name} {pattern}')
    self.assert_refused(
        hakmem('run', self.write('stump', bytes(program[:10]))), 126,
        'run: .*/stump is a damaged program: .*')
    musl = self.path('musl')
    subprocess.run(['gcc', '-Wl,--dynamic-linker=/lib/ld-musl-x86_64.so.1',
                    self.path('reporter.c'), '-o', musl], check=True)
    self.assert_refused(hakmem('run', musl), 126,
                        'run: .*/musl is a program of another C library, .*')

  def test_scripts(self):
    for name, first_line in [('plain', f'#!{self.reporter}\n'),
                             ('spaced', f'#! \t{self.reporter}  \n'),
                             ('by_env', '#!/usr/bin/env reporter\n'),
                             ('by_env_s', '#!/usr/bin/env -S A=b reporter 0\n'),
                             ('of_shell', f'exec {self.reporter}\n'),
                             ('of_script', f'#!{self.path("plain")}\n')]:
      with self.subTest(name):
        env = dict(os.environ, PATH=f'{self.scratch}:/usr/bin:/bin')
        result = hakmem('run', self.write(name, first_line), env=env)
        self.assertRegex(result.stdout, STAGE, result.stderr)

  def test_scripts_with_wrong_interpreters(self):
    static = re.escape(self.static)
    for name, first_line, status, pattern in [
        ('of_static', f'#!{self.static} -x\n', 126,
         f': its interpreter {static} is statically linked, .*'),
        ('env_of_static', '#!/usr/bin/env static\n', 126,
         f': its interpreter {static} is statically linked, .*'),
        ('of_missing', '#!/nowhere/interpreter\n', 127,
         ': its interpreter /nowhere/interpreter: no such program'),
        ('of_folder', '#!/etc\n', 126,
         ': its interpreter /etc is a directory, not a program'),
        ('of_nothing', '#! \n', 126, ' names no interpreter after its #!'),
        ('of_itself', f'#!{self.path("of_itself")}\n', 126,
         ': its interpreter .* is a script of too many scripts'),
    ]:
      with self.subTest(name):
        env = dict(os.environ, PATH=f'{self.scratch}:/usr/bin:/bin')
        self.assert_refused(
            hakmem('run', self.write(name, first_line), env=env), status,
            f'run: .*/{name}{pattern}')

  def test_program_that_may_not_be_read_is_run(self):
    result = hakmem('run', self.copy('secret', mode=0o711))
    self.assertRegex(result.stdout, STAGE)


class RightsTest(ProgramsTestCase):
  """Programs that the loader trusts no environment for."""

  def setUp(self):
    if os.getuid() != 0:
      self.skipTest('only root can give a program the rights of others')

  def give(self, name, mode, uid=0, gid=0):
    path = self.copy(name)
    os.chown(path, uid, gid)
    os.chmod(path, mode)
    return path

  def as_nobody(self, program):
    """Runs a copy of the command that nobody may reach."""
    for folder in 'bin', 'lib':
      os.makedirs(self.path(folder), exist_ok=True)
    command = self.path('bin/hakmem')
    shutil.copy(HAKMEM, command)
    library = re.search(r'library (.*)', hakmem('version').stdout)[1]
    shutil.copy(library, self.path('lib/libhakmem.so.0'))
    return subprocess.run([command, 'run', program], user=NOBODY, group=NOBODY,
                          extra_groups=[], capture_output=True, text=True,
                          check=False)

  def test_user(self):
    program = self.give('setuid', 0o4755, uid=NOBODY)
    self.assert_refused(hakmem('run', program), 126,
                        r'run: .*/setuid runs as another user \(setuid\), .*')
    self.assertRegex(self.as_nobody(program).stdout, STAGE)

  def test_group(self):
    program = self.give('setgid', 0o2755, gid=NOBODY)
    self.assert_refused(hakmem('run', program), 126,
                        r'run: .*/setgid runs as another group \(setgid\), .*')
    # Without the right to run it, the group's bit means something else.
    program = self.give('locking', 0o2745, gid=NOBODY)
    self.assertRegex(hakmem('run', program).stdout, STAGE)

  def test_capabilities(self):
    program = self.give('setcap', 0o755)
    # Version 2, effective; CAP_NET_BIND_SERVICE permitted.
    capability = struct.pack('<5I', 0x02000001, 1 << 10, 0, 0, 0)
    try:
      os.setxattr(program, 'security.capability', capability)
    except OSError as error:
      self.skipTest(f'no file capabilities here: {error}')
    self.assert_refused(
        self.as_nobody(program), 126,
        r'run: .*/setcap has capabilities of its own \(setcap\), .*')
    # Root has them all, and gains nothing.
    self.assertRegex(hakmem('run', program).stdout, STAGE)

  def test_interpreter(self):
    program = self.give('interpreter', 0o4755, uid=NOBODY)
    script = self.write('script', f'#!{program}\n')
    self.assert_refused(
        hakmem('run', script), 126,
        'run: .*/script: its interpreter .* runs as another user .*')
    # A script's own bits mean nothing.
    script = self.write('setuid_script', f'#!{self.reporter}\n')
    os.chown(script, NOBODY, NOBODY)
    os.chmod(script, 0o6755)
    self.assertRegex(hakmem('run', script).stdout, STAGE)

  def test_the_loader_does_as_is_said(self):
    """Checks the kernel's rule itself, which the messages repeat."""
    library = re.search(r'library (.*)', hakmem('version').stdout)[1]
    for name, mode, ids, on_hakmem in [
        ('plain', 0o755, {}, True), ('to_self', 0o6755, {}, True),
        ('to_user', 0o4755, {'uid': NOBODY}, False),
        ('to_group', 0o2755, {'gid': NOBODY}, False)]:
      program = self.give(name, mode, **ids)
      stdout = subprocess.run([program], env={'LD_PRELOAD': library},
                              stdout=subprocess.PIPE, text=True,
                              check=True).stdout
      self.assertEqual(stdout != 'libc\n', on_hakmem, name)
      self.assertEqual(hakmem('run', program).returncode == 0, on_hakmem, name)


class LibraryTest(ProgramsTestCase):

  def copy_command(self, folder):
    command = os.path.join(self.path(folder), 'hakmem')
    os.makedirs(os.path.dirname(command))
    shutil.copy(HAKMEM, command)
    return command

  def run_copy(self, command, *arguments):
    return subprocess.run([command, *arguments], capture_output=True, text=True,
                          check=False)

  def test_without_library(self):
    command = self.copy_command('alone/bin')
    expected = ('its library is not installed with it '
                f'\\({self.scratch}/alone/lib/libhakmem.so.0\\)')
    self.assert_refused(self.run_copy(command, 'run', 'true'), 125,
                        'run: ' + expected)
    result = self.run_copy(command, 'version')
    self.assertEqual(result.returncode, 1)
    self.assertRegex(result.stderr, f'^hakmem: {expected}\n$')

  def test_with_a_path_that_cannot_be_preloaded(self):
    command = self.copy_command('with space/bin')
    os.mkdir(self.path('with space/lib'))
    library = re.search(r'library (.*)', hakmem('version').stdout)[1]
    shutil.copy(library, self.path('with space/lib/libhakmem.so.0'))
    self.assert_refused(
        self.run_copy(command, 'run', 'true'), 125,
        'run: LD_PRELOAD cannot name a path with spaces or colons: .*')

  def test_is_found_by_a_link_to_the_command(self):
    link = self.path('link')
    os.symlink(os.path.realpath(HAKMEM), link)
    self.assertRegex(self.run_copy(link, 'run', self.reporter).stdout, STAGE)


class TextTest(ProgramsTestCase):

  def test_options_are_those_of_the_page(self):
    with open(OPTIONS_PAGE, encoding='utf-8') as page:
      rows = re.findall(r'^\| `(HAKMEM_\w+)` \| (\w+) \| (.*) \|$', page.read(),
                        re.M)
    self.assertGreater(len(rows), 3)
    result = hakmem('options')
    self.assertEqual((result.returncode, result.stderr), (0, ''))
    shown = re.findall(
        r'^--(\w+)=(\d+|[a-z]+)([KMGT]?)  \((\w+), [^)]*\)\n    (.*)\n',
        result.stdout, re.M)
    units = dict(zip(['', 'K', 'M', 'G', 'T'], range(0, 50, 10)))
    self.assertEqual(
        [(name, str(int(value) << units[unit]) if value.isdigit() else value,
          meaning) for _, value, unit, name, meaning in shown], rows)
    for flag, _, _, name, _ in shown:
      self.assertEqual('HAKMEM_' + flag.upper(), name)
    self.assertEqual(len(result.stdout.splitlines()), 2 * len(rows))

  def test_version(self):
    for argument in 'version', '--version':
      self.assertRegex(hakmem(argument).stdout,
                       r'^hakmem \d+\.\d+\.\d+\nlibrary /.*/libhakmem\.so\n$')

  def test_help(self):
    for arguments in ['help'], ['--help'], ['-h']:
      result = hakmem(*arguments)
      self.assertEqual((result.returncode, result.stderr), (0, ''))
      for command in ('run', 'top', 'record', 'report', 'options', 'version',
                      'help'):
        self.assertIn(f'\n  hakmem {command}', result.stdout)
        one = hakmem('help', command)
        self.assertEqual(one.returncode, 0)
        self.assertTrue(one.stdout.startswith(f'usage: hakmem {command}'))
        self.assertEqual(hakmem(command, '--help').stdout, one.stdout)

  def test_mistakes(self):
    result = hakmem()
    self.assertEqual((result.returncode, result.stdout), (2, ''))
    self.assertTrue(result.stderr.startswith('usage: hakmem '))
    self.assert_refused(hakmem('rnu'), 2,
                        "there is no command 'rnu'; did you mean 'run'\\?")
    self.assert_refused(hakmem('help', 'optoins'), 2, ".*mean 'options'\\?")
    self.assert_refused(hakmem('--fast'), 2, '.*; see `hakmem help`')
    for command in 'options', 'version':
      self.assert_refused(hakmem(command, 'x'), 2,
                          f"{command} takes no arguments, not 'x'")

  def test_says_when_its_output_is_lost(self):
    with open('/dev/full', 'w', encoding='utf-8') as full:
      for command in 'options', 'version', 'help':
        result = hakmem(command, stdout=full)
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stderr,
                         '^hakmem: cannot write to stdout: .*\n$')


if __name__ == '__main__':
  unittest.main()
