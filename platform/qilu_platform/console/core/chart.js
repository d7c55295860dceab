// A line chart over time: axes, zoom by dragging, a cursor for pointer and keyboard. SVG, so that it takes its
// colours from the page's style and can be read by a screen reader.

import { html, svg } from "./dom.js";
import { clockText, compact, dayText, t, timeText, value } from "./language.js";

const MARGIN = { top: 10, right: 14, bottom: 24, left: 54 };
const STEPS_MS = [1e3, 2e3, 5e3, 1e4, 3e4, 6e4, 12e4, 3e5, 6e5, 18e5, 36e5, 72e5, 216e5, 432e5, 864e5, 6048e5, 2592e6, 7776e6, 31536e6];
/** Around a single point. */
const ALONE_MS = 1_800_000;
let made = 0;

/** Round numbers that divide a range into about `wanted` steps. */
export function ticks(low, high, wanted) {
  const rough = (high - low) / wanted || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough);
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step / 1e6; at += step) found.push(Math.abs(at) < step / 1e6 ? 0 : at);
  return found;
}

export class Chart {
  /**
   * `series`: [{name, unit}]; `band`: [low, high] that is normal; `limits`: [{value, level, title}];
   * `fromZero`: the axis begins at 0; `onZoom(from, to)`, null and null when it is undone.
   */
  constructor({ label, series, band = null, limits = [], fromZero = false, height = 260, onZoom = null }) {
    Object.assign(this, { label, series, band, limits, fromZero, height, onZoom });
    this.times = [];
    this.values = series.map(() => []);
    this.width = 640;
    this.clip = `chart-${++made}`;
    this.plot = svg("g");
    this.cursor = svg("g", { class: "cursor" });
    this.picture = svg("svg", { class: "chart", role: "img", tabindex: 0, "aria-label": label }, this.plot, this.cursor);
    this.tip = html("p", { class: "tip", "aria-live": "polite" });
    const legend = series.length > 1 && html("ul", { class: "legend" }, series.map((each, at) =>
      html("li", {}, html("span", { class: `swatch line-${at}` }), each.name)));
    this.root = html("figure", { class: "chart-box" }, legend, this.picture, this.tip);
    this.listen();
    this.observer = new ResizeObserver(([entry]) => {
      const width = Math.round(entry.contentRect.width);
      if (width < 40 || width === this.width) return;
      this.width = width;
      this.draw();
    });
    this.observer.observe(this.root);
  }

  close() {
    this.observer.disconnect();
  }

  /** Rows [ms, value of each series]; null where a series has none. */
  set(rows, range = null) {
    this.times = rows.map((row) => row[0]);
    this.values = this.series.map((_, at) => rows.map((row) => row[at + 1]));
    this.range = range;
    this.draw();
  }

  push(row, keepMs) {
    if (this.times.length && row[0] < this.times.at(-1)) return;
    this.times.push(row[0]);
    this.values.forEach((column, at) => column.push(row[at + 1]));
    while (this.times[0] < row[0] - keepMs) {
      this.times.shift();
      for (const column of this.values) column.shift();
    }
    this.range = [row[0] - keepMs, row[0]];
    this.draw();
  }

  scales() {
    const shown = this.values.flat().filter((each) => each != null);
    let [first, last] = this.range ?? [this.times[0] ?? 0, this.times.at(-1) ?? 1];
    if (last <= first) [first, last] = [first - ALONE_MS, first + ALONE_MS];
    let [low, high] = [Math.min(...shown), Math.max(...shown)];
    if (!shown.length) [low, high] = this.band ?? [0, 1];
    // A limit that is near is shown; one that is far would press the line flat.
    const reach = Math.max(high - low, Math.abs(high) * 0.05, 1e-9);
    for (const limit of this.limits) {
      if (limit.value > high && limit.value - high < 2 * reach) high = limit.value;
      if (limit.value < low && low - limit.value < 2 * reach) low = limit.value;
    }
    if (this.fromZero) low = Math.min(0, low);
    const room = (high - low) * 0.08 || Math.abs(high) * 0.05 || 1;
    if (!this.fromZero) low -= room;
    high += room;
    const [wide, tall] = [this.width - MARGIN.left - MARGIN.right, this.height - MARGIN.top - MARGIN.bottom];
    const x = (ms) => MARGIN.left + (wide * (ms - first)) / Math.max(1, last - first);
    const y = (n) => MARGIN.top + tall * (1 - (n - low) / (high - low));
    return { x, y, low, high, first, last, wide, tall };
  }

