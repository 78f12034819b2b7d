// Fills the panels from the API's JSON.

import { barChart, heatLegend, heatStrip, intervalChart, level, lineChart, reliabilityChart, swatch } from "./charts.js";
import { choices, count, duration, el, moment, number, pValue, share, signed, svg, table } from "./elements.js";

const KINDS = ["first", "second", "third"];
const METRICS = {
  auc: { name: "AUC", better: 1, training: ["auc", "roc_auc"] },
  accuracy: { name: "Accuracy", better: 1, training: ["accuracy"] },
  log_loss: { name: "Log loss", better: -1, training: ["log_loss"] },
  brier: { name: "Brier score", better: -1, training: ["brier", "brier_score"] },
  ece: { name: "Calibration error", better: -1, training: ["ece"] },
  rmse: { name: "RMSE", better: -1, training: ["rmse", "root_mean_squared_error"] },
  mae: { name: "MAE", better: -1, training: ["mae", "mean_absolute_error"] },
  r2: { name: "R²", better: 1, training: ["r2"] },
};
const OF_TASK = {
  binary: ["auc", "accuracy", "log_loss", "brier", "ece"],
  multiclass: ["accuracy", "log_loss", "brier", "ece"],
  regression: ["rmse", "mae", "r2"],
};

const byId = (id) => document.getElementById(id);
const blank = (text) => el("p", { class: "blank" }, text);

// The champion first, so that it has the same colour and mark everywhere.
export function inOrder(versions) {
  const rank = (version) => (version.role === "champion" ? 0 : 1);
  return [...versions].sort((a, b) => rank(a) - rank(b) || a.version.localeCompare(b.version, "en", { numeric: true }));
}

function key(kind) {
  return svg(
    "svg",
    { width: 22, height: 12, "aria-hidden": "true" },
    svg("line", { x1: 0, x2: 22, y1: 6, y2: 6, class: `line ${kind}` }),
    kind === "second"
      ? svg("rect", { x: 8, y: 3, width: 6, height: 6, class: `marker ${kind}` })
      : kind === "third"
        ? svg("path", { d: "M7.5 9L11 2.5L14.5 9Z", class: `marker ${kind}` })
        : svg("circle", { cx: 11, cy: 6, r: 3, class: `marker ${kind}` }),
  );
}

function legend(versions, extra = []) {
  return el("p", { class: "legend" }, versions.map((one, i) => el("span", {}, key(KINDS[i % 3]), `${one.version}, ${one.role}`)), extra);
}

function training(version, metric) {
  const known = version.baseline?.metrics ?? {};
  const name = METRICS[metric].training.find((candidate) => candidate in known);
  return name === undefined ? null : known[name];
}

export function fillHealth(health) {
  const { source = {}, counters = {} } = health;
  const sum = (...names) => names.reduce((total, name) => total + (counters[name] ?? 0), 0);
  const events = ["prediction", "shadow", "label", "audit"].map((type) => [type, sum(type)]);
  const refused = ["malformed", "unknown_version", "corrupt"];
  const dead = sum(...refused);
  const facts = [
    ["Monitor", health.status === "ok" ? "✓ ok" : `✗ ${health.status ?? "failing"}`, health.status === "ok" ? "good" : "bad"],
    ["Behind the log", `${count(source.lag_events)} events, ${duration(source.lag_s)}`, source.lag_s > 60 ? "bad" : ""],
    ["Events", count(events.reduce((total, [, n]) => total + n, 0)), "", events.map(([type, n]) => `${type}: ${count(n)}`).join("\n")],
    ["Dead letters", dead ? `! ${count(dead)}` : "0", dead ? "bad" : "", refused.map((reason) => `${reason}: ${count(sum(reason))}`).join("\n")],
    ["Duplicates", count(sum("duplicates"))],
    ["Awaiting truth", count(sum("open_requests")), "", "requests whose label has not arrived"],
  ];
  const gaps = sum("gap_events");
  if (gaps) facts.push(["Lost events", `! ${count(gaps)}`, "bad"]);
  const reason = health.reason ?? health.error;
  if (reason) facts.push(["Reason", reason, "bad"]);
  byId("health").replaceChildren(...facts.map(([name, text, mood, title]) => el("div", { title: title || null, class: mood || null }, el("dt", {}, name), el("dd", {}, text))));
}

