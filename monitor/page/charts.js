// Draws: lines with bands over panes, bars over panes, the drift heat strip, an interval, reliability.
// Shapes carry classes and attributes only; colours are in page.css.

import { count, el, moment, number, share, signed, svg } from "./elements.js";

const FEW_ROWS = 20;
const MARGIN = { left: 52, right: 12, top: 10, bottom: 22 };

function ticks(low, high, wanted) {
  const rough = (high - low) / wanted || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((unit) => unit * power).find((unit) => unit >= rough);
  const found = [];
  for (let at = Math.ceil(low / step); at * step <= high + step * 1e-9; at += 1) found.push(at * step);
  return { values: found, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9) + (step / power === 2.5 ? 1 : 0)) };
}

function timeAxis(starts, paneSeconds, x, bottom, width) {
  const wanted = Math.max(2, Math.floor(width / 110));
  const every = Math.max(1, Math.ceil(starts.length / wanted));
  return starts.flatMap((start, i) =>
    i % every || (i && x(i) > width - 30) ? [] : [svg("text", { x: x(i), y: bottom + 16, class: "tick middle" }, moment(start, paneSeconds))],
  );
}

function marker(kind, x, y, open) {
  const style = `marker ${kind}${open ? " open" : ""}`;
  if (kind === "second") return svg("rect", { x: x - 2.5, y: y - 2.5, width: 5, height: 5, class: style });
  if (kind === "third") return svg("path", { d: `M${x - 3.2} ${y + 2.6}L${x} ${y - 3.4}L${x + 3.2} ${y + 2.6}Z`, class: style });
  return svg("circle", { cx: x, cy: y, r: 2.7, class: style });
}

// A run of points that are there, so that a gap in the data is a gap in the line.
function runs(points) {
  const found = [];
  let run = [];
  for (const point of points) {
    if (point.value !== null) run.push(point);
    else if (run.length) found.push(run), (run = []);
  }
  if (run.length) found.push(run);
  return found;
}

// series: [{name, kind, points: [{value, low, high, open, title}] aligned with starts, reference}]
export function lineChart({ label, starts, paneSeconds, series, width, selected, onSelect, format }) {
  const height = 230;
  const right = width - MARGIN.right;
  const bottom = height - MARGIN.bottom;
  const step = (right - MARGIN.left) / Math.max(1, starts.length);
  const x = (i) => MARGIN.left + step * (i + 0.5);
  const inside = series.flatMap((one) => [
    ...one.points.flatMap((point) => [point.value, point.low, point.high]),
    one.reference,
  ]);
  // The wildest panes (a handful of rows) may leave the frame rather than flatten all others.
  const seen = inside.filter((value) => value !== null && value !== undefined).sort((a, b) => a - b);
  const trim = seen.length > 200 ? Math.floor(seen.length / 50) : 0;
  let [low, high] = [seen[trim] ?? 0, seen[seen.length - 1 - trim] ?? 1];
  const pad = (high - low || Math.abs(high) || 1) * 0.08;
  [low, high] = [low - pad, high + pad];
  const y = (value) => bottom - ((Math.min(Math.max(value, low), high) - low) / (high - low)) * (bottom - MARGIN.top);
  const scale = ticks(low, high, 6);

  const chart = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  for (const value of scale.values) {
    chart.append(
      svg("line", { x1: MARGIN.left, x2: right, y1: y(value), y2: y(value), class: "grid" }),
      svg("text", { x: MARGIN.left - 6, y: y(value) + 4, class: "tick end" }, format(value, scale.digits)),
    );
  }
  if (selected >= 0) chart.append(svg("rect", { x: x(selected) - step / 2, y: MARGIN.top, width: step, height: bottom - MARGIN.top, class: "chosen" }));
  for (const { kind, points, reference } of series) {
    if (reference !== null && reference !== undefined) {
      chart.append(svg("line", { x1: MARGIN.left, x2: right, y1: y(reference), y2: y(reference), class: `reference ${kind}` }));
    }
    const placed = points.map((point, i) => ({ ...point, i }));
    for (const run of runs(placed.map((point) => ({ ...point, value: point.low ?? null })))) {
      const upper = run.map(({ i, high: top }) => `${x(i)} ${y(top)}`);
      const lower = run.map(({ i, low: base }) => `${x(i)} ${y(base)}`).reverse();
      if (run.length === 1) chart.append(svg("line", { x1: x(run[0].i), x2: x(run[0].i), y1: y(run[0].low), y2: y(run[0].high), class: `whisker ${kind}` }));
      else chart.append(svg("path", { d: `M${[...upper, ...lower].join("L")}Z`, class: `band ${kind}` }));
    }
    for (const run of runs(placed)) {
      chart.append(svg("path", { d: `M${run.map(({ i, value }) => `${x(i)} ${y(value)}`).join("L")}`, class: `line ${kind}` }));
    }
    if (starts.length <= 120) {
      for (const { i, value, open } of placed) if (value !== null) chart.append(marker(kind, x(i), y(value), open));
    }
  }
  chart.append(...timeAxis(starts, paneSeconds, x, bottom, width));
  starts.forEach((start, i) => {
    const words = series.map((one) => one.points[i]?.title).filter(Boolean);
    chart.append(
      svg(
        "rect",
        { x: x(i) - step / 2, y: MARGIN.top, width: step, height: bottom - MARGIN.top, class: "target", onclick: () => onSelect(start) },
        svg("title", {}, [moment(start, paneSeconds), ...words].join("\n")),
      ),
    );
  });
  return chart;
}

