// A city or a county: its counts, what is in it, its alarms, energy and emissions, enterprises and units.

import { get, id } from "../core/api.js";
import { Chart } from "../core/chart.js";
import { html, panel, say } from "../core/dom.js";
import { count, enterpriseName, named, share, t, value } from "../core/language.js";
import { icon } from "../core/icons.js";
import { countyAreas, PlaceMap } from "../core/map.js";
import { pagedTable } from "../core/table.js";
import { alarmList } from "../parts/alarm_list.js";
import { Beats } from "../parts/counts.js";
import { grown } from "../parts/history.js";
import { crumbs, stateChip } from "../parts/labels.js";

const HOUR_MS = 3_600_000;
const AGAIN_MS = 10_000;

export async function show(root, app, { code, query }) {
  const { catalogue } = app;
  const isCity = catalogue.cities.has(code);
  const [place, history, energy, features] = await Promise.all([
    get(`v1/places/${id(code)}`),
    isCity ? grown(code, HOUR_MS) : null, // counties have none
    get(`v1/places/${id(code)}/energy`).catch(() => null),
    isCity ? fetch("console/shandong.geojson").then((answer) => answer.json()) : null,
  ]);
  app.title(catalogue.placeName(code));
  const scope = isCity ? { city: code } : { county: code };
  const charts = [];
  const chart = (label, series, { rows, range = null }) => {
    const made = new Chart({ label, series, height: 200, fromZero: true });
    made.set(rows, range);
    charts.push(made);
    return panel(label, null, made.root);
  };

  const tiles = [
    tile(t("units.onCloud"), "units_on_cloud", "units_registered"), tile(t("enterprises.onCloud"), "enterprises_on_cloud", "enterprises_registered"),
  ];
  const used = energy && [
    [t("energy.day"), 1, "kWh"], [t("co2.day"), 2, "kg CO₂"],
  ].map(([title, at, unit]) => html("li", { class: "card" }, html("h2", {}, title), html("p", { class: "number" }, energy.rows.length ? count(sum(energy.rows, at)) : "–"), html("p", { class: "of" }, unit)));
  const table = html("tbody");
  const readout = html("p", { class: "readout" });
  let now = place;
  let pointed = null;
  let map = null;
  let beats = null;
  let lists = null;

  function paint(next) {
    now = next;
    for (const each of tiles) each.paint(next.counts);
    map?.update(next.within);
    paintReadout();
    table.replaceChildren(...Object.entries(next.within).map(([county, each]) => html("tr", {},
      html("th", { scope: "row" }, html("a", { href: `#/place/${county}` }, catalogue.placeName(county))),
      ofAll(each.units_on_cloud, each.units_registered),
      html("td", { class: "wide-only bar" }, html("progress", { max: Math.max(1, each.units_registered), value: each.units_on_cloud, "aria-label": share(each.units_on_cloud, each.units_registered) })),
      ofAll(each.enterprises_on_cloud, each.enterprises_registered))));
  }
  function paintReadout() {
    const counts = pointed ? now.within[pointed] : now.counts;
    readout.replaceChildren(html("strong", {}, catalogue.placeName(pointed ?? code)),
      html("span", {}, t("units.ofRegistered", { n: count(counts.units_on_cloud), all: count(counts.units_registered) })),
      html("span", {}, t("enterprises.ofRegistered", { n: count(counts.enterprises_on_cloud), all: count(counts.enterprises_registered) })));
  }
  if (isCity) {
    const feature = features.features.find((each) => each.properties.code === code);
    map = new PlaceMap(countyAreas(feature, [...catalogue.counties.values()].filter((each) => each.city === code)), {
      label: t("map.counties"),
      onPoint: (county) => {
        pointed = county;
        paintReadout();
      },
      onOpen: (county) => app.go(`#/place/${county}`),
    });
    beats = new Beats(map);
  }
  paint(place);

  root.append(crumbs(app, code), html("h1", {}, catalogue.placeName(code)), html("ul", { class: "cards" }, tiles.map((each) => each.root), used));
  const energyChart = energy?.rows.length > 0 && chart(t("energy.hours"), [{ name: "kWh" }, { name: "kg CO₂" }], energy);
  const energyTable = energy && Object.keys(energy.by_class).length > 0 && panel(t("energy.classes"), null, html("table", { class: "list" }, html("thead", {}, html("tr", {},
    html("th", { scope: "col" }, t("class")), html("th", { scope: "col", class: "num" }, "kWh"), html("th", { scope: "col", class: "num" }, "kg CO₂"))),
    html("tbody", {}, Object.entries(energy.by_class).sort((a, b) => b[1].energy_kWh - a[1].energy_kWh).map(([name, each]) => html("tr", {},
      html("th", { scope: "row" }, html("span", { class: "class" }, icon(name), catalogue.className(name))),
      html("td", { class: "num" }, value(each.energy_kWh)), html("td", { class: "num" }, value(each.co2_kg)))))));
  if (isCity) {
    root.append(html("div", { class: "halves" },
      html("section", { class: "panel map-panel", "aria-label": t("map.counties") }, html("div", { class: "panel-head" }, html("h2", {}, t("map.counties"))),
        map.root, readout, map.legend, html("p", { class: "hint" }, t("map.schematic"))),
      html("div", { class: "stack" }, chart(t("growth.units"), [{ name: t("onCloud") }, { name: t("registered") }], { rows: history.rows.map((row) => row.slice(0, 3)), range: history.range }), energyChart)));
  }
  root.append(html("div", { class: "halves" },
    isCity && panel(t("counties"), null, html("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": t("counties") }, html("table", { class: "list" }, html("thead", {}, html("tr", {},
      html("th", { scope: "col" }, t("county")), html("th", { scope: "col" }, t("units")), html("td", { class: "wide-only" }), html("th", { scope: "col" }, t("enterprises")))), table))),
    !isCity && energyChart, energyTable));

  const again = setInterval(async () => {
    if (document.hidden) return;
    const next = await get(`v1/places/${id(code)}`).catch(() => null); // the shell says when the platform is gone
    if (!next) return;
    const changed = JSON.stringify(next.counts) !== JSON.stringify(now.counts);
    paint(next);
    if (changed) await lists?.refresh().catch(() => null);
  }, AGAIN_MS);
  const live = {
    handlers: map && {
      activity: ({ by_county: byCounty }) => beats.paint(here(byCounty)), alarms: ({ by_county: byCounty }) => map.mark(here(byCounty)),
    },
    close() {
      clearInterval(again);
      beats?.close();
      charts.forEach((each) => each.close());
    },
  };
  const here = (byCounty) => Object.fromEntries(Object.entries(byCounty).filter(([county]) => county in place.within));
  if (!app.session.signed_in) {
    root.append(app.signInFirst());
    return live;
  }
  const kind = html("select", { "aria-label": t("class"), onchange: () => {
    app.remember({ class: kind.value || null });
    units.reload();
  } }, html("option", { value: "" }, t("allClasses")), [...catalogue.classes.values()].map((each) =>
    html("option", { value: each.name, selected: query.get("class") === each.name }, catalogue.className(each.name))));
  const enterprises = pagedTable(t("enterprises"), [
    [t("name"), (each) => html("a", { href: `#/enterprise/${id(each.id)}` }, enterpriseName(each, catalogue))],
    [t("industry"), (each) => named(catalogue.industry(each.industry), each.industry)],
    [t("contracts"), (each) => count(each.contracts_current), "num"],
  ], (cursor) => get("v1/enterprises", { ...scope, cursor, limit: 15 }));
  const units = lists = pagedTable(t("units"), [
    [t("unit"), (each) => html("a", { href: `#/unit/${id(each.id)}` }, html("span", { class: "class" }, icon(each.class), each.name || each.id))],
    [t("class"), (each) => catalogue.className(each.class)],
    [t("state"), (each) => stateChip(each)],
  ], (cursor) => get("v1/units", { ...scope, cursor, limit: 15, class: kind.value }));
  root.append(
    panel(t("nav./alarms"), html("a", { href: `#/alarms?place=${code}` }, t("all")), await alarmList(app, { place: code, state: "open", limit: 8 })),
    html("div", { class: "halves" }, panel(t("enterprises"), null, enterprises), panel(t("units"), kind, units)));
  return live;
}

const sum = (rows, at) => rows.reduce((all, row) => all + row[at], 0);

const ofAll = (n, all) => html("td", {}, html("b", {}, count(n)), " ", html("span", { class: "all" }, t("of", { n: count(all) })));

function tile(title, onCloud, registered) {
  const number = html("p", { class: "number" });
  const bar = html("progress", { "aria-label": title });
  const of = html("p", { class: "of" });
  return {
    root: html("li", { class: "card" }, html("h2", {}, title), number, bar, of),
    paint(counts) {
      say(number, count(counts[onCloud]));
      [bar.max, bar.value] = [Math.max(1, counts[registered]), counts[onCloud]];
      say(of, t("ofRegistered", { n: count(counts[registered]) }));
    },
  };
}
