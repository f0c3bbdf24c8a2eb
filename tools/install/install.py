"""Installs hakmem below a prefix, or takes it away again.

Beside the files goes a record of them: what is removed or replaced later is
what the record names, and only while it is as it was put there.
"""

import argparse
import hashlib
import json
import os
import sys

import layout

RECORD = 'share/doc/hakmem/installed.json'


class Refused(Exception):
  """Going on would take away what is not ours."""


def _digest(content):
  return 'sha256:' + hashlib.sha256(content).hexdigest()


def _digest_of_entry(entry):
  return 'link:' + entry.link if entry.link else _digest(entry.content)


def _digest_of_path(path):
  """Of what is at `path`; None if nothing is, '' if it is no file or link."""
  if os.path.islink(path):
    return 'link:' + os.readlink(path)
  if not os.path.lexists(path):
    return None
  if not os.path.isfile(path):
    return ''
  with open(path, 'rb') as file:
    return _digest(file.read())


def _replace(path, write):
  """Puts what write(path) makes at `path`, in one step."""
  scratch = f'{path}.{os.getpid()}'
  try:
    write(scratch)
    os.rename(scratch, path)
  except OSError as error:
    if os.path.lexists(scratch):
      os.unlink(scratch)
    # What the user knows is the name without the number.
    raise OSError(error.errno, error.strerror, path) from error


def _write_file(path, content, mode):
  def write(scratch):
    with open(scratch, 'xb') as file:
      file.write(content)
      os.fchmod(file.fileno(), mode)  # whatever the umask
  _replace(path, write)


class Installation:
  """What is, or will be, below one prefix.

  The record is a JSON object: `files` has each path below the prefix with the
  digests of what we may find there, and `folders` lists the folders that were
  not there before us.
  """

  def __init__(self, root):
    self._root = root
    self._files = {}
    self._folders = []
    self.is_there = os.path.lexists(self._full(RECORD))
    if self.is_there:
      with open(self._full(RECORD), encoding='utf-8') as file:
        try:
          record = json.load(file)
          self._files = dict(record['files'])
          self._folders = list(record['folders'])
        except (ValueError, KeyError, TypeError) as error:
          raise Refused(f'{self._full(RECORD)} is not a record that this '
                        'command wrote') from error

  def _full(self, path):
    return os.path.join(self._root, path) if path else self._root

  def _write_record(self):
    text = json.dumps({'files': self._files, 'folders': self._folders},
                      indent=1, sort_keys=True)
    _write_file(self._full(RECORD), text.encode() + b'\n', 0o644)

  def _check(self, entry):
    """Refuses what is at the place of `entry` and was not put there by us."""
    path = self._full(entry.path)
    there = _digest_of_path(path)
    if there is None or there in self._files.get(entry.path, []):
      return
    if there == '':
      raise Refused(f'{path} is there and is no file')
    if entry.path in self._files:
      raise Refused(f'{path} was changed since it was installed; move it away')
    raise Refused(f'{path} is there and was not installed by this command; '
                  'move it away')

  def _make_folders(self, paths):
    folders = set()
    for path in paths:
      folder = os.path.dirname(path)
      while folder:
        folders.add(folder)
        folder = os.path.dirname(folder)
    # '' is the prefix itself.
    missing = [folder for folder in ['', *sorted(folders)]
               if not os.path.isdir(self._full(folder))]
    self._folders = sorted({*self._folders, *missing})
    for folder in missing:
      os.makedirs(self._full(folder))
      os.chmod(self._full(folder), 0o755)

  def install(self, entries):
    for entry in entries:
      self._check(entry)
    self._make_folders([RECORD, *(entry.path for entry in entries)])
    # While files are being replaced, either version may be found.
    before = self._files
    now = {entry.path: [_digest_of_entry(entry)] for entry in entries}
    self._files = {path: before.get(path, []) + now.get(path, [])
                   for path in {**before, **now}}
    self._write_record()
    for entry in entries:
      path = self._full(entry.path)
      if entry.link:
        _replace(path, lambda scratch, link=entry.link:
                 os.symlink(link, scratch))
      else:
        _write_file(path, entry.content, entry.mode)
    for path in sorted(set(before) - set(now)):
      self._remove(path, before[path])
    self._files = now
    self._write_record()

  def _remove(self, path, digests):
    full = self._full(path)
    there = _digest_of_path(full)
    if there in digests:
      os.unlink(full)
    elif there is not None:
      print(f'install: left {full}, which was changed since it was installed',
            file=sys.stderr)

  def uninstall(self):
    for path, digests in sorted(self._files.items()):
      self._remove(path, digests)
    os.unlink(self._full(RECORD))
    for folder in sorted(self._folders, reverse=True):
      full = self._full(folder)
      if os.path.isdir(full) and not os.listdir(full):
        os.rmdir(full)


def _absolute(text):
  if not os.path.isabs(text):
    raise argparse.ArgumentTypeError(f"'{text}' is not an absolute path")
  return os.path.normpath(text)


def _from_where_the_user_is(text):
  # Bazel starts programs in a folder of its own.
  return os.path.abspath(
      os.path.join(os.environ.get('BUILD_WORKING_DIRECTORY', '.'), text))


class _Parser(argparse.ArgumentParser):

  def error(self, message):
    self.exit(2, f'install: {message}\n')


def _parse(arguments):
  parser = _Parser(prog='install', allow_abbrev=False, description=
                   'Installs hakmem: the libraries, headers, the command '
                   'hakmem, manual pages, files for pkg-config and CMake.')
  parser.add_argument('--prefix', type=_absolute, default='/usr/local',
                      help='where programs will find it (default: %(default)s)')
  parser.add_argument('--destdir', type=_from_where_the_user_is,
                      help='folder to put in front of the prefix, for packages')
  parser.add_argument('--uninstall', action='store_true',
                      help='remove what was installed there')
  return parser.parse_args(arguments)


def main(arguments):
  options = _parse(arguments)
  root = (options.destdir or '') + options.prefix
  try:
    installation = Installation(root)
    if options.uninstall:
      if not installation.is_there:
        raise Refused(f'nothing to remove: hakmem is not installed in {root}')
      installation.uninstall()
      print(f'Removed hakmem from {root}.')
      return 0
    tree = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'tree')
    installation.install(layout.entries(tree, options.prefix))
  except Refused as error:
    print(f'install: {error}', file=sys.stderr)
    return 1
  except OSError as error:
    verb = 'remove' if options.uninstall else 'write'
    print(f'install: cannot {verb} {error.filename}: {error.strerror}',
          file=sys.stderr)
    return 1
  print(f'Installed hakmem in {root}.')
  if not options.destdir:
    print('Programs that are linked with it find it after `ldconfig`, if '
          f'{options.prefix}/lib is a folder that the loader knows.')
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
