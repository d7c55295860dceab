// The map of the 16 cities: SVG paths from GeoJSON, coloured by units on cloud.

import { compact, count, html, short, svg } from "./format.js";

const WIDTH = 800;
const STEPS = 6;
// Between linear (small counts vanish) and logarithmic (large counts look alike).
const POWER = 2.5;
// Labels that would sit on a border or a neighbour are moved: [x, y] in map units.
const NUDGE = {
  370100: [-6, 12], 370200: [2, -4], 370300: [2, 26], 370400: [-6, 0], 370500: [-4, -14], 370600: [-34, -18],
  370800: [-10, 0], 371100: [4, 4], 371300: [-8, 0], 371600: [4, -2],
};

/** Equirectangular, with longitudes shortened by the cosine of the middle latitude; fitted to WIDTH. */
function projection(features) {
  const points = features.flatMap((feature) => rings(feature).flat());
  const xs = points.map(([x]) => x);
  const ys = points.map(([, y]) => y);
  const [west, east] = [Math.min(...xs), Math.max(...xs)];
  const [south, north] = [Math.min(...ys), Math.max(...ys)];
  const squeeze = Math.cos((((south + north) / 2) * Math.PI) / 180);
  const scale = WIDTH / ((east - west) * squeeze);
  const project = ([x, y]) => [(x - west) * squeeze * scale, (north - y) * scale];
  return { project, height: (north - south) * scale };
}

function rings({ geometry }) {
  return geometry.type === "Polygon" ? geometry.coordinates : geometry.coordinates.flat();
}

function outline(feature, project) {
  return rings(feature)
    .map((ring) => `M${ring.map((point) => project(point).map((n) => n.toFixed(1)).join(" ")).join("L")}Z`)
    .join("");
}

/** A number that is easy to read: one significant digit, two from 20 on the way between. */
function round(n) {
  const unit = 10 ** Math.floor(Math.log10(n));
  return Math.max(1, Math.round(n / unit) * unit);
}

/** Lower bounds of the colours, ascending, the first 1: at most STEPS, fewer when the largest count is small. */
export function bounds(largest) {
  const all = new Set([1]);
  for (let k = 1; k < STEPS; k++) {
    const bound = round(largest * (k / STEPS) ** POWER);
    if (bound > 1 && bound <= largest) all.add(bound);
  }
  return [...all].sort((a, b) => a - b);
}

/** 0 for nothing on cloud; else 1..STEPS, the largest counts always STEPS. */
export function step(value, lower) {
  const reached = lower.filter((bound) => value >= bound).length;
  return reached === 0 ? 0 : STEPS - lower.length + reached;
}

/**
 * Draws the cities once and recolours them afterwards.
 * `onFocus(code | null)` tells which city is pointed at, focused or pinned.
 */
export class CityMap {
  constructor(root, legend, features, onFocus) {
    this.legend = legend;
    this.onFocus = onFocus;
    this.cities = new Map();
    this.pinned = null;
    const { project, height } = projection(features);
    root.setAttribute("viewBox", `-6 -6 ${WIDTH + 12} ${Math.ceil(height) + 12}`);
    const labels = svg("g", { class: "labels", "aria-hidden": "true" });
    for (const feature of features) {
      const { code, name, center } = feature.properties;
      const [dx, dy] = NUDGE[code] ?? [0, 0];
      const [x, y] = project(center);
      const path = svg("path", {
        d: outline(feature, project), class: "city", tabindex: -1, role: "button", "aria-pressed": "false",
      });
      const value = svg("tspan", { class: "value", x: x + dx, dy: "1.200em" });
      const label = svg("text", { x: x + dx, y: y + dy }, svg("tspan", { x: x + dx }, name), value);
      labels.append(label);
      root.append(path);
      this.cities.set(code, { path, label, value, name, at: [x, y] });
      this.listen(code, path);
    }
    // Drawn above all cities: borders are shared, and a focused path that is moved to the front loses the focus.
    this.outline = svg("path", { class: "outline", "aria-hidden": "true" });
    root.append(this.outline, labels);
    this.cities.values().next().value.path.setAttribute("tabindex", 0);
  }

  listen(code, path) {
    path.addEventListener("pointerenter", () => this.point(code));
    path.addEventListener("pointerleave", () => this.point(null));
    path.addEventListener("focus", () => {
      for (const city of this.cities.values()) city.path.setAttribute("tabindex", -1);
      path.setAttribute("tabindex", 0);
      this.point(code);
    });
    path.addEventListener("blur", () => this.point(null));
    path.addEventListener("click", () => this.pin(code));
    path.addEventListener("keydown", (event) => {
      const direction = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (direction) this.neighbour(code, direction)?.path.focus();
      else if (event.key === "Enter" || event.key === " ") this.pin(code);
      else if (event.key === "Escape") this.pin(null);
      else return;
      event.preventDefault();
    });
  }

  /** The city that lies nearest in a direction, within 60 degrees of it. */
  neighbour(code, [dx, dy]) {
    const [x0, y0] = this.cities.get(code).at;
    let best = null;
    let nearest = Infinity;
    for (const [other, city] of this.cities) {
      const [x, y] = [city.at[0] - x0, city.at[1] - y0];
      const distance = Math.hypot(x, y);
      if (other === code || x * dx + y * dy < 0.5 * distance || distance >= nearest) continue;
      [best, nearest] = [city, distance];
    }
    return best;
  }

  /** Highlights a city for as long as it is pointed at; afterwards the pinned one, if there is one. */
  point(code) {
    const shown = code ?? this.pinned;
    for (const [other, { path }] of this.cities) path.classList.toggle("shown", other === shown);
    this.outline.setAttribute("d", this.cities.get(shown)?.path.getAttribute("d") ?? "");
    this.onFocus(shown);
  }

  pin(code) {
    this.pinned = this.pinned === code ? null : code;
    for (const [other, { path }] of this.cities) path.setAttribute("aria-pressed", String(other === this.pinned));
    this.point(this.pinned);
  }

  update(byCity) {
    const onCloud = (code) => byCity[code]?.units_on_cloud ?? 0;
    const largest = Math.max(0, ...[...this.cities.keys()].map(onCloud));
    const lower = largest > 0 ? bounds(largest) : [];
    for (const [code, city] of this.cities) {
      const value = onCloud(code);
      const fill = String(step(value, lower));
      city.path.dataset.step = city.label.dataset.step = fill;
      city.value.textContent = short(value);
      const registered = byCity[code]?.units_registered ?? 0;
      city.path.setAttribute(
        "aria-label", `${city.name}: ${count(value)} units on cloud of ${count(registered)} registered`);
    }
    this.draw(lower);
  }

  draw(lower) {
    // Large bounds are shown rounded, so there the next one ends the range; small ones count one by one.
    const ranges = lower.map((from, i) => [from, lower[i + 1] < 1000 ? lower[i + 1] - 1 : (lower[i + 1] ?? null)]);
    const key = JSON.stringify(ranges);
    if (key === this.legend.dataset.key) return;
    this.legend.dataset.key = key;
    const entry = (fill, text) => html("li", {}, html("span", { class: "swatch", "data-step": fill }), text);
    this.legend.replaceChildren(
      entry(0, "none"),
      ...ranges.map(([from, to]) => {
        const text = to === null ? `${compact(from)} and more` : from === to ? compact(from) : `${compact(from)}–${compact(to)}`;
        return entry(step(from, lower), text);
      }),
    );
  }
}
