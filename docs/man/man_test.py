"""The manual pages: that they render, and that they say what there is.

Arguments: hakmem.1, hakmem.3, docs/options.md and hakmem.h.
"""

import re
import subprocess
import sys
import unittest

COMMAND_PAGE, LIBRARY_PAGE, OPTIONS_PAGE, HEADER = sys.argv[1:5]
del sys.argv[1:5]


def read(path):
  with open(path, encoding='utf-8') as file:
    return file.read()


def render(page):
  """The page as `man` shows it, and what groff has to say about it."""
  result = subprocess.run(
      ['groff', '-man', '-ww', '-rCHECKSTYLE=3', '-t', '-Tascii', '-P-cbou',
       '-rLL=78n', page], capture_output=True, text=True, check=True)
  return result.stdout, result.stderr


class ManTest(unittest.TestCase):

  def test_pages_render_without_a_warning(self):
    for page in COMMAND_PAGE, LIBRARY_PAGE:
      text, warnings = render(page)
      self.assertEqual(warnings, '')
      self.assertIn('SEE ALSO', text)
      self.assertRegex(text, r'hakmem \d+\.\d+\.\d+')
      self.assertNotIn('@', text)

  def test_the_command_page_has_every_option(self):
    text = re.sub(r'\s+', ' ', render(COMMAND_PAGE)[0])
    rows = re.findall(r'^\| `(HAKMEM_\w+)` \| \d+ \| (.*) \|$',
                      read(OPTIONS_PAGE), re.M)
    self.assertGreater(len(rows), 3)
    for name, meaning in rows:
      flag = '--' + name[len('HAKMEM_'):].lower()
      self.assertRegex(
          text, re.escape(flag) + rf'=\d+[KMGT]? \({name}, \w[^)]*\) ' +
          re.escape(meaning))

  def test_the_library_page_has_every_function(self):
    text = re.sub(r'\s+', ' ', render(LIBRARY_PAGE)[0])
    header = re.sub(r'//.*', '', read(HEADER))
    prototypes = re.findall(r'^[\w ]+[\w*] \*?hak_\w+\([^;]*\);', header, re.M)
    self.assertGreaterEqual(len(prototypes), 10)
    for prototype in prototypes:
      shown = re.sub(r'\s+', ' ', prototype).replace('* ', ' *')
      self.assertIn(shown, text)


if __name__ == '__main__':
  unittest.main()