// bars: [{value, top, title}] aligned with starts; top, if given, is drawn as an outline behind.
export function barChart({ label, starts, paneSeconds, bars, width, kind, high, format, dated }) {
  const bottom = 56;
  const height = bottom + (dated ? MARGIN.bottom : 6);
  const step = (width - MARGIN.left - MARGIN.right) / Math.max(1, starts.length);
  const x = (i) => MARGIN.left + step * i;
  const most = high ?? Math.max(1e-9, ...bars.map((bar) => bar.value ?? 0));
  const y = (value) => bottom - (value / most) * (bottom - MARGIN.top);
  const chart = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  for (const value of [0, most]) {
    chart.append(
      svg("line", { x1: MARGIN.left, x2: width - MARGIN.right, y1: y(value), y2: y(value), class: "grid" }),
      svg("text", { x: MARGIN.left - 6, y: y(value) + 4, class: "tick end" }, format(value)),
    );
  }
  bars.forEach((bar, i) => {
    if (bar.value === null || bar.value === undefined) return;
    const gap = step > 4 ? 1 : 0;
    chart.append(
      svg(
        "rect",
        { x: x(i) + gap / 2, width: Math.max(0.5, step - gap), y: y(bar.value), height: Math.max(0, bottom - y(bar.value)), class: `column ${kind}${bar.open ? " open" : ""}` },
        svg("title", {}, `${moment(starts[i], paneSeconds)}\n${bar.title}`),
      ),
    );
  });
  if (dated) chart.append(...timeAxis(starts, paneSeconds, (i) => x(i) + step / 2, bottom, width));
  return chart;
}

const LEVELS = [0.02, 0.05, 0.1, 0.25, 0.5];

export function level(psi) {
  return LEVELS.filter((limit) => psi >= limit).length;
}

export function heatLegend() {
  const names = ["< 0.02", ...LEVELS.map((limit) => `≥ ${limit}`)];
  return el(
    "p",
    { class: "legend" },
    el("span", {}, "debiased PSI"),
    names.map((name, i) => el("span", {}, swatch(`level${i}`), name)),
    el("span", {}, svg("svg", { width: 14, height: 14, "aria-hidden": "true" }, svg("rect", { width: 14, height: 14, class: "level4" }), svg("circle", { cx: 7, cy: 7, r: 2.4, class: "alarm" })), "drifted: evidence and size"),
    el("span", {}, swatch("nothing"), "no rows"),
  );
}

export function swatch(kind) {
  return svg("svg", { width: 14, height: 14, "aria-hidden": "true" }, svg("rect", { x: 0.5, y: 0.5, width: 13, height: 13, class: kind }));
}

// rows: [{name, cells: [drift or null] aligned with starts}]
export function heatStrip({ starts, paneSeconds, rows, width, selected, onSelect }) {
  const rowHeight = 22;
  const labels = el("ol", { class: "heat-labels" }, rows.map((row) => el("li", { title: row.hint }, row.name)));
  const step = Math.max(7, Math.min(40, width / Math.max(1, starts.length)));
  const height = rows.length * rowHeight + MARGIN.bottom;
  const across = Math.max(step * starts.length, 1);
  const drifted = rows.filter((row) => row.cells.some((cell) => cell?.drifted)).map((row) => row.name);
  const chart = svg("svg", {
    width: across,
    height,
    viewBox: `0 0 ${across} ${height}`,
    role: "img",
    "aria-label": `Drift of ${rows.length} features over ${starts.length} panes. Drifted at some time: ${drifted.join(", ") || "none"}. The table below has the figures.`,
  });
  rows.forEach((row, r) =>
    row.cells.forEach((cell, i) => {
      const box = { x: i * step, y: r * rowHeight, width: step - 1, height: rowHeight - 2, class: cell && cell.n ? `level${level(cell.psi_debiased)}` : "nothing" };
      const words = [`${row.name}, ${moment(starts[i], paneSeconds)}`];
      if (cell && cell.n) {
        words.push(`PSI ${number(cell.psi_debiased)} debiased (${number(cell.psi)} raw)`);
        if (cell.ks !== null) words.push(`KS ${number(cell.ks)} (threshold ${number(cell.ks_threshold)})`);
        words.push(`n = ${count(cell.n)}`);
        if (cell.drifted) words.push("drifted");
        for (const bin of cell.top_bins) words.push(`${bin.bin}: ${share(bin.live)} (training ${share(bin.baseline)})`);
      } else words.push("no rows");
      chart.append(svg("rect", { ...box, onclick: () => onSelect(starts[i]) }, svg("title", {}, words.join("\n"))));
      if (cell?.drifted) chart.append(svg("circle", { cx: i * step + (step - 1) / 2, cy: r * rowHeight + rowHeight / 2 - 1, r: Math.min(2.4, step / 4), class: "alarm" }));
    }),
  );
  if (selected >= 0) chart.append(svg("rect", { x: selected * step - 0.5, y: -1, width: step, height: rows.length * rowHeight, class: "frame" }));
  chart.append(...timeAxis(starts, paneSeconds, (i) => Math.max(34, i * step + step / 2), rows.length * rowHeight, across));
  const scroll = el("div", { class: "heat-scroll", tabindex: across > width ? 0 : null, role: "group", "aria-label": "Drift over panes" }, chart);
  return el("div", { class: "heat" }, labels, scroll);
}

