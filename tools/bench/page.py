"""Puts what was measured onto a page of the documentation."""

import re


def _marks(name):
  return f'<!-- {name}: begin -->', f'<!-- {name}: end -->'


def replace_table(page, name, table):
  """`page` with `table` between the two marks of that name."""
  begin, end = _marks(name)
  pattern = re.compile(re.escape(begin) + '.*?' + re.escape(end), re.DOTALL)
  if not pattern.search(page):
    raise ValueError(f'there is no {begin} … {end}')
  return pattern.sub(lambda _: f'{begin}\n{table}{end}', page, count=1)


def put_table(path, name, table):
  """Rewrites the page; with None for a table, only sees whether it could."""
  with open(path, encoding='utf-8') as old:
    page = replace_table(old.read(), name, table or '')
  if table is not None:
    with open(path, 'w', encoding='utf-8') as new:
      new.write(page)
