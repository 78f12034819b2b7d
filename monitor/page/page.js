// Asks the monitor every two seconds and shows what it says.

import { choices, moment } from "./elements.js";
import { fillCharts, fillComparisons, fillDrift, fillFeatures, fillHealth, fillReliability, fillVersions, inOrder } from "./panels.js";

const EVERY_MS = 2000;
const TIMEOUT_MS = 8000;
const ALL = "";
const MOST_PANES = 1000;

const byId = (id) => document.getElementById(id);
const view = { model: decodeURIComponent(location.hash.slice(1)), version: null, metric: null, pane: ALL };
let last = { health: null, models: null, model: null };
let heardAt = null;
let shown = "";

async function get(path) {
  const response = await fetch(path, { signal: AbortSignal.timeout(TIMEOUT_MS), cache: "no-store" });
  const body = await response.json();
  // A failing monitor answers 503 and says why: that is news, not silence.
  if (!response.ok && !("status" in body)) throw new Error(body.error ?? `${path}: status ${response.status}`);
  return body;
}

const widthOf = (id) => Math.max(240, byId(id).clientWidth);
const clock = (date) => date.toLocaleTimeString("en-GB");

async function refresh() {
  try {
    const [health, { models }] = await Promise.all([get("health"), get("v1/models")]);
    const names = models.map(({ model }) => model);
    if (!names.includes(view.model)) view.model = names[0] ?? "";
    const model = view.model ? await get(`v1/models/${encodeURIComponent(view.model)}`) : null;
    last = { health, models, model };
    heardAt = new Date();
    byId("updated").textContent = `Last updated ${clock(heardAt)}`;
    byId("unreachable").hidden = true;
    document.body.classList.remove("stale");
    render();
  } catch (error) {
    byId("unreachable").textContent = heardAt
      ? `Monitor unreachable. What you see is from ${clock(heardAt)}. (${error.message})`
      : `Monitor unreachable. Trying again every ${EVERY_MS / 1000} seconds. (${error.message})`;
    byId("unreachable").hidden = false;
    document.body.classList.add("stale");
    if (!heardAt) showEmpty("No answer from the monitor", "Nothing can be shown until it answers.");
  } finally {
    setTimeout(refresh, EVERY_MS);
  }
}

function showEmpty(title, hint) {
  byId("empty").hidden = false;
  byId("panels").hidden = true;
  byId("empty-title").textContent = title;
  byId("empty-hint").textContent = hint;
}

function render(force = false) {
  const key = JSON.stringify([last, view]);
  // An unchanged answer leaves the page alone, and with it whatever is being hovered or selected.
  if (key === shown && !force) return;
  shown = key;

  const { health, models, model } = last;
  fillHealth(health);
  byId("model-picker").hidden = models.length < 2;
  choices(byId("model"), models.map((one) => [one.model, one.model]), view.model);
  const versions = inOrder(model?.versions ?? []);
  if (!versions.some((version) => version.panes.length)) {
    showEmpty("Waiting for the first event", "The monitor is up. Panes appear here when the server has answered its first request.");
    return;
  }
  byId("empty").hidden = true;
  byId("panels").hidden = false;
  document.title = `${model.model} · Tiltyard`;
  draw(model, versions);
}

function draw(model, versions) {
  const starts = timeline(versions, model.pane_s);
  if (!starts.includes(view.pane)) view.pane = ALL;
  if (!versions.some((version) => version.version === view.version)) view.version = versions[0].version;
  const version = versions.find((one) => one.version === view.version);
  const findingOf = (one) => (view.pane === ALL ? one.total : one.panes.find((pane) => Date.parse(pane.start) === view.pane));
  const state = { ...view, starts, onSelect: (start) => change("pane", start === view.pane ? ALL : start) };

  choices(byId("version"), versions.map((one) => [one.version, `${one.version}, ${one.role}`]), view.version);
  const panes = [...version.panes].reverse().map((pane) => {
    const start = Date.parse(pane.start);
    return [start, moment(start, model.pane_s)];
  });
  const chosen = panes.some(([start]) => start === view.pane) || view.pane === ALL;
  choices(byId("pane"), [[ALL, "all panes"], ...(chosen ? [] : [[view.pane, moment(view.pane, model.pane_s)]]), ...panes], view.pane);
  fillVersions(model, versions);
  fillComparisons(model, widthOf("comparisons"));
  fillCharts(model, versions, state, widthOf("charts"));
  fillDrift(model, version, state, widthOf("drift"));
  fillFeatures(findingOf(version), version.version);
  fillReliability(model, versions, versions.map(findingOf), widthOf("reliability"));
}

// Every pane from the first to the last, the silent ones too: an outage must look like one.
function timeline(versions, paneSeconds) {
  const known = [...new Set(versions.flatMap((version) => version.panes.map((pane) => Date.parse(pane.start))))].sort((a, b) => a - b);
  const [first, step] = [known[0], paneSeconds * 1000];
  const panes = Math.round((known.at(-1) - first) / step) + 1;
  const whole = known.every((start) => (start - first) % step === 0);
  return whole && panes <= MOST_PANES ? Array.from({ length: panes }, (_, i) => first + i * step) : known;
}

function change(name, value) {
  view[name] = value;
  if (last.models) render();
}

byId("pane").addEventListener("change", ({ target }) => change("pane", target.value === ALL ? ALL : Number(target.value)));
for (const name of ["version", "metric"]) {
  byId(name).addEventListener("change", (event) => change(name, event.target.value));
}
byId("model").addEventListener("change", async (event) => {
  Object.assign(view, { model: event.target.value, version: null, pane: ALL });
  history.replaceState(null, "", `#${encodeURIComponent(view.model)}`);
  try {
    last.model = await get(`v1/models/${encodeURIComponent(view.model)}`);
    render();
  } catch {
    // The next refresh says what is wrong.
  }
});
new ResizeObserver(() => last.models && render(true)).observe(byId("main"));
refresh();
