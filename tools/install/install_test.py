"""Installs hakmem below temporary prefixes, and uses what is there.

Arguments: the program `install`, and the version.
"""

import json
import os
import re
import stat
import subprocess
import sys
import tempfile
import unittest

import linked_programs

INSTALL = os.path.abspath(sys.argv.pop(1))
VERSION = sys.argv.pop(1)

RECORD = 'share/doc/hakmem/installed.json'
LIBRARY = 'lib/libhakmem.so.' + VERSION
FILES = {
    'bin/hakmem': 0o755,
    'include/hakmem/allocator.h': 0o644,
    'include/hakmem/hakmem.h': 0o644,
    'lib/cmake/hakmem/hakmem-config-version.cmake': 0o644,
    'lib/cmake/hakmem/hakmem-config.cmake': 0o644,
    'lib/libhakmem.a': 0o644,
    'lib/libhakmem.so': 'libhakmem.so.0',
    'lib/libhakmem.so.0': 'libhakmem.so.' + VERSION,
    LIBRARY: 0o644,
    'lib/pkgconfig/hakmem.pc': 0o644,
    'share/doc/hakmem/LICENSE': 0o644,
    RECORD: 0o644,
    'share/man/man1/hakmem.1': 0o644,
    'share/man/man3/hakmem.3': 0o644,
}


def install(*arguments, **kwargs):
  kwargs['env'] = dict(os.environ, **kwargs.pop('env', {}))
  return subprocess.run([INSTALL, *arguments], capture_output=True, text=True,
                        check=False, **kwargs)


def listing(folder):
  """Each file's mode and each link's target, by path."""
  found = {}
  for where, folders, names in os.walk(folder):
    for name in names + folders:
      path = os.path.join(where, name)
      status = os.lstat(path)
      if stat.S_ISLNK(status.st_mode):
        found[os.path.relpath(path, folder)] = os.readlink(path)
      elif stat.S_ISREG(status.st_mode):
        found[os.path.relpath(path, folder)] = stat.S_IMODE(status.st_mode)
  return found


def write(path, content):
  with open(path, 'w', encoding='utf-8') as file:
    file.write(content)


def read(path):
  with open(path, encoding='utf-8') as file:
    return file.read()


class InstallTestCase(unittest.TestCase):

  def setUp(self):
    scratch = tempfile.TemporaryDirectory()
    self.addCleanup(scratch.cleanup)
    self.scratch = scratch.name
    self.prefix = self.path('prefix')

  def path(self, *names):
    return os.path.join(self.scratch, *names)

  def install(self, *arguments, **kwargs):
    result = install('--prefix=' + self.prefix, *arguments, **kwargs)
    self.assertEqual((result.returncode, result.stderr), (0, ''))
    return result.stdout

  def assert_refused(self, result, pattern, status=1):
    self.assertEqual(result.returncode, status, result.stderr)
    self.assertRegex(result.stderr, f'^install: {pattern}\n$')


