"""git on a large repository: packing, checking, cloning and reading history."""

import os
import unittest

from tools.programs import program_case

FILES = 6000
COMMITS = 150
CHANGES = 80

# Everything that prints is the same on every run; how it is packed need not be,
# since several threads look for deltas.
COMMANDS = '''
export GIT_CONFIG_NOSYSTEM=1 GIT_PROGRESS_DELAY=1000000
git init -q -b main .
git config pack.threads 4
git config gc.auto 0
git fast-import --quiet <"$STREAM"
git checkout -q -f main
git count-objects | cut -d, -f1 | cut -d' ' -f2
git repack -q -a -d -f --window=30 --depth=30
git fsck --full --strict 2>&1
git rev-parse HEAD HEAD^{tree}
git log --stat --format='%H %s' | cksum
git log -p -S'line 7 of 3' --format=%H -- d1 | cksum
git blame d3/f123.txt | cksum
git diff --find-renames --find-copies-harder HEAD~40 HEAD | cksum
git grep -c -e 'line 9' HEAD | cksum
git clone -q --no-local . copy 2>&1
git -C copy fsck 2>&1
git -C copy rev-parse HEAD
git -C copy status --short
git checkout -q HEAD~60
git merge -q --no-edit main
git rev-parse HEAD
git archive HEAD | sha256sum
git gc -q --prune=now
git bundle create -q all.bundle --all
git bundle verify -q all.bundle 2>&1
'''


def stream():
  """The history as git fast-import reads it."""
  out = []

  def data(text):
    out.append(f'data {len(text.encode())}\n{text}\n')

  def content(number, version):
    lines = [f'line {n} of {number}' for n in range(number % 90 + 3)]
    lines[version % len(lines)] += f' in version {version}'
    return '\n'.join(lines) + '\n'

  for commit in range(COMMITS):
    out.append('commit refs/heads/main\n')
    when = 1700000000 + commit * 60
    out.append(f'committer A Name <a@example.com> {when} +0000\n')
    data(f'commit {commit}')
    changed = (range(FILES) if commit == 0 else
               ((commit * 101 + n * 977) % FILES for n in range(CHANGES)))
    for number in changed:
      out.append(f'M 100644 inline d{number % 40}/f{number}.txt\n')
      data(content(number, commit))
    if commit % 10 == 9:
      number = commit + 400
      out.append(f'R d{number % 40}/f{number}.txt moved/{commit}.txt\n')
  return ''.join(out)


class GitTest(program_case.ProgramCase):

  PROGRAMS = {'/usr/bin/git': 'git'}

  def test_large_repository(self):
    self.check_in_use(['git', '--version'])
    path = os.path.join(self.scratch, 'stream')
    with open(path, 'w') as file:
      file.write(stream())
    self.check('git', ['sh', '-ec', f'STREAM={path}\n{COMMANDS}'])


if __name__ == '__main__':
  unittest.main()
