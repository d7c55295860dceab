// The map of the province's cities, or of a city's counties: SVG paths coloured by units on cloud, with pulses where
// readings and alarms arrive.

import { html, svg } from "./dom.js";
import { cells } from "./cells.js";
import { compact, count, named, t } from "./language.js";

const WIDTH = 800;
const STEPS = 6;
// Between linear (small counts vanish) and logarithmic (large counts look alike).
const POWER = 2.5;
// Labels that would sit on a border or a neighbour are moved: [x, y] in map units.
const NUDGE = {
  370100: [-6, 12], 370200: [2, -4], 370300: [13, 20], 370400: [-6, 0], 370500: [-4, -14], 370600: [-34, -18],
  370800: [-10, 0], 371100: [4, 4], 371300: [-8, 0], 371600: [4, -2],
};

/** Equirectangular, with longitudes shortened by the cosine of the middle latitude; fitted to WIDTH. */
function projection(features) {
  const points = features.flatMap((feature) => rings(feature).flat());
  const [xs, ys] = [points.map(([x]) => x), points.map(([, y]) => y)];
  const [west, east] = [Math.min(...xs), Math.max(...xs)];
  const [south, north] = [Math.min(...ys), Math.max(...ys)];
  const squeeze = Math.cos((((south + north) / 2) * Math.PI) / 180);
  const scale = WIDTH / ((east - west) * squeeze);
  const project = ([x, y]) => [(x - west) * squeeze * scale, (north - y) * scale];
  return { project, height: (north - south) * scale };
}

const rings = ({ geometry }) => (geometry.type === "Polygon" ? geometry.coordinates : geometry.coordinates.flat());

const outline = (feature, project) => rings(feature)
  .map((ring) => `M${ring.map((point) => project(point).map((n) => n.toFixed(1)).join(" ")).join("L")}Z`).join("");

/** A number that is easy to read: one significant digit. */
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

/** Areas as `PlaceMap` wants them: the cities, by their borders. */
export function cityAreas(features) {
  const { project, height } = projection(features);
  const areas = features.map((feature) => ({
    code: feature.properties.code, name: named(feature.properties).replace(/市$/, ""), d: outline(feature, project),
    at: project(feature.properties.center), nudge: NUDGE[feature.properties.code],
  }));
  return { areas, height };
}

/**
 * A city's counties: `counties` are {code, name, name_zh, longitude, latitude}. Their borders are not known, so each
 * gets the part of the city that lies nearest to its centre (a Voronoi cell).
 */
export function countyAreas(feature, counties) {
  const { project, height } = projection([feature]);
  const points = counties.map((each) => project([each.longitude, each.latitude]));
  const box = [[-9, -9], [WIDTH + 9, -9], [WIDTH + 9, height + 9], [-9, height + 9]];
  const areas = cells(points, box).map((cell, i) => ({
    code: counties[i].code, name: short(named(counties[i])), at: points[i],
    d: `M${cell.map((point) => point.map((n) => n.toFixed(1)).join(" ")).join("L")}Z`,
  }));
  return { areas, height, clip: outline(feature, project) };
}

/** Names as they fit on a map: "Licheng District" is Licheng there. */
const short = (name) => name.replace(/ (District|County|City)$/, "").replace(/Economic and Technological Development Zone/, "ETDZ")
  .replace(/Economic Development Zone/, "EDZ").replace(/经济技术开发区/, "经开区").replace(/高新技术(产业)?开发区|高技术产业开发区/, "高新区").replace(/经济开发区/, "经开区");

let maps = 0;

/** Draws areas once and recolours them afterwards; Enter or a click opens one, `onPoint(code | null)`. */
export class PlaceMap {
  constructor({ areas, height, clip = null }, { label, onPoint, onOpen }) {
    this.onPoint = onPoint;
    this.onOpen = onOpen;
    this.places = new Map();
    this.root = svg("svg", { id: "map", class: clip ? "counties" : null, role: "group", "aria-label": label, viewBox: `-6 -6 ${WIDTH + 12} ${Math.ceil(height) + 12}` });
    this.legend = html("ul", { class: "legend", "aria-label": t("map.legend") });
    const labels = svg("g", { class: "labels", "aria-hidden": "true" });
    this.pulses = svg("g", { class: "pulses", "aria-hidden": "true" });
    const id = `map-clip-${++maps}`;
    const shapes = svg("g", { "clip-path": clip && `url(#${id})` });
    if (clip) this.root.append(svg("clipPath", { id }, svg("path", { d: clip })));
    for (const { code, name, d, at: [x, y], nudge: [dx, dy] = [0, 0] } of areas) {
      const path = svg("path", { d, class: "city", tabindex: -1, role: "link", "data-code": code });
      const value = svg("tspan", { class: "value", x: x + dx, dy: "1.2em" });
      const label = svg("text", { x: x + dx, y: y + dy }, svg("tspan", { x: x + dx }, name), value);
      labels.append(label);
      shapes.append(path);
      this.places.set(code, { path, label, value, name, at: [x, y] });
      this.listen(code, path);
    }
    // Drawn above all areas: borders are shared, and a focused path that is moved to the front loses the focus.
    this.outline = svg("path", { class: "outline", "aria-hidden": "true" });
    shapes.append(this.outline);
    const rim = clip ? [svg("path", { class: "rim", d: clip, "aria-hidden": "true" })] : [];
    this.root.append(shapes, ...rim, this.pulses, labels);
    this.places.values().next().value.path.setAttribute("tabindex", 0);
  }