class InstallTest(InstallTestCase):

  def test_puts_each_file_in_its_place(self):
    self.assertIn(f'Installed hakmem in {self.prefix}.', self.install())
    self.assertEqual(listing(self.prefix), FILES)
    self.assertIn('[libhakmem.so.0]', linked_programs.run(
        'readelf', '-d', os.path.join(self.prefix, LIBRARY)))
    for path in FILES:
      if not path.startswith(('bin', 'lib/lib')):
        self.assertNotRegex(read(os.path.join(self.prefix, path)),
                            r'@\w+@|bazel|/execroot/')

  def test_is_for_everybody_whatever_the_umask(self):
    self.install(umask=0o077)
    self.assertEqual(listing(self.prefix), FILES)
    for folder, _, _ in os.walk(self.prefix):
      self.assertEqual(stat.S_IMODE(os.stat(folder).st_mode), 0o755, folder)

  def test_a_second_time_changes_nothing(self):
    self.install()
    record = read(os.path.join(self.prefix, RECORD))
    self.install()
    self.assertEqual(listing(self.prefix), FILES)
    self.assertEqual(read(os.path.join(self.prefix, RECORD)), record)

  def test_destdir_goes_in_front(self):
    result = install('--prefix=/usr', '--destdir=stage', cwd=self.scratch)
    self.assertEqual((result.returncode, result.stderr), (0, ''))
    # As under `bazel run`, which changes folders.
    env = {'BUILD_WORKING_DIRECTORY': self.scratch}
    install('--prefix=/usr', '--destdir=other', env=env)
    for stage in 'stage', 'other':
      usr = self.path(stage, 'usr')
      self.assertEqual(listing(usr), FILES)
      self.assertIn('prefix=/usr\n',
                    read(os.path.join(usr, 'lib/pkgconfig/hakmem.pc')))

  def test_the_command_runs_on_the_library_beside_it(self):
    self.install()
    command = os.path.join(self.prefix, 'bin/hakmem')
    library = os.path.join(self.prefix, 'lib/libhakmem.so.0')
    self.assertEqual(linked_programs.run(command, 'version'),
                     f'hakmem {VERSION}\nlibrary {library}\n')
    self.assertEqual(
        linked_programs.run(command, 'run', 'printenv', 'LD_PRELOAD'),
        library + '\n')

  def test_programs_link_by_pkg_config(self):
    self.install()
    stage = linked_programs.link_by_pkg_config(self.scratch, self.prefix)
    self.assertRegex(stage, '^(p0|tls_tiny|tls_l2|tls_full)$')
    self.assertEqual(
        linked_programs.pkg_config_flags(self.prefix, '--modversion'),
        [VERSION])

  def test_an_odd_prefix_is_quoted(self):
    for name in 'a prefix', 'a"$b\\c#d':
      self.prefix = self.path(name)
      self.install()
      flags = linked_programs.pkg_config_flags(self.prefix, '--cflags',
                                               '--libs')
      self.assertEqual(flags[0], f'-I{self.prefix}/include')
      self.assertEqual(flags[1], f'-L{self.prefix}/lib')

  def test_programs_link_by_cmake(self):
    self.install()
    # The package knows no place: it goes along.
    moved = self.path('moved')
    os.rename(self.prefix, moved)
    stage = linked_programs.link_by_cmake(self.scratch, moved)
    self.assertRegex(stage, '^(p0|tls_tiny|tls_l2|tls_full)$')


class RefusalTest(InstallTestCase):

  def test_says_what_it_cannot_write(self):
    write(self.path('file'), '')
    self.assert_refused(install('--prefix=' + self.path('file')),
                        f'cannot write {self.scratch}/file.*')
    os.mkdir(self.prefix)
    write(os.path.join(self.prefix, 'lib'), '')
    self.assert_refused(install('--prefix=' + self.prefix),
                        f'cannot write {self.prefix}/lib.*')
    self.assert_refused(install('--prefix=/proc/hakmem'),
                        'cannot write /proc/hakmem: .*')

  def test_says_where_it_may_not_write(self):
    os.mkdir(self.prefix, 0o555)
    if os.getuid() == 0:
      self.skipTest('root may write everywhere')
    self.assert_refused(install('--prefix=' + self.prefix),
                        f'cannot write {self.prefix}/.*: Permission denied')

  def test_replaces_nothing_that_it_did_not_put_there(self):
    os.makedirs(os.path.join(self.prefix, 'bin'))
    foreign = os.path.join(self.prefix, 'bin/hakmem')
    write(foreign, 'mine')
    self.assert_refused(
        install('--prefix=' + self.prefix),
        f'{foreign} is there and was not installed by this command; move it '
        'away')
    self.assertEqual(listing(self.prefix), {'bin/hakmem': 0o644})
    os.unlink(foreign)
    os.mkdir(foreign)
    self.assert_refused(install('--prefix=' + self.prefix),
                        f'{foreign} is there and is no file')
    self.assertEqual(os.listdir(self.prefix), ['bin'])

  def test_replaces_nothing_that_was_changed_since(self):
    self.install()
    changed = os.path.join(self.prefix, 'lib/pkgconfig/hakmem.pc')
    write(changed, 'mine')
    self.assert_refused(
        install('--prefix=' + self.prefix),
        f'{changed} was changed since it was installed; move it away')
    self.assertEqual(read(changed), 'mine')

  def test_mistaken_arguments(self):
    for arguments, pattern in [
        (['--prefix=relative'],
         "argument --prefix: 'relative' is not an absolute path"),
        (['--perfix=/usr'], 'unrecognized arguments: --perfix=/usr'),
        (['/usr'], 'unrecognized arguments: /usr')]:
      self.assert_refused(install(*arguments), pattern, status=2)

  def test_a_record_of_somebody_else(self):
    os.makedirs(os.path.join(self.prefix, os.path.dirname(RECORD)))
    for content in '', '{}', '{"files": 3, "folders": []}', '[]':
      write(os.path.join(self.prefix, RECORD), content)
      self.assert_refused(install('--prefix=' + self.prefix),
                          f'{self.prefix}/{RECORD} is not a record that this '
                          'command wrote')