export function fillVersions(model, versions) {
  const cards = versions.map((version, i) => {
    const { total } = version;
    const found = total?.performance;
    const rows = OF_TASK[model.task].map((metric) => {
      const now = found?.[metric] ?? null;
      const then = training(version, metric);
      const change = now === null || then === null ? null : now - then;
      const worse = change !== null && change * METRICS[metric].better < 0;
      const band = metric === "auc" && found?.auc_low != null ? ` [${number(found.auc_low)}, ${number(found.auc_high)}]` : "";
      return {
        cells: [
          METRICS[metric].name,
          { content: number(now), title: band ? `95 % interval${band}` : null },
          number(then),
          { content: change === null ? "–" : `${signed(change)} ${worse ? "worse" : "better"}`, class: change === null ? "" : worse ? "worse" : "better" },
        ],
      };
    });
    const coverage = total?.coverage;
    return el(
      "article",
      { class: "panel card" },
      el("h3", {}, key(KINDS[i % 3]), `${model.model} ${version.version} `, el("span", { class: `role ${version.role}` }, version.role)),
      el(
        "p",
        { class: "facts" },
        `${count(total?.rows)} rows in ${count(total?.requests)} requests, ${count(total?.errors)} errors. `,
        total?.labelled ? `${count(total.labelled)} labelled (${share(coverage)}).` : "No labels yet.",
      ),
      table(["Metric", "Live", "Training", "Change"], rows, { class: "metrics" }),
    );
  });
  byId("versions").replaceChildren(...cards);
}

function words(one, task) {
  const unit = task === "regression" ? "variances of squared error" : "nats of log loss";
  if (!one.pairs) return "No pane with both versions' answers and their truth has matured yet.";
  const size = `${number(Math.abs(one.gain))} ${unit}`;
  const ends = [one.gain_low, one.gain_high];
  const rows = `on ${count(one.pairs)} labelled rows`;
  const evidence = `e-value 10^${number(one.log10_e_value, Math.abs(one.log10_e_value) < 10 ? 1 : 0)}`;
  const [champion, challenger] = [`champion ${one.champion}`, `challenger ${one.challenger}`];
  if (one.leader === "challenger") return `${challenger} beats ${champion} by ${size} [${ends.map((end) => number(end)).join(", ")}] ${rows}; ${evidence}`;
  if (one.leader === "champion") return `${champion} beats ${challenger} by ${size} [${ends.map((end) => number(-end)).reverse().join(", ")}] ${rows}; ${evidence}`;
  return `No winner yet: ${challenger} differs from ${champion} by ${signed(one.gain)} ${unit} [${ends.map((end) => signed(end)).join(", ")}] ${rows}; ${evidence}`;
}

export function fillComparisons(model, width) {
  const unit = model.task === "regression" ? "variances" : "nats";
  const found = (model.comparisons ?? []).map((one) => {
    const sentence = words(one, model.task);
    const { current } = one;
    const now = current?.pairs && current.pairs !== one.pairs ? `With panes still maturing: ${signed(current.gain)} ${unit} on ${count(current.pairs)} rows, no guarantee. ` : "";
    const detail = one.pairs
      ? `They disagree on ${share(one.disagreement)} of rows: challenger alone right on ${count(one.challenger_only)}, champion alone on ${count(one.champion_only)}. Accuracy ${signed(one.accuracy_gain)} [${signed(one.accuracy_gain_low)}, ${signed(one.accuracy_gain_high)}]. ${count(one.matured_panes)} matured panes. `
      : "";
    return el(
      "article",
      { class: "comparison" },
      el("p", { class: "verdict" }, sentence[0].toUpperCase() + sentence.slice(1)),
      one.pairs ? intervalChart({ label: sentence, low: one.gain_low, high: one.gain_high, estimate: one.gain, width: Math.min(width, 640), unit }) : null,
      el("p", { class: "hint" }, detail, now, one.pairs ? "Both the interval and the e-value (which is about who is right more often) hold at every look." : ""),
    );
  });
  byId("comparisons").replaceChildren(...(found.length ? found : [blank("No challenger has answered the champion's requests.")]));
}

// 95 % interval of a share (Wilson, 1927).
function wilson(rate, n) {
  const z2 = 1.96 ** 2;
  const centre = (rate + z2 / (2 * n)) / (1 + z2 / n);
  const reach = (1.96 / (1 + z2 / n)) * Math.sqrt((rate * (1 - rate)) / n + z2 / (4 * n * n));
  return [centre - reach, centre + reach];
}