  listen(code, path) {
    path.addEventListener("pointerenter", () => this.point(code));
    path.addEventListener("pointerleave", () => this.point(null));
    path.addEventListener("focus", () => {
      for (const place of this.places.values()) place.path.setAttribute("tabindex", -1);
      path.setAttribute("tabindex", 0);
      this.point(code);
    });
    path.addEventListener("blur", () => this.point(null));
    path.addEventListener("click", () => this.onOpen(code));
    path.addEventListener("keydown", (event) => {
      const direction = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (direction) this.neighbour(code, direction)?.path.focus();
      else if (event.key === "Enter" || event.key === " ") this.onOpen(code);
      else return;
      event.preventDefault();
    });
  }

  /** The place that lies nearest in a direction, within 60 degrees of it. */
  neighbour(code, [dx, dy]) {
    const [x0, y0] = this.places.get(code).at;
    let best = null;
    let nearest = Infinity;
    for (const [other, place] of this.places) {
      const [x, y] = [place.at[0] - x0, place.at[1] - y0];
      const distance = Math.hypot(x, y);
      if (other === code || x * dx + y * dy < 0.5 * distance || distance >= nearest) continue;
      [best, nearest] = [place, distance];
    }
    return best;
  }

  point(code) {
    for (const [other, { path }] of this.places) path.classList.toggle("shown", other === code);
    this.outline.setAttribute("d", this.places.get(code)?.path.getAttribute("d") ?? "");
    this.onPoint(code);
  }

  /** `within`: counts by code. */
  update(within) {
    const onCloud = (code) => within[code]?.units_on_cloud ?? 0;
    const largest = Math.max(0, ...[...this.places.keys()].map(onCloud));
    const lower = largest > 0 ? bounds(largest) : [];
    for (const [code, place] of this.places) {
      const value = onCloud(code);
      const fill = String(step(value, lower));
      place.path.dataset.step = place.label.dataset.step = fill;
      place.value.textContent = compact(value);
      const all = count(within[code]?.units_registered ?? 0);
      place.path.setAttribute("aria-label", t("map.city", { name: place.name, n: count(value), all }));
    }
    this.draw(lower);
  }

  /** Rings that spread from places: `kind` is reading, joined or alarm. Few at a time, none where motion is unwanted. */
  pulse(code, kind) {
    const place = this.places.get(code);
    if (!place || document.hidden || this.pulses.childElementCount > 60 || matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    const [x, y] = place.at;
    const ring = svg("circle", { class: `pulse ${kind}`, cx: x, cy: y, r: 4 });
    ring.addEventListener("animationend", () => ring.remove());
    this.pulses.append(ring);
  }

  /** Open alarms by place, as marks that stay; a ring where there are more than before. */
  mark(byPlace) {
    for (const [code, n] of Object.entries(byPlace)) if (this.marked && n > (this.marked[code] ?? 0)) this.pulse(code, "alarm");
    this.marked = byPlace;
    this.root.querySelector(".alarm-marks")?.remove();
    const marks = svg("g", { class: "alarm-marks", "aria-hidden": "true" });
    for (const [code, n] of Object.entries(byPlace)) {
      const place = this.places.get(code);
      if (!place || !n) continue;
      const [x, y] = place.at;
      marks.append(svg("circle", { cx: x + 34, cy: y - 16, r: 9 }), svg("text", { x: x + 34, y: y - 12 }, n > 99 ? "99+" : n));
    }
    this.root.append(marks);
  }

  draw(lower) {
    // Large bounds are shown rounded, so there the next one ends the range; small ones count one by one.
    const ranges = lower.map((from, i) => [from, lower[i + 1] < 1000 ? lower[i + 1] - 1 : (lower[i + 1] ?? null)]);
    const key = JSON.stringify(ranges);
    if (key === this.legend.dataset.key) return;
    this.legend.dataset.key = key;
    const entry = (fill, text) => html("li", {}, html("span", { class: "swatch", "data-step": fill }), text);
    this.legend.replaceChildren(entry(0, t("none")), ...ranges.map(([from, to]) => {
      const text = to === null ? t("andMore", { n: compact(from) }) : from === to ? compact(from) : `${compact(from)}–${compact(to)}`;
      return entry(step(from, lower), text);
    }));
  }
}