  draw() {
    const scale = (this.scale = this.scales());
    const { x, y, low, high, first, last, wide, tall } = scale;
    this.picture.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
    this.picture.setAttribute("height", this.height);
    const bottom = MARGIN.top + tall;
    const parts = [svg("clipPath", { id: this.clip }, svg("rect", { x: MARGIN.left, y: MARGIN.top, width: wide, height: tall }))];
    if (this.band) {
      const [top, base] = [Math.max(MARGIN.top, y(this.band[1])), Math.min(bottom, y(this.band[0]))];
      if (base > top) parts.push(svg("rect", { class: "band", x: MARGIN.left, y: top, width: wide, height: base - top }));
    }
    for (const at of ticks(low, high, Math.max(2, tall / 46))) {
      parts.push(svg("line", { class: "grid", x1: MARGIN.left, x2: MARGIN.left + wide, y1: y(at), y2: y(at) }));
      parts.push(svg("text", { class: "tick", x: MARGIN.left - 8, y: y(at) + 4, "text-anchor": "end" }, Math.abs(at) < 1e6 ? value(at) : compact(at)));
    }
    const step = STEPS_MS.find((each) => (last - first) / each <= wide / 110) ?? STEPS_MS.at(-1);
    const offset = 8 * 36e5; // days begin in Shanghai
    for (let at = Math.ceil((first + offset) / step) * step - offset; at <= last; at += step) {
      const text = step >= 864e5 ? dayText(at) : clockText(at).slice(0, step < 6e4 ? 8 : 5);
      parts.push(svg("line", { class: "grid", x1: x(at), x2: x(at), y1: MARGIN.top, y2: bottom }));
      // At the right edge a label would be cut.
      const anchor = x(at) > this.width - 34 ? "end" : "middle";
      parts.push(svg("text", { class: "tick", x: anchor === "end" ? this.width : x(at), y: bottom + 17, "text-anchor": anchor }, text));
    }
    for (const limit of this.limits) {
      if (limit.value < low || limit.value > high) continue;
      parts.push(svg("line", { class: `limit ${limit.level}`, x1: MARGIN.left, x2: MARGIN.left + wide, y1: y(limit.value), y2: y(limit.value) },
        svg("title", {}, `${limit.title}: ${value(limit.value)}`)));
    }
    // The first series lies above the others.
    this.values.map((column, at) => this.line(column, at, x, y)).reverse().forEach((line) => parts.push(line));
    this.plot.replaceChildren(...parts);
    this.describe();
  }

  line(column, at, x, y) {
    const points = [];
    column.forEach((n, i) => n == null || points.push([x(this.times[i]).toFixed(1), y(n).toFixed(1)]));
    if (points.length === 1) return svg("circle", { class: `point line-${at}`, cx: points[0][0], cy: points[0][1], r: 4 });
    return svg("path", { class: `line line-${at}`, d: points.length ? `M${points.map((each) => each.join(" ")).join("L")}` : "", "clip-path": `url(#${this.clip})` });
  }

  describe() {
    const said = this.series.map(({ name, unit }, at) => {
      const shown = this.values[at].filter((each) => each != null);
      if (!shown.length) return `${name}: ${t("noValues")}`;
      return `${name}: ${t("fromTo", { low: value(Math.min(...shown)), high: value(Math.max(...shown)), last: value(shown.at(-1)) })} ${unit ?? ""}`;
    });
    this.picture.setAttribute("aria-label", `${this.label}. ${said.join("; ")}`);
  }

