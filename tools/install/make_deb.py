"""Makes the Debian package from the tree of an installation.

The same inputs give the same package, byte by byte: dpkg-deb sorts what it
packs, and all that it would take from the clock or the user is said here.
"""

import argparse
import calendar
import gzip
import hashlib
import os
import re
import subprocess
import tempfile
import time

import layout

LIBDIR = 'lib/x86_64-linux-gnu'


def _debian_entries(tree):
  """The files of the package: as installed, but as Debian wants them."""
  for entry in layout.entries(tree, '/usr', LIBDIR):
    if entry.path.endswith('/LICENSE'):
      continue  # `copyright` says where Debian has it
    if entry.path.startswith('share/man/'):
      packed = gzip.compress(entry.content, mtime=0)
      yield layout.Entry(entry.path + '.gz', packed)
    else:
      yield entry


def _needed_glibc(contents):
  """The newest version of the C library that one of the programs asks for."""
  newest = (0,)
  for content in contents:
    if not content.startswith(b'\x7fELF'):
      continue
    for version in re.findall(rb'\0GLIBC_(\d+(?:\.\d+)+)(?=\0)', content):
      newest = max(newest, tuple(map(int, version.split(b'.'))))
  return '.'.join(map(str, newest))


def _write(path, content, mode=0o644):
  os.makedirs(os.path.dirname(path), exist_ok=True)
  with open(path, 'wb') as file:
    file.write(content)
    os.fchmod(file.fileno(), mode)


def _read(path):
  with open(path, 'rb') as file:
    return file.read()


def main():
  parser = argparse.ArgumentParser()
  for name in 'tree', 'control', 'copyright', 'version', 'released', 'output':
    parser.add_argument('--' + name, required=True)
  options = parser.parse_args()

  entries = list(_debian_entries(options.tree))
  entries.append(layout.Entry('share/doc/hakmem/copyright',
                              _read(options.copyright)))
  size = sum(len(entry.content) for entry in entries)
  control = _read(options.control).decode()
  for name, value in [
      ('@version@', options.version),
      ('@installed_size@', str(-(-size // 1024))),
      ('@glibc@', _needed_glibc(entry.content for entry in entries))]:
    control = control.replace(name, value)
  soname = next(entry.path for entry in entries
                if re.search(r'\.so\.\d+$', entry.path))
  major = soname.rpartition('.')[2]

  os.umask(0o022)
  with tempfile.TemporaryDirectory() as stage:
    os.chmod(stage, 0o755)
    sums = ''
    for entry in sorted(entries, key=lambda entry: entry.path):
      path = os.path.join(stage, 'usr', entry.path)
      if entry.link:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.symlink(entry.link, path)
        continue
      _write(path, entry.content, entry.mode)
      sums += (hashlib.md5(entry.content, usedforsecurity=False).hexdigest() +
               f'  usr/{entry.path}\n')
    for name, content in [
        ('control', control),
        ('md5sums', sums),
        # For packages that are built against it.
        ('shlibs', f'libhakmem {major} hakmem (>= {options.version})\n'),
        ('triggers', 'activate-noawait ldconfig\n')]:
      _write(os.path.join(stage, 'DEBIAN', name), content.encode())
    released = calendar.timegm(time.strptime(options.released, '%Y-%m-%d'))
    subprocess.run(
        ['dpkg-deb', '--root-owner-group', '-Zxz', '--threads-max=1', '--build',
         stage, options.output],
        check=True, stdout=subprocess.DEVNULL,
        env=dict(os.environ, SOURCE_DATE_EPOCH=str(released)))


if __name__ == '__main__':
  main()
