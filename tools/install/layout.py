"""What an installation consists of, once it is known where it goes."""

import dataclasses
import os
import posixpath

# In the tree, and on most systems; other places for the libraries are said.
LIB = 'lib'


@dataclasses.dataclass(frozen=True)
class Entry:
  """A file or a symbolic link."""
  path: str  # below the prefix
  content: bytes = b''
  mode: int = 0o644
  link: str = ''  # what the link says; empty for a file


def _place(path, libdir):
  """Where a path of the tree goes when the libraries go to `libdir`."""
  if path.startswith(LIB + '/'):
    return libdir + path[len(LIB):]
  return path


def _escape(path):
  """A path as pkg-config reads it."""
  return ''.join('\\' + c if c in ' \\"\'#$' else c for c in path)


def _fill_in(content, path, prefix, libdir):
  for name, value in [
      (b'@prefix@', _escape(prefix)),
      (b'@libdir@', libdir),
      (b'@to_prefix@', posixpath.relpath('.', posixpath.dirname(path)))]:
    content = content.replace(name, value.encode())
  return content


def entries(tree, prefix, libdir=LIB):
  """Reads the folder that install_tree() made.

  Args:
    tree: path of the folder.
    prefix: absolute path that programs will find the files under.
    libdir: where the libraries go, below the prefix.

  Returns:
    A list of Entry, sorted by path.
  """
  found = []
  for folder, _, names in os.walk(tree):
    for name in names:
      source = os.path.join(folder, name)
      path = os.path.relpath(source, tree)
      with open(source, 'rb') as file:
        content = file.read()
      if path == 'links':
        found += [Entry(_place(link, libdir), link=target)
                  for link, target in map(str.split,
                                          content.decode().splitlines())]
        continue
      path = _place(path, libdir)
      if path.endswith('.in'):
        path = path[:-len('.in')]
        content = _fill_in(content, path, prefix, libdir)
      mode = 0o755 if path.startswith('bin/') else 0o644
      found.append(Entry(path, content, mode))
  return sorted(found, key=lambda entry: entry.path)