function point(pane, metric, version) {
  const found = pane?.performance;
  const value = found?.[metric] ?? null;
  if (value === null) return { value: null };
  let [low, high] = [null, null];
  if (metric === "auc") [low, high] = [found.auc_low ?? null, found.auc_high ?? null];
  if (metric === "accuracy") [low, high] = wilson(value, found.n);
  const band = low === null ? "" : ` [${number(low)}, ${number(high)}]`;
  const open = !pane.matured;
  return { value, low, high, open, title: `${version.version}: ${number(value)}${band}, ${count(found.n)} labelled${open ? ", still maturing" : ""}` };
}

export function fillCharts(model, versions, view, width) {
  const names = OF_TASK[model.task];
  const metric = names.includes(view.metric) ? view.metric : names[0];
  choices(byId("metric"), names.map((name) => [name, METRICS[name].name]), metric);
  const { starts } = view;
  const aligned = versions.map((version) => {
    const known = byStart(version);
    return starts.map((start) => known.get(start));
  });
  const series = versions.map((version, i) => ({
    name: version.version,
    kind: KINDS[i % 3],
    points: aligned[i].map((pane) => point(pane, metric, version)),
    reference: training(version, metric),
  }));
  const champion = versions[0];
  const shared = { starts, paneSeconds: model.pane_s, width };
  const labelled = series.some((one) => one.points.some(({ value }) => value !== null));
  const parts = labelled
    ? [
        legend(versions, [
          el("span", {}, svg("svg", { width: 22, height: 12, "aria-hidden": "true" }, svg("line", { x1: 0, x2: 22, y1: 6, y2: 6, class: "reference" })), "in training"),
          el("span", {}, svg("svg", { width: 12, height: 12, "aria-hidden": "true" }, svg("circle", { cx: 6, cy: 6, r: 3, class: "marker open" })), "labels still arriving"),
        ]),
        lineChart({ ...shared, label: `${METRICS[metric].name} of each version over panes`, series, selected: view.starts.indexOf(view.pane), onSelect: view.onSelect, format: (value, digits) => number(value, digits) }),
      ]
    : [blank("No labels yet. Performance appears when the first truth arrives at v1/feedback.")];
  const bars = (value, title) =>
    aligned[0].map((pane) => (pane ? { value: value(pane), open: !pane.matured, title: title(pane) } : { value: null }));
  parts.push(
    el("h3", {}, "Labelled share of rows, by the time of the prediction"),
    barChart({ ...shared, label: "Label coverage over panes", kind: "coverage", high: 1, bars: bars((pane) => pane.coverage ?? 0, (pane) => `${share(pane.coverage)} labelled: ${count(pane.labelled)} of ${count(pane.rows)}${pane.matured ? "" : ", still maturing"}`), format: (value) => share(value, 0) }),
    el("h3", {}, "Rows"),
    barChart({ ...shared, label: "Rows over panes", kind: "rows", dated: true, bars: bars((pane) => pane.rows, (pane) => `${count(pane.rows)} rows, ${count(pane.errors)} errors`), format: count }),
    el("p", { class: "hint" }, `Panes of ${duration(model.pane_s)}. Coverage and rows are those of version ${champion.version}.`),
  );
  byId("charts").replaceChildren(...parts);
}

const byStart = (version) => new Map(version.panes.map((pane) => [Date.parse(pane.start), pane]));
const byRank = (a, b) => b.drift.ranked - a.drift.ranked || b.drift.psi_debiased - a.drift.psi_debiased;

export function fillDrift(model, version, view, width) {
  const { starts } = view;
  const known = byStart(version);
  const cells = (pick) => starts.map((start) => (known.has(start) ? (pick(known.get(start)) ?? null) : null));
  const features = [...(version.total?.features ?? [])].sort(byRank);
  if (!features.length) {
    byId("drift").replaceChildren(blank("No features have been counted yet."));
    return;
  }
  const rows = [
    { name: "score", hint: "the model's own output", cells: cells((pane) => pane.score?.drift) },
    ...features.map(({ name, importance }) => {
      return { name, hint: `${name}: importance ${number(importance, 4)}`, cells: cells((pane) => pane.features.find((feature) => feature.name === name)?.drift) };
    }),
  ];
  const old = byId("drift").querySelector(".heat-scroll");
  const fromEnd = old ? old.scrollWidth - old.scrollLeft : null;
  const labels = width < 560 ? 118 : 178;
  byId("drift").replaceChildren(heatLegend(), heatStrip({ starts, paneSeconds: model.pane_s, rows, width: width - labels, selected: starts.indexOf(view.pane), onSelect: view.onSelect }));
  const scroll = byId("drift").querySelector(".heat-scroll");
  scroll.scrollLeft = fromEnd === null ? scroll.scrollWidth : scroll.scrollWidth - fromEnd;
}