export function intervalChart({ label, low, high, estimate, width, unit }) {
  const height = 62;
  const reach = Math.max(Math.abs(low), Math.abs(high), 1e-9) * 1.15;
  const x = (value) => width / 2 + (value / reach) * (width / 2 - 8);
  const side = low > 0 ? "second" : high < 0 ? "first" : "neither";
  return svg(
    "svg",
    { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label },
    svg("line", { x1: 0, x2: width, y1: 28, y2: 28, class: "grid" }),
    svg("line", { x1: x(0), x2: x(0), y1: 12, y2: 44, class: "zero" }),
    svg("rect", { x: x(low), width: Math.max(2, x(high) - x(low)), y: 22, height: 12, rx: 3, class: `interval ${side}` }),
    estimate === null ? null : svg("circle", { cx: x(estimate), cy: 28, r: 5, class: "estimate" }),
    svg("text", { x: 0, y: 12, class: "tick" }, "← champion better"),
    svg("text", { x: width, y: 12, class: "tick end" }, "challenger better →"),
    svg("text", { x: Math.max(x(low), 24), y: 52, class: "tick middle" }, x(high) - x(low) > 70 ? signed(low) : ""),
    svg("text", { x: Math.min(x(high), width - 24), y: 52, class: "tick middle" }, x(high) - x(low) > 70 ? signed(high) : ""),
    Math.abs(x(0) - x(low)) > 40 && Math.abs(x(0) - x(high)) > 40 ? svg("text", { x: x(0), y: 58, class: "tick middle" }, `0 ${unit}`) : null,
  );
}

// series: [{name, kind, points: [{p, y, n}]}]
export function reliabilityChart({ label, series, width }) {
  const size = Math.min(width, 380);
  const [left, right, top, bottom] = [40, size - 10, 10, size - 40];
  const x = (p) => left + p * (right - left);
  const y = (p) => bottom - p * (bottom - top);
  const chart = svg("svg", { width: size, height: size, viewBox: `0 0 ${size} ${size}`, role: "img", "aria-label": label });
  for (const value of [0, 0.25, 0.5, 0.75, 1]) {
    chart.append(
      svg("line", { x1: left, x2: right, y1: y(value), y2: y(value), class: "grid" }),
      svg("line", { x1: x(value), x2: x(value), y1: top, y2: bottom, class: "grid" }),
      svg("text", { x: left - 6, y: y(value) + 4, class: "tick end" }, value),
      svg("text", { x: x(value), y: bottom + 15, class: "tick middle" }, value),
    );
  }
  chart.append(
    svg("line", { x1: x(0), y1: y(0), x2: x(1), y2: y(1), class: "diagonal" }),
    svg("text", { x: (left + right) / 2, y: size - 6, class: "tick middle" }, "predicted probability"),
    svg("text", { x: 12, y: (top + bottom) / 2, class: "tick middle", transform: `rotate(-90 12 ${(top + bottom) / 2})` }, "share that came true"),
  );
  for (const { name, kind, points } of series) {
    // The line leaves out bins of a few rows, which jump between 0 and 1.
    const firm = points.filter(({ n }) => n >= FEW_ROWS);
    if (firm.length) chart.append(svg("path", { d: `M${firm.map(({ p, y: truth }) => `${x(p)} ${y(truth)}`).join("L")}`, class: `line ${kind}` }));
    for (const point of points) {
      // Two standard errors of the share, were the probability right.
      const error = 2 * Math.sqrt((point.p * (1 - point.p)) / point.n);
      chart.append(svg("line", { x1: x(point.p), x2: x(point.p), y1: y(Math.max(0, point.y - error)), y2: y(Math.min(1, point.y + error)), class: `whisker ${kind}` }));
      const dot = svg("g", {}, marker(kind, x(point.p), y(point.y), point.n < FEW_ROWS), svg("title", {}, `${name}: predicted ${number(point.p)}, came true ${number(point.y)}, ${count(point.n)} rows`));
      chart.append(dot);
    }
  }
  return chart;
}
