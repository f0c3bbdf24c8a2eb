"""compare's page: charts as inline SVG, no network, light and dark."""

import datetime
import html
import os
import platform

import running
import table as tables

# One colour an allocator, for light and for dark; the C library, which is what
# everybody has anyway, is grey. Told apart by people who see few colours too,
# and every bar is labelled besides.
GREY = ('#7d7c78', '#96958f')
COLOURS = (('#2a78d6', '#3987e5'), ('#eb6834', '#d95926'),
           ('#1baf7a', '#199e70'), ('#eda100', '#c98500'),
           ('#e87ba4', '#d55181'), ('#4a3aa7', '#9085e9'),
           ('#008300', '#0a9a0a'), ('#e34948', '#e66767'))

# The widths of a chart, in units of its own; it scales with the page.
WIDTH = 480
LABEL = 78
VALUE = 128
LINE = 24
BAR = 12
# A bar longer than so many times the best is cut, or it would press the others
# of its chart into a sliver.
LONGEST = 4.0

STYLE = """
:root { --page: #f9f9f7; --card: #fff; --ink: #16150f; --muted: #6b6a64;
  --line: #e4e3dd; --bad: #b3261e; %(light)s }
@media (prefers-color-scheme: dark) { :root { --page: #0f0f0e; --card: #1a1a19;
  --ink: #f4f3ee; --muted: #a09f97; --line: #32312e; --bad: #ff8a80; %(dark)s } }
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif }
main { max-width: 1120px; margin: 0 auto; padding: 32px 20px 64px }
h1 { font-size: 26px; margin: 0 0 4px; letter-spacing: -.01em }
h2 { font-size: 16px; margin: 0 }
p { margin: 4px 0; color: var(--muted); max-width: 72ch }
.legend { position: sticky; top: 0; background: var(--page); z-index: 1;
  display: flex; flex-wrap: wrap; gap: 4px 18px; padding: 12px 0;
  border-bottom: 1px solid var(--line); margin-bottom: 20px }
.legend span { display: inline-flex; align-items: center; gap: 7px }
.legend i { width: 12px; height: 12px; border-radius: 3px }
section { background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; padding: 16px 20px 12px; margin: 0 0 14px }
.charts { display: grid; grid-template-columns: 1fr 1fr; gap: 4px 36px }
.charts h3 { font-size: 12px; font-weight: 600; color: var(--muted);
  margin: 8px 0 2px }
@media (max-width: 760px) { .charts { grid-template-columns: 1fr } }
svg { display: block; width: 100%%; height: auto; overflow: visible }
svg text { font: 12.5px system-ui, -apple-system, "Segoe UI", sans-serif;
  fill: var(--ink); font-variant-numeric: tabular-nums }
svg .muted { fill: var(--muted) }
svg .best { font-weight: 650 }
svg .failed { fill: var(--bad); font-weight: 600 }
svg .axis { stroke: var(--line) }
svg .spread { stroke: var(--ink); stroke-width: 1.4; opacity: .75 }
svg .round { fill: var(--card); stroke: var(--ink); stroke-width: 1;
  opacity: .8 }
footer { margin-top: 24px }
"""


def _colours(names):
  free = list(COLOURS)
  chosen = {}
  for name in names:
    # More allocators than colours: start over; the labels tell them apart.
    chosen[name] = GREY if name == 'libc' else free.pop(0)
    free = free or list(COLOURS)
  return chosen


def _style(names):
  colours = _colours(names)
  return STYLE % {
      theme: ' '.join(f'--c{i}: {colours[name][which]};'
                      for i, name in enumerate(names))
      for which, theme in enumerate(('light', 'dark'))
  }


def _bar(y, colour, length, cut, title):
  """A bar with a rounded end, or a notch where it was cut."""
  top, bottom, middle = y - BAR / 2, y + BAR / 2, y
  end = LABEL + max(length, 1)
  if cut:
    shape = (f'M{LABEL} {top} H{end - 5:.1f} L{end:.1f} {middle} '
             f'L{end - 5:.1f} {bottom} H{LABEL} Z')
  else:
    r = min(4, max(length, 1) / 2)
    shape = (f'M{LABEL} {top} H{end - r:.1f} q{r:.1f} 0 {r:.1f} {r:.1f} '
             f'V{bottom - r:.1f} q0 {r:.1f} {-r:.1f} {r:.1f} H{LABEL} Z')
  return (f'<path d="{shape}" fill="var(--c{colour})">'
          f'<title>{html.escape(title)}</title></path>')


def _spread(y, values, scale, room):
  """A line from the least to the greatest round, and a dot for each."""
  points = [LABEL + min(value * scale, room) for value in values]
  marks = [f'<line class="spread" x1="{min(points):.1f}" '
           f'x2="{max(points):.1f}" y1="{y}" y2="{y}"/>']
  marks += [f'<circle class="round" cx="{x:.1f}" cy="{y}" r="2.2"/>'
            for x in points]
  return ''.join(marks)