export function fillFeatures(finding, name) {
  byId("features-title").textContent = `Features of version ${name}`;
  const features = [...(finding?.features ?? [])].sort(byRank);
  if (!features.length) {
    byId("features").replaceChildren(blank("No rows in this pane."));
    return;
  }
  const score = finding.score ? [{ name: "score", kind: "numeric", importance: null, drift: finding.score.drift, quality: null }] : [];
  const rows = [...score, ...features].map(({ name, importance, drift, quality, observed }) => {
    const issues = (quality?.issues ?? []).map((issue) => issue.replaceAll("_", " "));
    const odd = quality?.new_rate ?? quality?.out_of_range_rate ?? null;
    const moved = drift.top_bins.map((bin) => `${bin.bin}: ${share(bin.live)} (training ${share(bin.baseline)})`);
    const flags = [observed === false ? el("span", {}, "hidden: not observed") : null, drift.drifted ? el("span", { class: "flag" }, "● drifted") : null, issues.map((issue) => el("span", { class: "flag quality" }, `! ${issue}`))].flat();
    return {
      class: drift.drifted || issues.length ? "marked" : null,
      cells: [
        name,
        { content: el("span", {}, swatch(drift.n ? `level${level(drift.psi_debiased)}` : "nothing"), ` ${number(drift.psi_debiased)}`), title: `raw ${number(drift.psi)}, ${pValue(drift.psi_p_value)}, n = ${count(drift.n)}` },
        { content: number(drift.ks), title: drift.ks === null ? null : `threshold ${number(drift.ks_threshold)}` },
        number(drift.wasserstein, 2),
        { content: share(quality?.missing_rate), title: quality ? `in training ${share(quality.missing_baseline)}` : null },
        share(odd),
        number(importance, 4),
        { content: el("span", { class: "flags" }, flags.some(Boolean) ? flags : "–"), class: "left" },
        { content: moved[0] ?? "–", title: moved.join("\n") || null, class: "left moved" },
      ],
    };
  });
  const head = [
    "Feature",
    { content: "PSI", title: "population stability index, debiased" },
    { content: "KS", title: "Kolmogorov–Smirnov distance" },
    { content: "W₁", title: "Wasserstein distance in robust standard deviations" },
    "Missing",
    { content: "New", title: "new categories or values out of the training range" },
    { content: "Importance", title: "fall of the model's score when the column is permuted" },
    { content: "Finding", class: "left" },
    { content: "Moved most", class: "left" },
  ];
  byId("features").replaceChildren(el("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": "Features" }, table(head, rows, { class: "features" })));
}

export function fillReliability(model, versions, findings, width) {
  if (model.task === "regression") {
    byId("reliability").replaceChildren(blank("Reliability is of classifiers."));
    return;
  }
  const series = versions
    .map((version, i) => ({ name: version.version, kind: KINDS[i % 3], points: findings[i]?.performance?.reliability ?? [], found: findings[i]?.performance }))
    .filter((one) => one.points.length);
  if (!series.length) {
    byId("reliability").replaceChildren(blank("No labels yet."));
    return;
  }
  const sentences = series.map(({ name, found }) => {
    const judgement = found.ece > found.ece_null_95 ? "beyond" : "within";
    return `${name}: calibration error ${number(found.ece)}, ${judgement} what chance explains (up to ${number(found.ece_null_95)}). Predicted minus true: ${signed(found.calibration_gap)}.`;
  });
  byId("reliability").replaceChildren(
    legend(versions.filter((version) => series.some((one) => one.name === version.version))),
    reliabilityChart({ label: `Reliability diagram. ${sentences.join(" ")}`, series, width }),
    ...sentences.map((sentence) => el("p", { class: "hint" }, sentence)),
  );
}
