// Makes elements and words. Text enters the page through textContent only, so a feature or a
// category may be called whatever it likes.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "onclick") node.addEventListener("click", value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined) node.append(child);
  }
  return node;
}

export function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

export function number(value, digits = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const text = Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : value.toFixed(digits);
  return /^-0\.?0*$/.test(text) ? text.slice(1) : text.replace("-", "−");
}

export function pValue(value) {
  return value < 0.0001 ? "p < 0.0001" : `p = ${number(value, 4)}`;
}

export function signed(value, digits = 3) {
  return value > 0 ? `+${number(value, digits)}` : number(value, digits);
}

export function count(value) {
  return value === null || value === undefined ? "–" : Math.round(value).toLocaleString("en");
}

export function share(value, digits = 1) {
  if (value === null || value === undefined) return "–";
  if (value > 0 && value * 100 < 0.5 * 10 ** -digits) return `< ${10 ** -digits} %`;
  return `${(100 * value).toFixed(digits)} %`;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 120) return `${number(seconds, 1)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} days`;
}

// A pane's start, in milliseconds: the day when panes are days, else the minute. All in UTC, as in the API.
export function moment(at, paneSeconds) {
  const iso = new Date(at).toISOString();
  if (paneSeconds >= 86400) return iso.slice(0, 10);
  return paneSeconds >= 60 ? iso.slice(0, 16).replace("T", " ") : iso.slice(0, 19).replace("T", " ");
}

export function table(head, rows, attributes = {}) {
  const cells = (names, kind) =>
    names.map((cell, i) => {
      const content = cell instanceof Object && !(cell instanceof Node) ? cell : { content: cell };
      const tag = kind === "th" || i === 0 ? "th" : "td";
      const scope = kind === "th" ? "col" : i === 0 ? "row" : null;
      return el(tag, { scope, class: content.class, title: content.title }, content.content);
    });
  return el(
    "table",
    attributes,
    el("thead", {}, el("tr", {}, cells(head, "th"))),
    el("tbody", {}, rows.map((row) => el("tr", { class: row.class }, cells(row.cells, "td")))),
  );
}

// Fills a <select> without disturbing an open one: only when its choices changed.
export function choices(select, options, chosen) {
  const wanted = JSON.stringify(options);
  if (select.dataset.options !== wanted) {
    select.replaceChildren(...options.map(([value, text]) => el("option", { value }, text)));
    select.dataset.options = wanted;
  }
  select.value = chosen;
}