def _chart(label, names, cells, entries, unit, with_ratio=True):
  """One figure of one row, a bar an allocator."""
  room = WIDTH - LABEL - VALUE
  best = min((entry.median for entry in entries.values()), default=1) or 1e-9
  greatest = max((max(entry.values) for entry in entries.values()), default=1)
  longest = min(greatest, LONGEST * best) or 1e-9
  scale = room / longest
  height = LINE * len(names)
  parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" '
           f'aria-label="{html.escape(label)}">',
           f'<line class="axis" x1="{LABEL}" x2="{LABEL}" y1="0" '
           f'y2="{height}"/>']
  for index, name in enumerate(names):
    y = LINE * index + LINE / 2
    parts.append(f'<text x="{LABEL - 8}" y="{y + 4.5}" text-anchor="end" '
                 f'class="muted">{html.escape(name[:11])}</text>')
    entry = entries.get(name)
    if entry is None:
      cell = cells.get(name)
      status, detail = (cell.status, cell.detail) if cell else ('not run', '')
      parts.append(f'<text x="{LABEL + 8}" y="{y + 4.5}" class="failed">'
                   f'{html.escape(status)}<title>{html.escape(detail)}</title>'
                   '</text>')
      continue
    cut = entry.median > longest * 1.0001
    title = (f'{name}: median {unit(entry.median)}, '
             f'{unit(min(entry.values))} to {unit(max(entry.values))} '
             f'in {len(entry.values)} rounds')
    parts.append(_bar(y, index, min(entry.median, longest) * scale, cut, title))
    if not cut and len(entry.values) > 1:
      parts.append(_spread(y, entry.values, scale, room))
    ratio = f' · {entry.ratio:.2f}×' if with_ratio else ''
    noise = ' ~' if entry.noise else ''
    style = ' class="best"' if entry.best else ''
    parts.append(f'<text x="{WIDTH}" y="{y + 4.5}" text-anchor="end"{style}>'
                 f'{unit(entry.median)}{ratio}{noise}</text>')
  return ''.join(parts) + '</svg>'


def _mean_chart(label, names, mean):
  """The geometric means, as bars."""
  values = {name: value for name, value in mean.items() if value is not None}
  least = min(values.values(), default=1)
  entries = {name: tables.Entry([value], value, value / least, False,
                                value == least)
             for name, value in values.items()}
  failed = {name: running.Cell('', name, 'failed in a workload')
            for name in names if name not in values}
  # What is shown is a ratio already: no ratio of ratios behind it.
  return _chart(label, names, failed, entries, '{:.2f}×'.format, with_ratio=False)


def make_page(result, rounds):
  """The page as one string. `result` is a table.Table."""
  names = result.allocators
  parts = [
      '<!doctype html><html lang="en"><meta charset="utf-8">',
      '<meta name="viewport" content="width=device-width, initial-scale=1">',
      '<title>Allocators compared</title>',
      f'<style>{_style(names)}</style><main>',
      '<h1>Allocators compared</h1>',
      f'<p>{len(result.rows)} workload{"s" if len(result.rows) != 1 else ""}, '
      f'{rounds} interleaved round{"s" if rounds != 1 else ""}, '
      f'{os.cpu_count()} cores, {html.escape(platform.platform())}, '
      f'{datetime.datetime.now():%Y-%m-%d %H:%M}. Shorter is better '
      'everywhere.</p><div class="legend">',
  ]
  parts += [f'<span><i style="background:var(--c{i})"></i>'
            f'{html.escape(name)}</span>' for i, name in enumerate(names)]
  parts.append('</div>')
  if len(result.rows) > 1:
    parts += ['<section><h2>All workloads</h2><div class="charts">',
              '<div><h3>Time to the best of each row, geometric mean</h3>',
              _mean_chart('Mean time', names, result.time_mean),
              '</div><div><h3>Peak memory to the least of each row, geometric '
              'mean</h3>', _mean_chart('Mean memory', names, result.rss_mean),
              '</div></div></section>']
  for row in result.rows:
    parts += [f'<section><h2>{html.escape(row.job)}</h2><div class="charts">',
              '<div><h3>Time</h3>',
              _chart(f'Time, {row.job}', names, row.cells, row.time,
                     tables.format_seconds),
              '</div><div><h3>Peak resident memory</h3>',
              _chart(f'Peak memory, {row.job}', names, row.cells, row.rss,
                     tables.format_kib),
              '</div></div></section>']
  parts.append(
      '<footer><p>A bar is the median of the rounds; a dot is one round, and '
      'the line joins the least and the greatest. The number behind it is the '
      'ratio to the best of the row. ~ marks a difference that is within the '
      f'noise of the rounds. A bar with a point was cut at {LONGEST:g} times '
      'the best. A crash or a timeout has no bar.</p></footer></main></html>\n')
  return ''.join(parts)
