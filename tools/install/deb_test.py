"""Installs the Debian package into a root of its own, and uses what is there.

Arguments: the package, the version, and the command that makes the package
again, with --output left out.
"""

import os
import re
import subprocess
import sys
import tempfile
import unittest

import linked_programs

DEB = os.path.abspath(sys.argv[1])
VERSION = sys.argv[2]
MAKE_AGAIN = sys.argv[3:]
del sys.argv[1:]

LIBDIR = 'lib/x86_64-linux-gnu'

run = linked_programs.run


class DebTest(unittest.TestCase):

  def setUp(self):
    scratch = tempfile.TemporaryDirectory()
    self.addCleanup(scratch.cleanup)
    self.scratch = scratch.name
    self.root = os.path.join(self.scratch, 'root')
    os.mkdir(self.root)

  def dpkg(self, *arguments):
    # dpkg wants tools of root's, which need not be in the PATH of a test.
    env = dict(os.environ, PATH=os.environ['PATH'] + ':/usr/sbin:/sbin')
    return run('dpkg', '--root=' + self.root, *arguments, env=env)

  def make_root(self):
    """A root in which dpkg knows this machine's C library and nothing else."""
    database = os.path.join(self.root, 'var/lib/dpkg')
    for folder in 'info', 'triggers', 'updates':
      os.makedirs(os.path.join(database, folder))
    with open(os.path.join(database, 'status'), 'w', encoding='utf-8') as file:
      file.write(run('dpkg-query', '--status', 'libc6') + '\n')
    # dpkg looks for the file lists of what it knows.
    for suffix in '.list', ':amd64.list':
      with open(os.path.join(database, 'info', 'libc6' + suffix), 'w',
                encoding='utf-8'):
        pass

  def files(self):
    found = []
    for folder, _, names in os.walk(os.path.join(self.root, 'usr')):
      found += [os.path.join(folder, name) for name in names]
    return found

  def test_fields(self):
    for field, pattern in [
        ('Package', 'hakmem'), ('Version', re.escape(VERSION)),
        ('Architecture', 'amd64'), ('Section', 'libdevel'),
        ('Priority', 'optional'), ('Maintainer', '.+ <.+@.+>'),
        ('Depends', r'libc6 \(>= 2\.\d+\)'), ('Installed-Size', r'\d{3,5}'),
        ('Description', r'malloc [^\n]+(\n .+)+')]:
      self.assertRegex(run('dpkg-deb', '--field', DEB, field).rstrip('\n'),
                       f'^{pattern}$')

  def test_depends_on_the_c_library_that_its_programs_ask_for(self):
    run('dpkg-deb', '--extract', DEB, self.root)
    asked = set()
    for path in self.files():
      with open(path, 'rb') as file:
        if file.read(4) != b'\x7fELF':
          continue
      self.assertLessEqual(
          set(re.findall(r'\(NEEDED\).*\[(.*)\]', run('readelf', '-d', path))),
          {'libc.so.6', 'libm.so.6', 'ld-linux-x86-64.so.2'}, path)
      asked |= {tuple(map(int, version.split('.'))) for version in
                re.findall(r'GLIBC_([\d.]+)', run('objdump', '-T', path))}
    self.assertIn('.'.join(map(str, max(asked))),
                  run('dpkg-deb', '--field', DEB, 'Depends'))

  def test_is_the_same_whenever_it_is_made(self):
    with open(DEB, 'rb') as file:
      built = file.read()
    again = os.path.join(self.scratch, 'again.deb')
    for env, umask in [({'TZ': 'Asia/Tokyo', 'LC_ALL': 'C'}, 0o077),
                       ({'TZ': 'UTC', 'SOURCE_DATE_EPOCH': '1'}, 0o002)]:
      subprocess.run([*MAKE_AGAIN, '--output=' + again], check=True,
                     env=dict(os.environ, **env), umask=umask)
      with open(again, 'rb') as file:
        # Not assertEqual(), which would print both.
        self.assertTrue(file.read() == built, env)

  def test_what_is_in_it_works(self):
    if os.getuid() != 0:  # dpkg installs as root only
      run('dpkg-deb', '--extract', DEB, self.root)
      self.use_it()
      return
    self.make_root()
    self.dpkg('--install', DEB)
    self.assertIn('Status: install ok installed',
                  self.dpkg('--status', 'hakmem'))
    self.assertEqual(self.dpkg('--verify', 'hakmem'), '')
    self.use_it()
    self.dpkg('--purge', 'hakmem')
    self.assertEqual(self.files(), [])

  def use_it(self):
    usr = os.path.join(self.root, 'usr')
    stages = {linked_programs.link_by_pkg_config(
        self.scratch, usr, LIBDIR, sysroot=self.root)}
    folder = tempfile.mkdtemp(dir=self.scratch)
    stages.add(linked_programs.link_by_cmake(folder, usr))
    self.assertEqual(len(stages), 1)
    command = os.path.join(usr, 'bin/hakmem')
    library = os.path.join(usr, LIBDIR, 'libhakmem.so.0')
    self.assertEqual(run(command, 'version'),
                     f'hakmem {VERSION}\nlibrary {library}\n')
    self.assertEqual(run(command, 'run', 'printenv', 'LD_PRELOAD'),
                     library + '\n')
    for page in 'man1/hakmem.1.gz', 'man3/hakmem.3.gz':
      self.assertIn('.TH HAKMEM', run('zcat', f'{usr}/share/man/{page}'))


if __name__ == '__main__':
  unittest.main()
