// One unit: every signal as it is now, its history, its alarms, and what it can be told to do.

import { get, id } from "../core/api.js";
import { Chart, Spark } from "../core/chart.js";
import { html, panel, say, svg } from "../core/dom.js";
import { enterpriseName, named, t, time, unitText, value } from "../core/language.js";
import { icon } from "../core/icons.js";
import { alarmList } from "../parts/alarm_list.js";
import { commandPanel } from "../parts/commands.js";
import { classOf, unitSignal } from "../parts/device_type.js";
import { effectiveness } from "../parts/effectiveness.js";
import { crumbs, stateChip } from "../parts/labels.js";
import { truthList } from "../parts/truth_list.js";
import { problemList } from "../parts/problem_list.js";

const SPANS = { live: 600_000, hour: 3_600_000, day: 86_400_000, week: 7 * 86_400_000 };
const ROWS = 500;

export async function show(root, app, { id: unitId, query }) {
  const { catalogue } = app;
  const path = `v1/units/${id(unitId)}`;
  const [unit, newest] = await Promise.all([get(path), get(`${path}/latest`).catch(() => null)]);
  const [enterprise, before, class_] = await Promise.all([
    get(`v1/enterprises/${id(unit.enterprise)}`).catch(() => null), newest && recent(path, newest.ts_ms), classOf(unit, catalogue),
  ]);
  app.title(unit.name || unit.id);

  const cells = new Map();
  let chosen = class_.signals.find((each) => each.name === query.get("signal")) ?? class_.signals[0] ?? null;
  let span = SPANS[query.get("span")] ? query.get("span") : "live";
  let last = null; // {ts_ms, values}
  let chart = null;
  let zoomed = null;

  const signals = html("tbody");
  const none = html("p", { class: "note" }, t("unit.noSignals"));
  for (const signal of class_.signals) signals.append(signalRow(signal));
  const heard = html("span", { class: "heard" }, t("unit.noReading"));
  const born = html("span", {}, "–");
  const chartBox = html("div", { class: "chart-slot" });
  const chartTitle = html("h2");
  const spans = html("div", { class: "tabs", role: "group", "aria-label": t("span") }, Object.keys(SPANS).map((each) =>
    html("button", { type: "button", value: each, onclick: () => chosen && choose(chosen, each) }, t(`span.${each}`))));
  const storeNote = html("p", { class: "fault", role: "status" });
  const alarms = await alarmList(app, { unit: unitId, limit: 12 });
  const problems = await problemList(`${path}/problems`);
  const commands = await commandPanel(app, unit, class_);
  const oee = class_.oee ? effectiveness(unit, class_) : null;
  const truth = class_.faults.length ? await truthList(app, unit, class_) : null;

  function signalRow(signal) {
    const now = html("b", { class: "now", "data-signal": signal.name }, "–");
    const spark = new Spark();
    const needle = svg("circle", { r: 4, cy: 8, cx: -10 });
    const range = signal.low == null ? null : rangeBar(signal, needle);
    const button = html("button", { type: "button", class: "link", onclick: () => choose(signal, span) }, named(signal));
    const outside = html("small", { class: "outside", hidden: true }, t("unit.outside"));
    const row = html("tr", { "data-signal": signal.name }, html("th", { scope: "row" }, button, named(signal) !== signal.name && html("small", {}, html("code", {}, signal.name))),
      html("td", { class: "num" }, now, " ", html("span", { class: "unit" }, unitText(signal.unit)), outside),
      html("td", { class: "wide-only" }, range), html("td", { class: "wide-only" }, spark.root));
    cells.set(signal.name, { now, spark, needle, row, signal, outside });
    return row;
  }

  function paint(values, sparks = true) {
    for (const [name, n] of Object.entries(values)) {
      if (class_.learns && !cells.has(name)) learn(name);
      const cell = cells.get(name);
      if (!cell || n == null) continue;
      say(cell.now, value(n));
      const { low, high } = cell.signal;
      if (low != null) cell.needle.setAttribute("cx", String(Math.min(118, Math.max(2, 2 + (116 * (n - low)) / (high - low)))));
      cell.row.dataset.level = level(cell.signal, Number(n));
      cell.outside.hidden = low == null || (n >= low && n <= high);
      if (sparks) cell.spark.push(Number(n));
    }
  }

  /** A signal that the device sends for the first time. */
  function learn(name) {
    const signal = unitSignal({ name });
    none.remove();
    signals.append(signalRow(signal));
    if (!chosen) choose(signal, span);
  }

  function paintHeard(ms, bornMs) {
    heard.replaceChildren(t("unit.heard"), " ", time(ms));
    if (bornMs) born.replaceChildren(time(bornMs));
  }

  async function choose(signal, nextSpan) {
    [chosen, span, zoomed] = [signal, nextSpan, null];
    app.remember({ signal: signal.name, span: span === "live" ? null : span });
    for (const [name, { row }] of cells) row.classList.toggle("shown", name === signal.name);
    for (const tab of spans.children) tab.setAttribute("aria-pressed", String(tab.value === span));
    say(chartTitle, named(signal) + (unitText(signal.unit) ? ` (${unitText(signal.unit)})` : ""));
    chart?.close();
    chart = new Chart({
      label: named(signal), height: 300, series: [{ name: named(signal), unit: unitText(signal.unit) }],
      limits: signal.limits.map((each) => ({ value: each.limit, level: each.level, title: named(each) })),
      onZoom: (from, to) => {
        zoomed = from === null ? null : [from, to];
        load();
      },
    });
    chartBox.replaceChildren(chart.root);
    await load();
  }

  /** History of the chosen signal: single readings where they are few enough, else means of buckets. */
  async function load() {
    const mine = chart;
    const end = Math.max(last?.ts_ms ?? 0, last ? 0 : Date.now()) + 1;
    const length = Math.max(SPANS[span], span === "live" ? 60_000 * Math.ceil(chosen.interval_s / 6) : 0);
    const [from, to] = zoomed ?? [end - length, end];
    const perRow = (to - from) / ROWS;
    const every = perRow > chosen.interval_s * 1000 ? `${Math.ceil(perRow / 1000)}s` : undefined;
    try {
      const found = await get(`${path}/readings`, { from, to, signal: chosen.name, every });
      if (mine === chart) chart.set(found.rows.filter((row) => row[1] !== null).map(([ms, n]) => [ms, Number(n)]), [from, to]);
    } catch (error) {
      storeNote.textContent = error.message;
    }
  }

  if (before) {
    before.columns.slice(1).forEach((name, at) => cells.get(name)?.spark.set(before.rows.map((row) => row[at + 1]).filter((n) => n !== null).map(Number)));
    last = { ts_ms: newest.ts_ms, values: newest.values };
    paintHeard(newest.ts_ms);
    paint(newest.values, false);
  }

  const live = {
    latest: (event) => {
      const first = last === null;
      last = event;
      paintHeard(event.ts_ms, event.born_ms);
      paint(event.values, first);
      if (first && chosen) load();
    },
    readings: (event) => {
      const names = event.columns.slice(1);
      for (const row of event.rows) {
        paint(Object.fromEntries(names.map((name, at) => [name, row[at + 1]])));
        const at = event.columns.indexOf(chosen?.name);
        if (at > 0 && row[at] !== null && span === "live" && !zoomed) chart.push([row[0], Number(row[at])], Math.max(SPANS.live, 10_000 * chosen.interval_s));
      }
      last = { ts_ms: event.rows.at(-1)[0], values: {} };
      paintHeard(last.ts_ms, event.born_ms);
      commands.heard();
    },
    store: ({ error }) => (storeNote.textContent = error ?? ""),
  };
  const watch = setInterval(() => {
    if (document.hidden) return;
    alarms.reload();
    problems.reload();
    truth?.reload();
  }, 5000);
  const oeeWatch = oee && setInterval(() => !document.hidden && last && oee.reload(last.ts_ms + 1), 60_000);
  if (newest) oee?.reload(newest.ts_ms + 1);

  const name = enterprise ? enterpriseName(enterprise, catalogue) : unit.enterprise;
  const facts = [
    [t("id"), html("code", {}, unit.id)],
    [t("identifier"), html("code", {}, unit.identifier)],
    [t("class"), named(class_)],
    [t("enterprise"), html("a", { href: `#/enterprise/${id(unit.enterprise)}` }, name)],
    [t("place"), html("a", { href: `#/place/${unit.county}` }, `${catalogue.placeName(unit.city)} ${catalogue.placeName(unit.county)}`)],
    [t("registeredAt"), time(unit.registered_ms)],
    [t("onCloudSince"), time(unit.on_cloud_ms)],
    [t("unit.born"), born],
  ];
  root.append(
    crumbs(app, unit.county, { ...(enterprise ?? { id: unit.enterprise, name: unit.enterprise }), link: true }),
    html("div", { class: "unit-head" }, icon(unit.class), html("h1", {}, unit.name || unit.id), stateChip(unit), heard),
    storeNote,
    html("div", { class: "unit" },
      html("section", { class: "panel", "aria-label": t("signals") }, html("div", { class: "panel-head" }, html("h2", {}, t("signals"))),
        html("table", { class: "signals" }, html("thead", { class: "hidden" }, html("tr", {}, [t("signal"), t("value"), t("range"), t("course")].map((each) => html("th", { scope: "col" }, each)))), signals),
        !class_.signals.length && none),
      html("div", { class: "stack" },
        html("section", { class: "panel", "aria-label": t("history") }, html("div", { class: "panel-head" }, chartTitle, spans), chartBox, html("p", { class: "hint" }, t("chart.hint"))),
        oee && panel(t("oee"), null, oee),
        !class_.learns && panel(t("nav./alarms"), null, alarms),
        truth && panel(t("truth"), null, truth),
        !class_.learns && commands.root),
      html("div", { class: "stack" },
        panel(t("nameplate"), null, html("dl", { class: "plate" }, facts.map(([term, text]) => html("div", {}, html("dt", {}, term), html("dd", {}, text))))),
        panel(t("problems"), null, problems))));
  if (chosen) choose(chosen, span);
  return {
    stream: `${path}/events`,
    handlers: live,
    close() {
      clearInterval(watch);
      clearInterval(oeeWatch);
      commands.close();
      chart?.close();
    },
  };
}

