// Draws the report from the data in the page: see report_page.cc for what its
// members mean. Text of the recording goes into the page as text only, never
// as markup.
'use strict';

const data = JSON.parse(document.getElementById('data').textContent);
const byId = (id) => document.getElementById(id);
const SVG = 'http://www.w3.org/2000/svg';

function element(name, properties = {}, ...children) {
  const node = document.createElement(name);
  Object.assign(node, properties);
  node.append(...children);
  return node;
}

function shape(name, attributes = {}, text = '') {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) {
    node.setAttribute(key, value);
  }
  node.textContent = text;
  return node;
}

// Figures, as the rest of hakmem writes them.
function bytes(value) {
  const sign = value < 0 ? '−' : '';
  value = Math.abs(value);
  if (value < 1000) return `${sign}${Math.round(value)} B`;
  let unit = '';
  for (const next of ['KiB', 'MiB', 'GiB', 'TiB', 'PiB']) {
    if (unit && value < 999.5) break;
    value /= 1024;
    unit = next;
  }
  const digits = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
  return `${sign}${value.toFixed(digits)} ${unit}`;
}
const growth = (value) => (value > 0 ? '+' : '') + bytes(value);
const count = (value) => value.toLocaleString('en-US');

function duration(ms) {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60000) return `${+(ms / 1000).toFixed(ms < 10000 ? 1 : 0)} s`;
  const s = Math.round(ms / 1000);
  const two = (n) => String(n).padStart(2, '0');
  const hours = Math.floor(s / 3600);
  const minutes = Math.floor(s / 60) % 60;
  return hours ? `${hours}:${two(minutes)}:${two(s % 60)} h`
               : `${minutes}:${two(s % 60)} min`;
}

// ---- the tip beside the pointer

const tip = byId('tip');
function showTip(event, ...content) {
  tip.replaceChildren(...content);
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  const right = event.clientX + 16 + box.width < innerWidth - 8;
  tip.style.left =
      `${Math.max(8, right ? event.clientX + 16 : event.clientX - 16 - box.width)}px`;
  tip.style.top = `${Math.max(
      8, Math.min(event.clientY + 16, innerHeight - box.height - 8))}px`;
}
const hideTip = () => { tip.hidden = true; };

// ---- the header

function showHeader() {
  const last = data.t.length - 1;
  const program = (data.command[0] || '').split('/').pop();
  byId('program').textContent = program || `process ${data.pid}`;
  byId('command').textContent = data.command.join(' ');
  const when = new Date(data.started);
  const about = [`process ${data.pid}`];
  if (data.stage) about.push(`hakmem ${data.hakmem}, ${data.stage}`);
  about.push(`recorded ${when.toLocaleString()} for ` +
             duration(data.t[last] - data.t[0]));
  if (data.end) about.push(data.end);
  byId('about').textContent = about.join(' · ');
  if (data.cut) {
    byId('warning').textContent =
        'The recording was cut off; this is what it has up to there.';
    byId('warning').hidden = false;
  }
  const most = data.rss.reduce((a, b) => Math.max(a, b), 0);
  const growing = data.sites.filter((site) => site.grows).length;
  const tiles = [
    ['Resident at the end', bytes(data.rss[last]), `at most ${bytes(most)}`],
    ['Live at the end', bytes(data.live[last]),
     `${growth(data.live[last] - data.live[0])} since the start`],
    ['Caches and free', bytes(data.cached[last] + data.partial[last] +
                              data.free[last]), 'at the end, reusable'],
  ];
  if (data.sites.length) {
    const live = data.sites.reduce((sum, site) => sum + site.live, 0);
    tiles.push(['Live in sites', bytes(live),
                `${count(data.siteCount)} site${data.siteCount === 1 ? '' : 's'}`]);
    tiles.push(['Sites that only grow', count(growing),
                growing ? 'marked below' : 'none found']);
  }
  for (const [name, value, note] of tiles) {
    byId('tiles').append(element(
        'div', {}, element('dt', {textContent: name}),
        element('dd', {}, value, element('small', {textContent: note}))));
  }
  byId('foot').textContent =
      `${count(data.moments)} snapshots, one every ${duration(data.interval)}` +
      (data.moments > data.t.length
           ? `; of them the charts show ${count(data.t.length)}`
           : '') +
      '. A site is marked as one that only grows where its live bytes never ' +
      'fell by more than what threads count late, rose in each quarter of the ' +
      'recording, and rose by at least 64 KiB and 1 % of what all sites hold.';
}

