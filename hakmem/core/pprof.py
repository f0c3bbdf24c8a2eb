"""Reads a profile as pprof does: gzip over Protocol Buffers.

https://github.com/google/pprof/blob/main/proto/profile.proto has the numbers of
the fields.
"""

import dataclasses
import gzip


@dataclasses.dataclass
class Mapping:
  start: int
  end: int
  offset: int
  path: str
  build_id: str


@dataclasses.dataclass
class Profile:
  """What a profile says, with numbers of strings and locations resolved."""
  types: list  # (type, unit) of each value
  samples: list  # (addresses, innermost first; values)
  mappings: dict  # by id
  mapping_of: dict  # id of the mapping by address
  period: int
  period_type: tuple
  time_nanos: int
  duration_nanos: int
  default_type: str

  def total(self, name):
    """The sum of the values of the type that is called `name`."""
    index = [kind for kind, _ in self.types].index(name)
    return sum(values[index] for _, values in self.samples)


def _varint(data, at):
  value = shift = 0
  while True:
    byte = data[at]
    at += 1
    value |= (byte & 0x7f) << shift
    shift += 7
    if byte < 0x80:
      return value, at


def _fields(data):
  """(number, value) of each field: a number, or bytes."""
  at = 0
  while at < len(data):
    key, at = _varint(data, at)
    if key & 7 == 0:
      value, at = _varint(data, at)
    elif key & 7 == 2:
      size, at = _varint(data, at)
      value = data[at:at + size]
      if len(value) != size:
        raise ValueError('cut')
      at += size
    else:
      raise ValueError(f'wire type {key & 7}')
    yield key >> 3, value


def _packed(data):
  numbers = []
  at = 0
  while at < len(data):
    value, at = _varint(data, at)
    numbers.append(value)
  return numbers


def decode(compressed):
  """The Profile in the bytes of a file; ValueError or OSError for a bad one."""
  all_fields = list(_fields(gzip.decompress(compressed)))
  strings = [value.decode() for number, value in all_fields if number == 6]
  if not strings or strings[0] != '':
    raise ValueError('the first string is not empty')
  single = {number: value for number, value in all_fields
            if number in (9, 10, 11, 12, 14)}

  def named(data):
    fields = dict(_fields(data))
    return strings[fields[1]], strings[fields[2]]

  mappings = {}
  locations = {}
  for number, value in all_fields:
    if number not in (3, 4):
      continue
    fields = dict(_fields(value))
    table = mappings if number == 3 else locations
    if fields.get(1, 0) == 0 or fields[1] in table:
      raise ValueError('an id that is 0 or twice there')
    if number == 3:
      table[fields[1]] = Mapping(fields[2], fields[3], fields.get(4, 0),
                                 strings[fields.get(5, 0)],
                                 strings[fields.get(6, 0)])
    else:
      table[fields[1]] = (fields[3], fields.get(2, 0))
  types = [named(value) for number, value in all_fields if number == 1]
  samples = []
  for number, value in all_fields:
    if number != 2:
      continue
    fields = dict(_fields(value))
    values = _packed(fields[2])
    if len(values) != len(types):
      raise ValueError('not a value of each type')
    samples.append(([locations[id][0] for id in _packed(fields[1])], values))
  for _, mapping in locations.values():
    if mapping != 0 and mapping not in mappings:
      raise ValueError('no such mapping')
  return Profile(
      types=types, samples=samples, mappings=mappings,
      mapping_of=dict(locations.values()), period=single.get(12, 0),
      period_type=named(single[11]), time_nanos=single.get(9, 0),
      duration_nanos=single.get(10, 0), default_type=strings[single[14]])


def read(path):
  with open(path, 'rb') as file:
    return decode(file.read())
