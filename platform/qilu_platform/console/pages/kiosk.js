// A video wall: the map and the headline always, the other views in turn. Nothing lies below the fold.

import { get } from "../core/api.js";
import { Chart } from "../core/chart.js";
import { html, panel, say } from "../core/dom.js";
import { clockText, count, dayText, duration, lang, rate, t } from "../core/language.js";
import { cityAreas, PlaceMap } from "../core/map.js";
import { icon } from "../core/icons.js";
import { bar, Beats, fact, KINDS, row, scaleNote, targetCards, tickerOf, totals } from "../parts/counts.js";
import { grown } from "../parts/history.js";

const TURN_MS = 12_000;
const HISTORY_MS = 60_000;
const MONTH_MS = 30 * 86_400_000;
/** A screen that is at least so many times wider than high has room for three views beside the map. */
const WIDE = 2.6;

export async function show(root, app) {
  const { catalogue } = app;
  const [programme, map] = await Promise.all([
    get("v1/programme"), fetch("console/shandong.geojson").then((answer) => answer.json()),
  ]);
  const headline = targetCards(catalogue);
  const scale = scaleNote();
  let now = programme;
  let times = 1;
  const cityMap = new PlaceMap(cityAreas(map.features), { label: t("map.title"), onPoint: () => {}, onOpen: (code) => app.go(`#/place/${code}`) });
  const beats = new Beats(cityMap);
  const ticker = html("ol", { class: "ticker" });
  const paintTicker = tickerOf(ticker, cityMap, catalogue);
  const [cities, classes] = [html("tbody"), html("tbody")];
  const [kinds, funnel, pipeline] = [html("dl", { class: "bars" }), html("dl", { class: "bars" }), html("dl", { class: "facts" })];
  const chart = (label) => new Chart({ label, height: 200, fromZero: true, series: [{ name: t("onCloud") }, { name: t("registered") }] });
  const charts = [chart(t("growth.units")), chart(t("growth.enterprises"))];

  const head = (...titles) => html("thead", {}, html("tr", {}, titles.map((title) => html("th", { scope: "col" }, title))));
  const views = [
    html("div", { class: "view" }, panel(t("growth.units"), null, charts[0].root), panel(t("growth.enterprises"), null, charts[1].root)),
    html("div", { class: "view" }, panel(t("ticker"), null, ticker), panel(t("pipeline.now"), null, pipeline)),
    html("div", { class: "view" }, panel(t("byCity"), null, html("table", { id: "cities" }, head(t("city"), t("units"), t("enterprises")), cities))),
    html("div", { class: "view" }, panel(t("byClass"), null, html("table", { id: "classes" }, head(t("class"), t("units")), classes))),
    html("div", { class: "view" }, headline.others, panel(t("kinds"), null, kinds), panel(t("funnel"), null, funnel)),
  ];

  function paint(next) {
    now = next;
    headline.paint(next.targets, times);
    cityMap.update(next.by_city);
    for (const [code, counts] of Object.entries(next.by_city)) {
      row(cities, code, () => catalogue.placeName(code), [counts.units_on_cloud, counts.units_registered],
        [counts.enterprises_on_cloud, counts.enterprises_registered]);
    }
    for (const [name, counts] of Object.entries(next.by_class)) {
      row(classes, name, () => html("span", { class: "class" }, icon(name), catalogue.className(name)), [counts.units_on_cloud, counts.units_registered]);
    }
    const most = Math.max(1, ...KINDS.map((kind) => next.contracts[kind]?.current ?? 0));
    for (const kind of KINDS) bar(kinds, kind, t(`kind.${kind}`), next.contracts[kind]?.current ?? 0, most);
    bar(funnel, "registered", t("registered"), next.registered.units, next.registered.units);
    bar(funnel, "on-cloud", t("onCloud"), totals(next.by_city).units_on_cloud, next.registered.units);
    bar(funnel, "active", t("active24"), next.active, next.registered.units);
  }
  async function paintGrowth() {
    const { rows, range } = await grown("370000", MONTH_MS);
    headline.history(rows);
    charts.forEach((each, at) => each.set(rows.map((counts) => [counts[0], counts[2 * at + 1] * times, counts[2 * at + 2] * times]), range));
  }
  function paintPipeline(next) {
    fact(pipeline, "accepted", t("pipeline.accepted"), t("perSecond", { n: rate(next.accepted_per_s) }));
    fact(pipeline, "lag", t("pipeline.lag"), duration(next.lag_ms));
    fact(pipeline, "dead", t("pipeline.dead"), count(next.dead_lettered));
  }

  const slots = html("div", { class: "slots" });
  let first = 0;
  function turn(by = 1) {
    first = (first + by + views.length) % views.length;
    const many = innerWidth / innerHeight >= WIDE ? 3 : 1;
    slots.style.gridTemplateColumns = `repeat(${many}, minmax(0, 1fr))`;
    slots.replaceChildren(...Array.from({ length: many }, (_, at) => views[(first + at) % views.length]));
    fit();
  }
  /** A chart is as high as its panel: half a view less the title, the legend and the line below. */
  function fit() {
    const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
    for (const each of charts) {
      each.height = Math.max(120, Math.round(slots.clientHeight / 2 - 8 * rem));
      each.draw();
    }
  }

  const time = html("time");
  const tick = () => say(time, `${dayText(Date.now())}  ${clockText(Date.now())}`);
  const pause = html("button", { type: "button", class: "tool", "aria-pressed": "false", onclick: () => {
    const paused = pause.getAttribute("aria-pressed") === "false";
    pause.setAttribute("aria-pressed", String(paused));
    say(pause, t(paused ? "kiosk.go" : "kiosk.pause"));
  } }, t("kiosk.pause"));
  const keys = (event) => {
    if (event.target.closest?.(".city")) return;
    if (event.key === "ArrowRight") turn(1);
    else if (event.key === "ArrowLeft") turn(-1);
  };

  paint(programme);
  paintTicker({ items: [] });
  paintPipeline({});
  await paintGrowth();
  tick();
  root.append(
    html("div", { class: "kiosk-head" }, html("h1", {}, t("brand")), scale.root, time,
      html("p", { class: "row" }, pause, html("button", { type: "button", class: "tool", onclick: () => turn(1) }, t("kiosk.next")),
        html("a", { class: "tool", href: `./?lang=${lang}` }, t("kiosk.leave")))),
    headline.cards,
    html("div", { class: "wall" }, html("section", { class: "panel map-panel", "aria-label": t("map.title") },
      html("div", { class: "panel-head" }, html("h2", {}, t("map.title"))), cityMap.root, cityMap.legend), slots));
  turn(0);
  requestAnimationFrame(fit); // once the page stands, it knows its height
  addEventListener("keydown", keys);
  const resized = () => turn(0);
  addEventListener("resize", resized);
  const timers = [
    setInterval(tick, 1000),
    setInterval(() => pause.getAttribute("aria-pressed") === "false" && turn(), TURN_MS),
    setInterval(paintGrowth, HISTORY_MS),
  ];
  return {
    handlers: {
      replay: (next) => {
        const before = times;
        times = scale.paint(next);
        paint(now);
        if (times !== before) paintGrowth();
      },
      programme: paint, pipeline: paintPipeline, ticker: paintTicker,
      activity: (next) => beats.paint(next.by_city), alarms: ({ by_city: byCity }) => cityMap.mark(byCity),
    },
    close() {
      timers.forEach(clearInterval);
      removeEventListener("keydown", keys);
      removeEventListener("resize", resized);
      beats.close();
      charts.forEach((each) => each.close());
    },
  };
}