// ---- charts over time

// Ticks at multiples of 1, 2 or 5 (or of powers of two, for bytes).
function ticks(most, wanted, binary) {
  if (most <= 0) return [0];
  let step;
  if (binary) {
    step = 2 ** Math.ceil(Math.log2(most / wanted));
  } else {
    const power = 10 ** Math.floor(Math.log10(most / wanted));
    step = [1, 2, 5, 10].map((f) => f * power).find((s) => most / s <= wanted);
  }
  const all = [];
  for (let at = 0; at <= most * 1.0001; at += step) all.push(at);
  return all;
}

function timeTicks(span, wanted) {
  const steps = [10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 15000,
                 30000, 60000, 120000, 300000, 600000, 1800000, 3600000,
                 7200000, 21600000, 86400000];
  const step = steps.find((s) => span / s <= wanted) || 604800000;
  const all = [];
  for (let at = 0; at <= span; at += step) all.push(at);
  return all;
}

// series: [{name, values, colour, stacked}]. Stacked ones lie on each other as
// areas, in the order given; the others are lines.
function timeChart(host, series, height) {
  const start = data.t[0];
  const span = Math.max(data.t[data.t.length - 1] - start, 1);
  const stacks = [];
  let below = data.t.map(() => 0);
  for (const one of series) {
    if (!one.stacked) continue;
    const top = one.values.map((value, i) => value + below[i]);
    stacks.push({one, below, top});
    below = top;
  }
  let most = below.reduce((a, b) => Math.max(a, b), 0);
  for (const one of series) {
    if (!one.stacked) most = one.values.reduce((a, b) => Math.max(a, b), most);
  }
  const draw = () => {
    const width = Math.max(host.clientWidth, 200);
    const left = 66;
    const right = 8;
    const bottom = 22;
    const top = 6;
    const x = (i) => left + (data.t[i] - start) / span * (width - left - right);
    const scale = Math.max(most * 1.04, 1);
    const y = (v) => top + (1 - v / scale) * (height - top - bottom);
    const svg = shape('svg', {width, height, role: 'img'});
    for (const tick of ticks(scale, 5, true)) {
      svg.append(shape('line', {class: 'grid', x1: left, x2: width - right,
                                y1: y(tick), y2: y(tick)}));
      svg.append(shape('text', {x: left - 8, y: y(tick) + 4,
                                'text-anchor': 'end'}, bytes(tick)));
    }
    for (const tick of timeTicks(span, Math.max(2, width / 130))) {
      const at = left + tick / span * (width - left - right);
      svg.append(shape('text', {x: at, y: height - 4,
                                'text-anchor': at > width - 60 ? 'end' :
                                               tick ? 'middle' : 'start'},
                       tick ? duration(tick) : '0'));
    }
    const path = (values) =>
        values.map((v, i) => `${x(i).toFixed(1)} ${y(v).toFixed(1)}`);
    for (const {one, below: from, top: to} of stacks) {
      svg.append(shape('path', {
        d: `M${path(to).join('L')}L${path(from).reverse().join('L')}Z`,
        fill: `var(--${one.colour})`, opacity: one.opacity || .8}));
    }
    for (const one of series) {
      if (one.stacked) continue;
      svg.append(shape('path', {d: `M${path(one.values).join('L')}`,
                                fill: 'none', 'stroke-width': 1.8,
                                'stroke-linejoin': 'round',
                                stroke: `var(--${one.colour})`}));
    }
    const line = shape('line', {class: 'at', y1: top, y2: height - bottom});
    line.style.display = 'none';
    svg.append(line);
    svg.addEventListener('pointermove', (event) => {
      const box = svg.getBoundingClientRect();
      const time = start + (event.clientX - box.left - left) /
          (width - left - right) * span;
      let nearest = 0;
      data.t.forEach((t, i) => {
        if (Math.abs(t - time) < Math.abs(data.t[nearest] - time)) nearest = i;
      });
      line.setAttribute('x1', x(nearest));
      line.setAttribute('x2', x(nearest));
      line.style.display = '';
      const table = element('table');
      for (const one of series) {
        const swatch = element('i');
        swatch.style.background = `var(--${one.colour})`;
        table.append(element('tr', {}, element('td', {}, swatch),
                             element('td', {textContent: one.name}),
                             element('td', {textContent:
                                            bytes(one.values[nearest])})));
      }
      showTip(event, element('b', {textContent:
                                   duration(data.t[nearest] - start)}), table);
    });
    svg.addEventListener('pointerleave', () => {
      line.style.display = 'none';
      hideTip();
    });
    host.replaceChildren(svg);
  };
  redraws.push(draw);
  draw();
}