class UninstallTest(InstallTestCase):

  def test_removes_what_it_installed_and_nothing_else(self):
    os.makedirs(self.path('prefix', 'lib'))
    write(self.path('prefix', 'lib', 'other.a'), '')
    self.install()
    self.assertIn('Removed hakmem', self.install('--uninstall'))
    self.assertEqual(listing(self.prefix), {'lib/other.a': 0o644})
    self.assertEqual(os.listdir(self.prefix), ['lib'])
    self.assert_refused(
        install('--uninstall', '--prefix=' + self.prefix),
        f'nothing to remove: hakmem is not installed in {self.prefix}')

  def test_removes_the_folders_that_it_made(self):
    self.install()
    self.install('--uninstall')
    self.assertEqual(os.listdir(self.scratch), [])

  def test_keeps_folders_in_which_others_have_put_something(self):
    self.install()
    write(self.path('prefix', 'share', 'man', 'man1', 'other.1'), '')
    self.install('--uninstall')
    self.assertEqual(listing(self.prefix), {'share/man/man1/other.1': 0o644})
    self.assertEqual(os.listdir(self.prefix), ['share'])

  def test_leaves_what_was_changed_since(self):
    self.install()
    changed = self.path('prefix', 'lib', 'pkgconfig', 'hakmem.pc')
    write(changed, 'mine')
    os.unlink(self.path('prefix', 'lib', 'libhakmem.a'))
    result = install('--uninstall', '--prefix=' + self.prefix)
    self.assertEqual(result.returncode, 0)
    self.assertEqual(result.stderr, f'install: left {changed}, which was '
                     'changed since it was installed\n')
    self.assertEqual(listing(self.prefix), {'lib/pkgconfig/hakmem.pc': 0o644})


class UpgradeTest(InstallTestCase):

  def make_old(self, **digests):
    """Makes it look as if another version had been installed before."""
    self.install()
    record = self.path('prefix', RECORD)
    content = json.loads(read(record))
    old = self.path('prefix', 'lib', 'libhakmem.so.0.0.9')
    write(old, 'old')
    sha256 = linked_programs.run('sha256sum', old).split()[0]
    content['files']['lib/libhakmem.so.0.0.9'] = ['sha256:' + sha256]
    content['files'].update(digests)
    write(record, json.dumps(content))
    return old

  def test_removes_what_the_new_version_does_not_have(self):
    self.make_old()
    self.install()
    self.assertEqual(listing(self.prefix), FILES)

  def test_keeps_what_was_changed(self):
    old = self.make_old()
    write(old, 'mine')
    result = install('--prefix=' + self.prefix)
    self.assertEqual(result.returncode, 0)
    self.assertRegex(result.stderr, f'^install: left {re.escape(old)}, .*\n$')
    self.assertEqual(read(old), 'mine')

  def test_goes_on_where_an_installation_broke_off(self):
    self.install()
    # Half of the files are there, and a record of what was to be.
    for path in sorted(FILES)[::2]:
      if path != RECORD:
        os.unlink(os.path.join(self.prefix, path))
    self.install()
    self.assertEqual(listing(self.prefix), FILES)


if __name__ == '__main__':
  unittest.main()
