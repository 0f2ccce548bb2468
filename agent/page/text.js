// Elements, and numbers as people read them. All text goes in as text: nothing that a VM is called is ever markup.

export function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== undefined && value !== false && value !== null) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

// A value that was not measured is absent and never 0.
export const ABSENT = "–";

export function bytes(value) {
  if (value === undefined || value === null) return ABSENT;
  let unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) { value /= 1024; unit += 1; }
  return `${value < 9.995 && unit ? value.toFixed(2) : value < 99.95 && unit ? value.toFixed(1) : value.toFixed(0)} ${UNITS[unit]}`;
}

export const rate = (value) => (value === undefined || value === null ? ABSENT : `${bytes(value)}/s`);
export const number = (value) => (value === undefined || value === null ? ABSENT : Number(value.toPrecision(3)).toLocaleString());
export const percent = (value) => (value === undefined || value === null ? ABSENT : `${value.toFixed(1)} %`);

export function when(text) {
  return text ? new Date(text).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" }) : ABSENT;
}

// Names come with direction marks at times: they must not turn what stands beside them.
export const name = (text) => (text || "").replace(/[\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g, "\ufffd");

export function sum(a, b) {
  return a === undefined || b === undefined ? undefined : a + b;
}

export function facts(pairs) {
  const list = el("dl", { class: "facts" });
  for (const [key, value] of pairs) {
    if (value === undefined || value === null || value === "") continue;
    list.append(el("dt", {}, key), el("dd", {}, value instanceof Node ? value : String(value)));
  }
  return list;
}

export function table(caption, head, rows, empty) {
  if (!rows.length) return el("p", { class: "dim" }, empty);
  const cell = (kind, text, attributes) => el(kind, attributes, text instanceof Node ? text : String(text));
  return el("div", { class: "wide" }, el("table", { "aria-label": caption },
    el("thead", {}, el("tr", {}, ...head.map((text) => cell("th", text, { scope: "col" })))),
    el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map((text) => cell("td", text, { class: "text" })))))));
}