function legend(host, series) {
  for (const one of series) {
    const swatch = element('i', {className: one.stacked ? '' : 'stroke'});
    swatch.style.background = `var(--${one.colour})`;
    if (one.stacked) swatch.style.opacity = one.opacity || .8;
    host.append(element('span', {}, swatch, one.note || one.name));
  }
}

const redraws = [];
function showCharts() {
  const memory = [
    {name: 'resident', values: data.rss, colour: 'rss',
     note: 'resident (RSS, with code and stacks)'},
    {name: 'live', values: data.live, colour: 'live', stacked: true,
     note: 'live: held by the program'},
    {name: 'between live blocks', values: data.partial, colour: 'partial',
     stacked: true},
    {name: 'caches', values: data.cached, colour: 'cached', stacked: true},
    {name: 'free, resident', values: data.free, colour: 'free', stacked: true},
    {name: 'metadata', values: data.metadata, colour: 'metadata',
     stacked: true},
  ];
  legend(byId('memory-legend'), memory);
  timeChart(byId('memory-chart'), memory, 240);
  const overhead = [
    {name: 'between live blocks', values: data.partial, colour: 'partial',
     stacked: true, note: 'free blocks between live ones'},
    {name: 'caches', values: data.cached, colour: 'cached', stacked: true,
     note: 'caches of threads, depots'},
    {name: 'free, resident', values: data.free, colour: 'free', stacked: true,
     note: 'free runs, not given back yet'},
    {name: 'metadata', values: data.metadata, colour: 'metadata',
     stacked: true, note: 'hakmem’s own tables'},
  ];
  legend(byId('overhead-legend'), overhead);
  timeChart(byId('overhead-chart'), overhead, 190);
}

// ---- treemap (Bruls, Huizing and van Wijk, "Squarified Treemaps", 2000)

function squarify(items, x, y, width, height, place) {
  let total = items.reduce((sum, item) => sum + item.size, 0);
  let next = 0;
  while (next < items.length) {
    const side = Math.min(width, height);
    const scale = width * height / total;
    const worst = (sum, least, most) => Math.max(
        side * side * most * scale / (sum * scale) ** 2,
        (sum * scale) ** 2 / (side * side * least * scale));
    let end = next;
    let sum = 0;
    let best = Infinity;
    while (end < items.length) {
      const grown = sum + items[end].size;
      const ratio = worst(grown, items[end].size, items[next].size);
      if (ratio > best) break;
      best = ratio;
      sum = grown;
      ++end;
    }
    const depth = sum * scale / side;
    let at = 0;
    for (const item of items.slice(next, end)) {
      const length = item.size / sum * side;
      if (width >= height) {
        place(item, x, y + at, depth, length);
      } else {
        place(item, x + at, y, length, depth);
      }
      at += length;
    }
    if (width >= height) {
      x += depth;
      width -= depth;
    } else {
      y += depth;
      height -= depth;
    }
    total -= sum;
    next = end;
  }
}

