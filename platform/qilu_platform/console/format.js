// Numbers and small pieces of the page.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const shortened = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

export const count = (n) => (n == null ? "–" : whole.format(n));
export const short = (n) => (n < 10_000 ? whole.format(n) : shortened.format(n));
export const compact = (n) => shortened.format(n);
export const rate = (n) => (n == null ? "–" : n < 10 ? tenth.format(n) : whole.format(n));

/** Share of a target; tiny but real progress is never shown as nothing. */
export function share(part, all) {
  if (!all || !part) return "0 %";
  const percent = (100 * part) / all;
  if (percent < 0.01) return "< 0.01 %";
  return `${percent < 1 ? percent.toFixed(2) : percent < 10 ? percent.toFixed(1) : Math.floor(percent)} %`;
}

/** A duration in ms, in the unit a person would say. */
export function duration(ms) {
  if (ms == null) return "–";
  if (ms < 1000) return `${whole.format(ms)} ms`;
  if (ms < 60_000) return `${tenth.format(ms / 1000)} s`;
  if (ms < 3_600_000) return `${tenth.format(ms / 60_000)} min`;
  return `${tenth.format(ms / 3_600_000)} h`;
}

const NAMES = {
  svg: "http://www.w3.org/2000/svg",
  html: "http://www.w3.org/1999/xhtml",
};

function make(space, tag, attributes, children) {
  const node = document.createElementNS(NAMES[space], tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

export const html = (tag, attributes = {}, ...children) => make("html", tag, attributes, children);
export const svg = (tag, attributes = {}, ...children) => make("svg", tag, attributes, children);
export const zh = (text) => html("span", { lang: "zh" }, text);

/** Sets a text only when it changed: the browser has less to do, and a reader's selection stays. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
