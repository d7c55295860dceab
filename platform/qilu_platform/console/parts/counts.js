// The programme's counts as pages show them: headline, bars, rows, what happens now.

import { Spark } from "../core/chart.js";
import { html, say } from "../core/dom.js";
import { compact, count, monthText, named, share, t, time } from "../core/language.js";

const HEADLINE = ["enterprises_on_cloud", "units_on_cloud", "providers", "centres"];
export const KINDS = ["infrastructure", "platform", "business", "equipment"];
/** What a played run of the model takes a share of; everything else it brings in full. */
const SCALED = new Set(["enterprises_on_cloud", "units_on_cloud", "pilots"]);
const PULSES_PER_TEN_SECONDS = 40;

/** A count of the province's size, of which a run brings one in `times`. */
export const wholeCount = (name, counted, times) => (SCALED.has(name) ? Math.round(counted * times) : counted);

/** Says at which scale the page's counts are while a run is played; `paint(replay)` returns the factor. */
export function scaleNote() {
  const root = html("p", { class: "note scale", hidden: true });
  return { root, paint({ scale, month }) {
    const times = 1 / scale;
    root.hidden = false;
    say(root, `${t("replay")} · ${monthText(Date.parse(`${month}-01`))} · ${times > 1 ? t("replay.cards", { n: count(times) }) : t("replay.whole")}`);
    return times;
  } };
}

/** Which column of a history (`grown`) shows how a card's count grew. */
const GROWTH = { units_on_cloud: 1, enterprises_on_cloud: 3 };

/**
 * Every target: four as cards, the others as a list; `paint(targets)` brings them up to date, `history(rows)` draws
 * how they grew.
 */
export function targetCards(catalogue) {
  const cards = html("ul", { class: "cards" });
  const others = html("dl", { class: "panel others" });
  const targets = new Map();

  function make(name, wanted) {
    const about = catalogue.targets.get(name) ?? { title: name };
    const number = html(HEADLINE.includes(name) ? "p" : "b", { class: "number", "data-counter": name });
    const [part, more] = [html("strong"), html("span")];
    const bar = html("progress", { max: wanted, "aria-label": t("shareOf", { what: named(about) }) });
    const of = t("ofTarget", { n: about.wanted ?? count(wanted) });
    const spark = name in GROWTH && new Spark(200);
    const box = HEADLINE.includes(name)
      ? html("li", { class: "card" }, html("h2", {}, named(about)), number, spark && spark.root, bar, html("p", { class: "of" }, part, " ", of, more))
      : html("div", {}, html("dt", {}, named(about)), html("dd", {}, number, ` ${of}`));
    (HEADLINE.includes(name) ? cards : others).append(box);
    return { number, bar, part, more, box, spark };
  }

  function paint(all, times = 1) {
    for (const { name, target: wanted, current: left, onboarded: counted, reached } of all) {
      const [current, onboarded] = [wholeCount(name, left, times), wholeCount(name, counted, times)];
      if (!targets.has(name)) targets.set(name, make(name, wanted));
      const entry = targets.get(name);
      if (entry.number.textContent && entry.number.textContent !== count(onboarded)) flash(entry.number);
      say(entry.number, count(onboarded));
      say(entry.part, share(onboarded, wanted));
      say(entry.more, current < onboarded ? ` · ${t("nowCurrent", { n: count(current) })}` : "");
      entry.bar.value = Math.min(onboarded, wanted);
      entry.box.classList.toggle("reached", times > 1 ? onboarded > wanted : reached);
    }
  }
  function history(rows) {
    for (const [name, at] of Object.entries(GROWTH)) targets.get(name)?.spark.set(rows.map((row) => row[at]).filter((n) => n !== null));
  }
  return { cards, others, paint, history };
}

/** Rings on the map where readings arrive: as many in ten seconds as fit, shared out by the last minute's readings. */
export class Beats {
  constructor(map) {
    this.map = map;
    this.timers = [];
  }