let mapBy = 'live';
function showTreemap() {
  const host = byId('treemap');
  const sites = data.sites.filter((site) => site[mapBy] > 0)
                    .sort((a, b) => b[mapBy] - a[mapBy]);
  const total = sites.reduce((sum, site) => sum + site[mapBy], 0);
  // What would be a speck is added up.
  const large = sites.filter((site, i) => i < 150 && site[mapBy] > total / 3000);
  const items = large.map((site) => ({site, size: site[mapBy]}));
  const rest = total - items.reduce((sum, item) => sum + item.size, 0);
  if (rest > 0) {
    items.push({rest: sites.length - large.length, size: rest});
    items.sort((a, b) => b.size - a.size);
  }
  const growing = large.some((site) => site.grows);
  const live = data.live[data.live.length - 1];
  const note = byId('map-note');
  note.replaceChildren(
      mapBy === 'live'
          ? `Live bytes at the end: ${bytes(total)}` +
            // What the heap has live is a little less than it is: see the page
            // of documentation.
            (live > total ? `, of ${bytes(live)} that the whole program holds.`
                          : '.')
          : `The most that each site has held: ${bytes(total)} together, ` +
            'though not at one time.');
  if (growing) note.append(element('i'), 'only grows');
  host.replaceChildren();
  if (!items.length) return;
  squarify(items, 0, 0, host.clientWidth, host.clientHeight,
           (item, x, y, width, height) => {
    const tile = element('button', {type: 'button'});
    Object.assign(tile.style, {left: `${x}px`, top: `${y}px`,
                               width: `${width}px`, height: `${height}px`});
    const name = item.site ? item.site.title : `${count(item.rest)} smaller sites`;
    const share = `${bytes(item.size)} (${(item.size / total * 100).toFixed(1)} %)`;
    if (width > 60 && height > 34) {
      const text = element('b', {textContent: name});
      text.style.webkitLineClamp = Math.max(1, Math.floor((height - 28) / 17));
      tile.append(text, element('span', {textContent:
                                         width > 120 ? share : bytes(item.size)}));
    } else {
      tile.setAttribute('aria-label', name);
      tile.style.padding = '0';
    }
    if (item.site) {
      tile.classList.toggle('grows', item.site.grows);
      tile.addEventListener('click', () => reveal(item.site));
    } else {
      tile.classList.add('rest');
    }
    tile.addEventListener('pointermove', (event) => showTip(
        event, element('b', {textContent: name}), element('br'), share));
    tile.addEventListener('pointerleave', hideTip);
    host.append(tile);
  });
}

// ---- table

const COLUMNS = [
  {name: 'Site', key: 'title', text: true},
  {name: 'Live', key: 'live', format: bytes},
  {name: 'Over time', key: 'growth', spark: true},
  {name: 'Growth', key: 'growth', format: growth},
  {name: 'Peak', key: 'peak', format: bytes},
  {name: 'Blocks', key: 'blocks', format: count},
  {name: 'Allocations', key: 'allocs', format: count},
  {name: 'Mean', key: 'mean', format: bytes},
];
const STEP = 100;
let sortKey = 'live';
let sortUp = false;
let shown = STEP;
let opened = null;

// The live bytes at every moment of the charts, from where they changed.
function liveOf(site) {
  const values = [];
  let bytes = 0;
  let next = 0;
  for (let i = 0; i < data.t.length; ++i) {
    while (next < site.points.length && site.points[next] <= i) {
      bytes = site.points[next + 1];
      next += 2;
    }
    values.push(bytes);
  }
  return values;
}

function spark(site, width, height) {
  const values = liveOf(site);
  const most = Math.max(values.reduce((a, b) => Math.max(a, b), 0), 1);
  const span = Math.max(data.t[data.t.length - 1] - data.t[0], 1);
  const points = values.map(
      (v, i) => `${((data.t[i] - data.t[0]) / span * width).toFixed(1)} ` +
          `${(height - 1 - v / most * (height - 3)).toFixed(1)}`);
  const colour = site.grows ? 'var(--partial)' : 'var(--live)';
  const svg = shape('svg', {width, height, role: 'img',
                            'aria-label': 'live bytes over time'});
  svg.append(shape('path', {d: `M0 ${height}L${points.join('L')}L${width} ${height}Z`,
                            fill: colour, opacity: .22}));
  svg.append(shape('path', {d: `M${points.join('L')}`, fill: 'none',
                            stroke: colour, 'stroke-width': 1.5}));
  return svg;
}

