"""Finds the allocators of this machine."""

import dataclasses
import glob
import os
import re

import running

# Name, what its library is called, and the Debian package that has it.
PEERS = (
    ('mimalloc', 'libmimalloc.so.2*', 'libmimalloc2.0'),
    ('jemalloc', 'libjemalloc.so.2', 'libjemalloc2'),
    ('tcmalloc', 'libtcmalloc_minimal.so.4', 'libtcmalloc-minimal4'),
    ('tbb', 'libtbbmalloc_proxy.so.2', 'libtbbmalloc2'),
)

LIBC = running.Allocator('libc')

LIBRARY_FOLDERS = ('/usr/local/lib', '/usr/lib/*-linux-gnu', '/usr/lib64',
                   '/usr/lib')


class BadAllocator(Exception):
  """What the user named is not an allocator."""


def find_peers(folders=LIBRARY_FOLDERS):
  """Returns the installed peers, and a line about each that is missing."""
  found, missing = [], []
  for name, pattern, package in PEERS:
    paths = [path for folder in folders
             for path in sorted(glob.glob(os.path.join(folder, pattern)))]
    if paths:
      found.append(running.Allocator(name, paths[0]))
    else:
      missing.append(f'{name} is not installed (Debian package {package}); '
                     'skipped')
  return found, missing


def parse_named(argument, known=None):
  """Turns name=path.so[,VARIABLE=value...] into an Allocator.

  In place of the path the name of one of `known` may stand, a dictionary of
  Allocators.
  """
  name, _, rest = argument.partition('=')
  # A comma that no variable follows is part of the path, or of a value.
  path, *variables = re.split(r',(?=[A-Za-z_]\w*=)', rest)
  if not re.fullmatch(r'[\w.+-]+', name) or not path:
    raise BadAllocator(f"'{argument}' is not of the form "
                       'name=path.so[,VARIABLE=value...]')
  if known and path in known:
    return dataclasses.replace(known[path], name=name,
                               variables=tuple(variables))
  path = os.path.abspath(path)
  try:
    with open(path, 'rb') as library:
      magic = library.read(4)
  except OSError as error:
    raise BadAllocator(f'{name}: {path}: {error.strerror}') from error
  # The loader only warns of what it cannot preload and then runs the program
  # without it: the C library would be measured under another name.
  if magic != b'\x7fELF':
    raise BadAllocator(f'{name}: {path}: not a shared library')
  # It would also split the name there.
  if re.search(r'[\s:]', path):
    raise BadAllocator(f'{name}: {path}: LD_PRELOAD cannot name a path with '
                       'spaces or colons')
  return running.Allocator(name, path, variables=tuple(variables))


def find_all(named=(), only=(), hakmem=None):
  """The allocators to run, and lines about those that are not there.

  `named` are what parse_named() takes; one of them takes the place of a found
  allocator of the same name. `only`, if not empty, picks by name. `hakmem` is
  the path of hakmem's library, or None.
  """
  peers, notes = find_peers()
  found = {allocator.name: allocator for allocator in [LIBC, *peers]}
  given = {}
  if hakmem:
    given['hakmem'] = running.Allocator('hakmem', hakmem)
  else:
    notes.append('hakmem: libhakmem.so is not built; skipped')
  for argument in named:
    allocator = parse_named(argument, {**found, **given})
    given[allocator.name] = allocator
  # The user's own come first: the first column is what is looked at.
  everything = {**given, **{name: allocator for name, allocator in found.items()
                            if name not in given}}
  if only:
    known = set(everything) | {peer[0] for peer in PEERS} | {'hakmem'}
    unknown = [name for name in only if name not in known]
    if unknown:
      raise BadAllocator(f"there is no allocator '{unknown[0]}'; known are "
                         + ', '.join(sorted(known)))
    everything = {name: allocator for name, allocator in everything.items()
                  if name in only}
    notes = [note for note in notes
             if re.match(r'\w+', note).group() in only]
  notes = [note for note in notes
           if re.match(r'\w+', note).group() not in everything]
  return list(everything.values()), notes