  /** `byPlace`: readings by the code of the map's places. */
  paint(byPlace) {
    this.close();
    const all = Object.values(byPlace).reduce((sum, n) => sum + n, 0);
    if (!all) return;
    const rings = Math.min(PULSES_PER_TEN_SECONDS, Math.max(4, Math.round(all / 60)));
    for (const [code, n] of Object.entries(byPlace)) {
      const mine = Math.max(1, Math.round((rings * n) / all));
      for (let i = 0; i < mine; i++) {
        this.timers.push(setTimeout(() => this.map.pulse(code, "reading"), ((i + Math.random()) / mine) * 10_000));
      }
    }
  }

  close() {
    this.timers.splice(0).forEach(clearTimeout);
  }
}

/** A function that shows ticker events in `list`, with rings on the map where units came on cloud. */
export function tickerOf(list, cityMap, catalogue) {
  let told = -1;
  return ({ items }) => {
    for (const item of items) if (item.at_ms > told && told >= 0 && item.what === "units") cityMap.pulse(item.code, "joined");
    if (items.length) told = items[0].at_ms;
    list.replaceChildren(...items.slice(0, 14).map((item) => html("li", { class: item.what },
      time(item.at_ms, (ms) => new Date(ms).toLocaleTimeString(document.documentElement.lang, { timeZone: "Asia/Shanghai", hour12: false })),
      html("span", {}, sentence(item, catalogue)))));
    if (!items.length) list.replaceChildren(html("li", { class: "note" }, t("ticker.none")));
  };
}

export const totals = (byCity) => Object.values(byCity).reduce((sums, counts) => {
  for (const [name, n] of Object.entries(counts)) sums[name] = (sums[name] ?? 0) + n;
  return sums;
}, {});

/** A table row, made once for its key: a heading, and a cell for each [on cloud, registered]. */
export function row(body, key, heading, ...pairs) {
  let line = body.querySelector(`tr[data-key="${key}"]`);
  if (!line) {
    line = html("tr", { "data-key": key }, html("th", { scope: "row" }, heading()), pairs.map(() =>
      html("td", {}, html("b"), " ", html("span", { class: "all" }))));
    body.append(line);
  }
  pairs.forEach(([onCloud, registered], i) => {
    say(line.cells[i + 1].firstChild, compact(onCloud));
    say(line.cells[i + 1].lastChild, t("of", { n: compact(registered) }));
  });
}

export function bar(list, key, title, value, all) {
  let entry = list.querySelector(`div[data-key="${key}"]`);
  if (!entry) {
    entry = html("div", { "data-key": key }, html("dt", {}, title), html("dd", {}, html("span"), html("progress", { "aria-label": title })));
    list.append(entry);
  }
  say(entry.querySelector("dd span"), count(value));
  const progress = entry.querySelector("progress");
  progress.max = Math.max(1, all);
  progress.value = Math.min(value, progress.max);
}

export function fact(list, key, title, text) {
  let entry = list.querySelector(`div[data-key="${key}"]`);
  if (!entry) list.append((entry = html("div", { "data-key": key }, html("dt", {}, title), html("dd"))));
  say(entry.lastChild, text);
}

function flash(node) {
  node.classList.remove("flash");
  void node.offsetWidth; // begins the animation anew
  node.classList.add("flash");
}

function sentence(item, catalogue) {
  const values = { n: count(item.n), total: count(item.total) };
  if (item.what === "milestone") {
    return t("ticker.milestone", { what: named(catalogue.targets.get(item.code), item.code), n: values.n });
  }
  if (item.what === "contracts") return t("ticker.contracts", { ...values, kind: t(`kind.${item.code}`) });
  const place = catalogue.placeName(item.code);
  if (item.what === "alarm") {
    return t("ticker.alarm", { place, class: catalogue.className(item.class), signal: catalogue.signalName(item.class, item.signal) });
  }
  return t(`ticker.${item.what}`, { ...values, place });
}