// bars: [[label, value]].
function histogram(title, bars, format) {
  const host = element('div', {}, element('h3', {textContent: title}));
  const most = Math.max(...bars.map((bar) => bar[1]), 1);
  const line = 19;
  const label = 96;
  const room = 80;
  const width = 340;
  const svg = shape('svg', {viewBox: `0 0 ${width} ${bars.length * line}`,
                            width: '100%', role: 'img', 'aria-label': title});
  svg.style.maxWidth = `${width}px`;
  bars.forEach(([name, value], i) => {
    const y = i * line;
    const length = value / most * (width - label - room);
    svg.append(shape('text', {x: label - 8, y: y + 13, 'text-anchor': 'end'},
                     name));
    svg.append(shape('rect', {x: label, y: y + 3, height: line - 6, rx: 2,
                              width: value ? Math.max(length, 1) : 0,
                              fill: 'var(--live)'}));
    svg.append(shape('text', {x: label + length + 6, y: y + 13}, format(value)));
  });
  host.append(svg);
  return host;
}

// Sizes, one bar each; where there are many, one for each power of two.
function sizeBars(site) {
  let sizes = site.sizes.map(([size, allocs]) => [size, allocs]);
  if (sizes.length <= 16) {
    return sizes.map(([size, allocs]) => [bytes(size), allocs]);
  }
  const grouped = new Map();
  for (const [size, allocs] of sizes) {
    const power = 2 ** Math.ceil(Math.log2(size));
    grouped.set(power, (grouped.get(power) || 0) + allocs);
  }
  return [...grouped].sort((a, b) => a[0] - b[0])
      .map(([size, allocs]) => [`to ${bytes(size)}`, allocs]);
}

function ageBars(site) {
  return site.ages.map((freed, i) => [
    i < data.ageBounds.length ? `< ${duration(data.ageBounds[i])}`
                              : `≥ ${duration(data.ageBounds[i - 1] || 0)}`,
    freed,
  ]);
}

function detail(site) {
  const facts = element('dl');
  const add = (name, value) => {
    if (!value) return;
    facts.append(element('dt', {textContent: name}),
                 element('dd', {textContent: value}));
  };
  add('Kind', {place: 'a place marked in the sources', id: 'a number',
               caller: 'code that calls malloc', scope: 'a marked scope',
               stack: 'a sampled stack',
               other: 'what found the table of sites full'}[site.kind] ||
      site.kind);
  add('Label', site.label);
  add('Function', site.function);
  add('Source', site.file && site.file + (site.line ? `:${site.line}` : ''));
  add('Module', site.module && `${site.module} at ${site.offset}`);
  add('Build id', site.buildId);
  add('Live', `${bytes(site.live)} in ${count(site.blocks)} blocks`);
  add('Allocated', `${bytes(site.bytes)} in ${count(site.allocs)} blocks`);
  const charts = element('div', {className: 'histograms'});
  if (site.sizes.length) {
    charts.append(histogram('Allocations by the size of their blocks',
                            sizeBars(site), count));
  }
  if (site.ages.some((freed) => freed > 0)) {
    charts.append(histogram('Freed blocks by how long they lived',
                            ageBars(site), count));
  }
  return element('tr', {className: 'detail'},
                 element('td', {colSpan: COLUMNS.length},
                         element('div', {className: 'inside'}, facts, charts)));
}

function row(site) {
  const title = element('button', {type: 'button', textContent: site.title});
  title.setAttribute('aria-expanded', String(opened === site));
  const name = element('td', {}, title);
  if (site.grows) {
    name.append(element('span', {className: 'mark', textContent: 'only grows'}));
  }
  const tr = element('tr', {className: 'site'}, name);
  for (const column of COLUMNS.slice(1)) {
    tr.append(column.spark
                  ? element('td', {className: 'spark'}, spark(site, 100, 24))
                  : element('td', {textContent:
                                   column.format(site[column.key])}));
  }
  tr.addEventListener('click', () => {
    opened = opened === site ? null : site;
    showTable();
  });
  tr.site = site;
  return tr;
}

