"""Runs commands under allocators, interleaved, and collects what they cost.

Shared by compare and phases.
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time


# Taken once, before anybody changes the working directory.
_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))


def resolve_runfile(path):
  """The absolute path of a file of the build, given from the workspace's root.

  Works inside of Bazel's runfiles and, for a program that is started from the
  source tree, with what the last build left in bazel-bin.
  """
  for candidate in (os.path.join(_ROOT, path),
                    os.path.join(_ROOT, 'bazel-bin', path)):
    if os.path.isfile(candidate):
      return candidate
  return None


@dataclasses.dataclass(frozen=True)
class Allocator:
  name: str
  preload: str = ''  # the library; empty: what the program is linked with
  # If not empty: the command's program, linked with this allocator. It is run
  # in place of the one that the job names.
  program: str = ''
  # Set in the environment of the command: NAME=value each.
  variables: tuple = ()


@dataclasses.dataclass(frozen=True)
class Job:
  """A command that is run under allocators."""
  name: str
  command: tuple


@dataclasses.dataclass
class Run:
  """One execution of a command."""
  status: str  # 'ok', 'crash' or 'timeout'
  time_s: float = 0.0
  rss_kib: int = 0
  detail: str = ''  # of a failure, for people
  stdout: str = ''


@dataclasses.dataclass
class Cell:
  """All rounds of one job under one allocator."""
  job: str
  allocator: str
  status: str = 'ok'
  detail: str = ''
  time_s: list = dataclasses.field(default_factory=list)
  rss_kib: list = dataclasses.field(default_factory=list)
  outputs: list = dataclasses.field(default_factory=list)

  def add(self, run):
    if run.status != 'ok':
      self.status = run.status
      self.detail = run.detail
      return
    self.time_s.append(run.time_s)
    self.rss_kib.append(run.rss_kib)
    self.outputs.append(run.stdout)


class CannotRun(Exception):
  """The command is not there or is not a program: the user's mistake."""


def run_once(measure, command, allocator, timeout_s):
  """Runs `command` once and returns a Run."""
  read_end, write_end = os.pipe()
  arguments = [measure, str(write_end), str(timeout_s)]
  if allocator.preload:
    arguments.append('LD_PRELOAD=' + allocator.preload)
  arguments += allocator.variables
  with os.fdopen(read_end) as results:
    with subprocess.Popen(arguments + ['--', *command],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, pass_fds=[write_end],
                          text=True, errors='replace') as process:
      os.close(write_end)
      stdout, stderr = process.communicate()
    line = results.read()
  if not line:
    raise CannotRun(f'measure failed: {stderr.strip()}')
  figures = json.loads(line)
  if figures['exec_error']:
    raise CannotRun(f"{command[0]}: {os.strerror(figures['exec_error'])}")
  run = Run('ok', figures['wall_s'], figures['rss_kib'], stdout=stdout)
  if figures['timeout']:
    run.status, run.detail = 'timeout', f'not done after {timeout_s:g} s'
  elif figures['signal']:
    run.status = 'crash'
    run.detail = 'killed by ' + _signal_name(figures['signal'])
  elif figures['exit'] != 0:
    run.status, run.detail = 'crash', f"exit status {figures['exit']}"
  if run.status != 'ok' and stderr.strip():
    run.detail += ': ' + stderr.strip().splitlines()[-1]
  return run


def _signal_name(number):
  try:
    return signal.Signals(number).name
  except ValueError:
    return f'signal {number}'


def run_matrix(measure, pairs, rounds, timeout_s, progress):
  """Runs each (job, allocator) of `pairs` once a round; returns the cells.

  Rounds are the outer loop: a machine that slows down for a while then slows
  down everybody. Each round goes through the allocators from another starting
  point, so that none always runs after the same other one. A cell that failed
  is not run again; the others are.
  """
  cells = {(job.name, allocator.name): Cell(job.name, allocator.name)
           for job, allocator in pairs}
  by_job = {}
  for job, allocator in pairs:
    by_job.setdefault(job, []).append(allocator)
  progress.start(rounds * len(pairs))
  for round_number in range(rounds):
    for job, allocators in by_job.items():
      first = round_number % len(allocators)
      for allocator in allocators[first:] + allocators[:first]:
        cell = cells[job.name, allocator.name]
        progress.step(f'{job.name}, {allocator.name}')
        if cell.status == 'ok':
          command = job.command
          if allocator.program:
            command = (allocator.program, *command[1:])
          cell.add(run_once(measure, command, allocator, timeout_s))
  progress.finish()
  return cells


class Progress:
  """A bar on a terminal; nothing where nobody looks, such as in a log."""

  WIDTH = 30

  def __init__(self, stream=None, clock=time.monotonic):
    self._stream = sys.stderr if stream is None else stream
    self._clock = clock
    self._shown = self._stream.isatty()
    self._total = self._done = 0
    self._began = 0.0

  def start(self, total):
    self._total, self._done, self._began = total, 0, self._clock()

  def step(self, what):
    """Says that `what` begins now."""
    if self._shown:
      filled = self.WIDTH * self._done // max(1, self._total)
      bar = '█' * filled + '░' * (self.WIDTH - filled)
      text = f'{bar} {self._done}/{self._total} {self._left()} {what}'
      self._stream.write('\r\x1b[K' + text[:100])
      self._stream.flush()
    self._done += 1

  def finish(self):
    if self._shown:
      self._stream.write('\r\x1b[K')
      self._stream.flush()

  def _left(self):
    if self._done == 0:
      return ''
    passed = self._clock() - self._began
    left = round(passed / self._done * (self._total - self._done))
    return f'{left // 60}:{left % 60:02d} left'