/** All signals of the last minutes, for the small lines; null where there is no store. */
function recent(path, ms) {
  return get(`${path}/readings`, { from: Math.max(0, ms - SPANS.live), to: ms + 1, every: "10s" }).catch(() => null);
}

/** note, warning, alarm, or outside of the range; nothing when all is well. */
function level(signal, n) {
  const order = ["alarm", "warning", "note"];
  const found = signal.limits.filter((each) => (each.kind === "above" ? n > each.limit : n < each.limit)).map((each) => each.level);
  return order.find((each) => found.includes(each)) ?? (signal.low != null && (n < signal.low || n > signal.high) ? "outside" : "");
}

/** A signal's range as a bar, with its limits as marks and the value as a dot. */
function rangeBar(signal, needle) {
  const { low, high } = signal;
  const x = (n) => 2 + (116 * (n - low)) / (high - low);
  const marks = signal.limits.filter((each) => each.limit >= low && each.limit <= high).map((each) =>
    svg("line", { class: each.level, x1: x(each.limit), x2: x(each.limit), y1: 2, y2: 14 }, svg("title", {}, `${named(each)}: ${value(each.limit)}`)));
  const zone = signal.limits.find((each) => each.level === "alarm");
  const bad = zone && (zone.kind === "above" ? [x(zone.limit), 118] : [2, x(zone.limit)]);
  return svg("svg", { class: "range", viewBox: "0 0 120 16", role: "img", "aria-label": t("rangeOf", { low: value(low), high: value(high) }) },
    svg("rect", { x: 2, y: 6, width: 116, height: 4, rx: 2 }), bad && svg("rect", { class: "bad", x: bad[0], y: 6, width: Math.max(0, bad[1] - bad[0]), height: 4 }), marks, needle);
}
