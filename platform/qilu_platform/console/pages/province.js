// The province: the map, the programme's targets, how they grow, what happens now.

import { get } from "../core/api.js";
import { Chart } from "../core/chart.js";
import { html, panel } from "../core/dom.js";
import { count, duration, rate, t } from "../core/language.js";
import { cityAreas, PlaceMap } from "../core/map.js";
import { icon } from "../core/icons.js";
import { bar, Beats, fact, KINDS, row, scaleNote, targetCards, tickerOf, totals } from "../parts/counts.js";
import { grown } from "../parts/history.js";

const FOLLOW_MS = 2000;
const SPANS = { hour: 3_600_000, day: 86_400_000, month: 30 * 86_400_000 };

export async function show(root, app, { query }) {
  const { catalogue } = app;
  const [programme, map, history] = await Promise.all([
    get("v1/programme"), get("console/shandong.geojson"), grown("370000", SPANS[query.get("span")] ?? SPANS.hour),
  ]);

  const headline = targetCards(catalogue);
  const scale = scaleNote();
  let times = 1;
  const readout = html("p", { class: "readout" });
  let pointed = null;
  let now = programme;
  let shown = history;
  const cityMap = new PlaceMap(cityAreas(map.features), { label: t("map.title"), onPoint: (code) => {
    pointed = code;
    paintReadout();
  }, onOpen: (code) => app.go(`#/place/${code}`) });

  const ticker = html("ol", { class: "ticker" });
  const kinds = html("dl", { class: "bars" });
  const cities = html("tbody");
  const classes = html("tbody");
  const pipeline = html("dl", { class: "facts" });

  function paintReadout() {
    const counts = pointed ? now.by_city[pointed] : totals(now.by_city);
    readout.replaceChildren(
      html("strong", {}, catalogue.placeName(pointed ?? "370000")),
      html("span", {}, t("units.ofRegistered", { n: count(counts.units_on_cloud), all: count(counts.units_registered) })),
      html("span", {}, t("enterprises.ofRegistered", { n: count(counts.enterprises_on_cloud), all: count(counts.enterprises_registered) })));
  }

  function paint(next) {
    now = next;
    headline.paint(next.targets, times);
    cityMap.update(next.by_city);
    paintReadout();
    for (const [code, counts] of Object.entries(next.by_city)) {
      row(cities, code, () => html("a", { href: `#/place/${code}` }, catalogue.placeName(code)),
        [counts.units_on_cloud, counts.units_registered], [counts.enterprises_on_cloud, counts.enterprises_registered]);
    }
    for (const [name, counts] of Object.entries(next.by_class)) {
      row(classes, name, () => html("span", { class: "class" }, icon(name), catalogue.className(name)),
        [counts.units_on_cloud, counts.units_registered]);
    }
    const most = Math.max(1, ...KINDS.map((kind) => next.contracts[kind]?.current ?? 0));
    for (const kind of KINDS) bar(kinds, kind, t(`kind.${kind}`), next.contracts[kind]?.current ?? 0, most);
    bar(funnel, "registered", t("registered"), next.registered.units, next.registered.units);
    bar(funnel, "on-cloud", t("onCloud"), totals(next.by_city).units_on_cloud, next.registered.units);
    bar(funnel, "active", t("active24"), next.active, next.registered.units);
  }
  /** The charts go on with the counts, without asking for the history again. */
  function follow(next) {
    paint(next);
    const all = totals(next.by_city);
    const row = [Date.now(), all.units_on_cloud, all.units_registered, all.enterprises_on_cloud, all.enterprises_registered];
    if (row[0] - (shown.rows.at(-1)?.[0] ?? 0) < FOLLOW_MS) return;
    shown = { rows: [...shown.rows, row], range: [shown.rows[0]?.[0] ?? row[0], row[0]] };
    paintGrowth(shown);
  }

  const funnel = html("dl", { class: "bars" });
  const growth = new Chart({
    label: t("growth.units"), height: 190, fromZero: true,
    series: [{ name: t("onCloud") }, { name: t("registered") }],
  });
  const growthOfEnterprises = new Chart({
    label: t("growth.enterprises"), height: 190, fromZero: true,
    series: [{ name: t("onCloud") }, { name: t("registered") }],
  });
  function paintGrowth({ rows, range }) {
    headline.history(rows);
    growth.set(rows.map((each) => [each[0], each[1] * times, each[2] * times]), range);
    growthOfEnterprises.set(rows.map((each) => [each[0], each[3] * times, each[4] * times]), range);
  }
  const span = html("select", { "aria-label": t("span"), onchange: async () => {
    app.remember({ span: span.value });
    paintGrowth((shown = await grown("370000", SPANS[span.value])));
  } }, Object.keys(SPANS).map((each) => html("option", { value: each, selected: each === (query.get("span") ?? "hour") }, t(`span.${each}`))));

  const beats = new Beats(cityMap);
  const paintTicker = tickerOf(ticker, cityMap, catalogue);
  function paintPipeline(next) {
    fact(pipeline, "accepted", t("pipeline.accepted"), t("perSecond", { n: rate(next.accepted_per_s) }));
    fact(pipeline, "lag", t("pipeline.lag"), duration(next.lag_ms));
    fact(pipeline, "dead", t("pipeline.dead"), count(next.dead_lettered));
  }

  paint(programme);
  paintGrowth(history);
  paintTicker({ items: [] });
  root.append(
    html("h1", { class: "hidden" }, t("nav./")), scale.root, headline.cards,
    html("div", { class: "province" },
      html("section", { class: "panel map-panel", "aria-label": t("map.title") },
        html("div", { class: "panel-head" }, html("h2", {}, t("map.title")), html("p", { class: "hint" }, t("map.hint"))),
        cityMap.root, readout, cityMap.legend),
      html("div", { class: "stack" },
        panel(t("ticker"), null, ticker),
        panel(t("pipeline.now"), html("a", { href: "#/pipeline" }, t("details")), pipeline)),
      html("div", { class: "stack" },
        panel(t("growth.units"), span, growth.root),
        panel(t("growth.enterprises"), null, growthOfEnterprises.root))),
    headline.others,
    html("div", { class: "thirds" },
      panel(t("byCity"), null, html("table", { id: "cities" }, html("thead", {}, html("tr", {}, html("th", { scope: "col" }, t("city")),
        html("th", { scope: "col" }, t("units")), html("th", { scope: "col" }, t("enterprises")))), cities)),
      panel(t("byClass"), null, html("table", { id: "classes" }, html("thead", {}, html("tr", {}, html("th", { scope: "col" }, t("class")),
        html("th", { scope: "col" }, t("units")))), classes)),
      html("div", { class: "stack" },
        panel(t("kinds"), null, kinds),
        panel(t("funnel"), null, funnel))));
  return {
    handlers: {
      replay: (next) => {
        times = scale.paint(next);
        paint(now);
        paintGrowth(shown);
      },
      programme: follow, pipeline: paintPipeline, ticker: paintTicker, activity: (next) => beats.paint(next.by_city), alarms: (next) => cityMap.mark(next.by_city),
    },
    close() {
      beats.close();
      growth.close();
      growthOfEnterprises.close();
    },
  };
}