function matching() {
  const words = byId('filter').value.toLowerCase().split(/\s+/).filter(Boolean);
  return data.sites.filter((site) => {
    if (byId('only-growing').checked && !site.grows) return false;
    return words.every((word) => site.search.includes(word));
  });
}

function showTable() {
  const sites = matching();
  sites.sort((a, b) => {
    const order = sortKey === 'title' ? a.title.localeCompare(b.title)
                                      : a[sortKey] - b[sortKey];
    return (sortUp ? order : -order) || b.live - a.live;
  });
  const body = byId('sites').tBodies[0];
  body.replaceChildren();
  for (const site of sites.slice(0, shown)) {
    body.append(row(site));
    if (site === opened) body.append(detail(site));
  }
  byId('count').textContent = sites.length === data.sites.length
      ? `${count(sites.length)} sites`
      : `${count(sites.length)} of ${count(data.sites.length)} sites`;
  byId('more').hidden = sites.length <= shown;
  byId('more').textContent =
      `Show ${count(Math.min(STEP, sites.length - shown))} more`;
  for (const cell of byId('sites').tHead.rows[0].cells) {
    if (cell.column.key === sortKey && !cell.column.spark) {
      cell.setAttribute('aria-sort', sortUp ? 'ascending' : 'descending');
      cell.firstChild.textContent = cell.column.name + (sortUp ? ' ↑' : ' ↓');
    } else {
      cell.removeAttribute('aria-sort');
      cell.firstChild.textContent = cell.column.name;
    }
  }
}

// Opens the site in the table, whatever that shows.
function reveal(site) {
  hideTip();
  opened = site;
  byId('filter').value = '';
  byId('only-growing').checked = false;
  sortKey = mapBy;
  sortUp = false;
  const ranked = data.sites.filter((other) => other[mapBy] > site[mapBy]).length;
  shown = Math.max(shown, Math.ceil((ranked + 20) / STEP) * STEP);
  showTable();
  for (const tr of byId('sites').tBodies[0].rows) {
    if (tr.site === site) tr.scrollIntoView({block: 'start'});
  }
}

function setUpSites() {
  for (const site of data.sites) {
    site.mean = site.allocs ? site.bytes / site.allocs : 0;
    site.search = [site.title, site.label, site.function, site.file,
                   site.module].join(' ').toLowerCase();
  }
  const head = element('tr');
  for (const column of COLUMNS) {
    const cell = element('th', {}, element('button', {type: 'button'}));
    cell.scope = 'col';
    cell.column = column;
    cell.firstChild.addEventListener('click', () => {
      sortUp = sortKey === column.key ? !sortUp : Boolean(column.text);
      sortKey = column.key;
      showTable();
    });
    head.append(cell);
  }
  byId('sites').tHead.append(head);
  byId('only-growing-label').hidden = !data.sites.some((site) => site.grows);
  byId('filter').addEventListener('input', () => {
    shown = STEP;
    showTable();
  });
  byId('only-growing').addEventListener('change', showTable);
  byId('more').addEventListener('click', () => {
    shown += STEP;
    showTable();
  });
  for (const button of document.querySelectorAll('[data-by]')) {
    button.addEventListener('click', () => {
      mapBy = button.dataset.by;
      for (const other of document.querySelectorAll('[data-by]')) {
        other.setAttribute('aria-pressed', String(other === button));
      }
      showTreemap();
    });
  }
  redraws.push(showTreemap);
  showTreemap();
  showTable();
}

showHeader();
showCharts();
if (data.sites.length) {
  setUpSites();
} else {
  for (const section of document.querySelectorAll('.of-sites')) {
    section.hidden = true;
  }
  byId('no-sites').hidden = false;
}

let width = innerWidth;
addEventListener('resize', () => {
  if (innerWidth === width) return;
  width = innerWidth;
  for (const draw of redraws) draw();
});