  listen() {
    const at = (event) => {
      const box = this.picture.getBoundingClientRect();
      const ratio = (((event.clientX - box.left) / box.width) * this.width - MARGIN.left) / this.scale.wide;
      return this.scale.first + Math.min(1, Math.max(0, ratio)) * (this.scale.last - this.scale.first);
    };
    let from = null;
    this.picture.addEventListener("pointermove", (event) => {
      this.point(at(event));
      if (from !== null) this.select(from, at(event));
    });
    this.picture.addEventListener("pointerleave", () => from === null && this.point(null));
    this.picture.addEventListener("pointerdown", (event) => {
      if (!this.onZoom || event.button) return;
      from = at(event);
      this.picture.setPointerCapture(event.pointerId);
    });
    this.picture.addEventListener("pointerup", (event) => {
      const [low, high] = [from, at(event)].sort((a, b) => a - b);
      const drawn = from !== null && this.scale.x(high) - this.scale.x(low) > 8;
      from = null;
      this.cursor.replaceChildren();
      if (drawn) this.onZoom(Math.floor(low), Math.ceil(high));
    });
    this.picture.addEventListener("dblclick", () => this.onZoom?.(null, null));
    this.picture.addEventListener("keydown", (event) => {
      const last = this.times.length - 1;
      const moves = { ArrowLeft: -1, ArrowRight: 1, Home: -last, End: last };
      if (event.key in moves && last >= 0) {
        this.index = Math.min(last, Math.max(0, (this.index ?? last) + moves[event.key]));
        this.point(this.times[this.index]);
      } else if (event.key === "Escape") this.onZoom?.(null, null);
      else return;
      event.preventDefault();
    });
  }

  select(from, to) {
    const [low, high] = [this.scale.x(from), this.scale.x(to)].sort((a, b) => a - b);
    this.cursor.append(svg("rect", { class: "selection", x: low, y: MARGIN.top, width: high - low, height: this.scale.tall }));
  }

  /** Shows the sample that lies nearest to a time. */
  point(ms) {
    if (ms === null || !this.times.length) {
      this.cursor.replaceChildren();
      this.tip.textContent = "";
      return;
    }
    let best = 0;
    this.times.forEach((each, i) => {
      if (Math.abs(each - ms) < Math.abs(this.times[best] - ms)) best = i;
    });
    this.index = best;
    const x = this.scale.x(this.times[best]);
    const parts = [svg("line", { x1: x, x2: x, y1: MARGIN.top, y2: MARGIN.top + this.scale.tall })];
    const said = [];
    this.series.forEach(({ name, unit }, at) => {
      const n = this.values[at][best];
      if (n == null) return;
      parts.push(svg("circle", { class: `dot line-${at}`, cx: x, cy: this.scale.y(n), r: 4 }));
      said.push(this.series.length > 1 ? `${name} ${value(n)} ${unit ?? ""}` : `${value(n)} ${unit ?? ""}`);
    });
    this.cursor.replaceChildren(...parts);
    this.tip.textContent = `${timeText(this.times[best])}  ${said.join(" · ")}`;
  }
}

/** A line without axes for a table's cell. */
export class Spark {
  constructor(length = 60) {
    this.length = length;
    this.values = [];
    this.path = svg("path");
    this.root = svg("svg", { class: "spark", viewBox: "0 0 100 24", preserveAspectRatio: "none", "aria-hidden": "true" }, this.path);
  }

  set(values) {
    this.values = [];
    this.push(...values);
  }

  push(...values) {
    this.values = [...this.values, ...values].slice(-this.length);
    if (!this.values.length) return;
    const [low, high] = [Math.min(...this.values), Math.max(...this.values)];
    const y = (n) => (high > low ? 21 - (18 * (n - low)) / (high - low) : 12);
    const step = 100 / Math.max(1, this.values.length - 1);
    if (this.values.length === 1) this.path.setAttribute("d", "M48 12h4"); // a short dash: one value so far
    else this.path.setAttribute("d", `M${this.values.map((n, i) => `${(i * step).toFixed(1)} ${y(n).toFixed(1)}`).join("L")}`);
  }
}
