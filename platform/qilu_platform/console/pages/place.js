// A city or a county: its counts, what is in it, its alarms, energy and emissions, enterprises and units.

import { get, id } from "../core/api.js";
import { Chart } from "../core/chart.js";
import { html, panel } from "../core/dom.js";
import { count, enterpriseName, share, t, value } from "../core/language.js";
import { icon } from "../core/icons.js";
import { pagedTable } from "../core/table.js";
import { alarmList } from "../parts/alarm_list.js";
import { crumbs, stateChip } from "../parts/labels.js";

export async function show(root, app, { code, query }) {
  const { catalogue } = app;
  const [place, history, energy] = await Promise.all([
    get(`v1/places/${id(code)}`),
    get(`v1/places/${id(code)}/history`).catch(() => null), // counties have none
    get(`v1/places/${id(code)}/energy`).catch(() => null),
  ]);
  app.title(catalogue.placeName(code));
  const { counts } = place;
  const scope = place.level === "county" ? { county: code } : { city: code };

  const charts = [];
  const chart = (label, series, rows) => {
    const made = new Chart({ label, series, height: 200, fromZero: true });
    made.set(rows);
    charts.push(made);
    return made.root;
  };
  const tiles = html("ul", { class: "cards" },
    tile(t("units.onCloud"), counts.units_on_cloud, t("ofRegistered", { n: count(counts.units_registered) }), counts.units_registered),
    tile(t("enterprises.onCloud"), counts.enterprises_on_cloud, t("ofRegistered", { n: count(counts.enterprises_registered) }), counts.enterprises_registered),
    energy && tile(t("energy.day"), Math.round(sum(energy.rows, 1)), "kWh"),
    energy && tile(t("co2.day"), Math.round(sum(energy.rows, 2)), "kg CO₂"));
  root.append(crumbs(app, code), html("h1", {}, catalogue.placeName(code)), tiles);

  const within = Object.entries(place.within);
  const body = within.map(([county, each]) => html("tr", {},
    html("th", { scope: "row" }, html("a", { href: `#/place/${county}` }, catalogue.placeName(county))),
    html("td", {}, html("b", {}, count(each.units_on_cloud)), " ", html("span", { class: "all" }, t("of", { n: count(each.units_registered) }))),
    html("td", {}, html("progress", { max: Math.max(1, each.units_registered), value: each.units_on_cloud, "aria-label": share(each.units_on_cloud, each.units_registered) })),
    html("td", {}, html("b", {}, count(each.enterprises_on_cloud)), " ", html("span", { class: "all" }, t("of", { n: count(each.enterprises_registered) })))));
  root.append(html("div", { class: "halves" },
    within.length > 0 && panel(t("counties"), null, html("div", { class: "scroll", tabindex: 0 }, html("table", { class: "list" }, html("thead", {}, html("tr", {},
      html("th", { scope: "col" }, t("county")), html("th", { scope: "col" }, t("units")), html("th", {}), html("th", { scope: "col" }, t("enterprises")))),
      html("tbody", {}, body)))),
    html("div", { class: "stack" },
      history?.rows.length > 1 && panel(t("growth.units"), null, chart(t("growth.units"), [{ name: t("onCloud") }, { name: t("registered") }], history.rows.map((row) => [row[0], row[1], row[2]]))),
      energy && energy.rows.length > 1 && panel(t("energy.hours"), null, chart(t("energy.hours"), [{ name: "kWh" }, { name: "kg CO₂" }], energy.rows)),
      energy && Object.keys(energy.by_class).length > 0 && panel(t("energy.classes"), null, html("table", { class: "list" }, html("thead", {}, html("tr", {},
        html("th", { scope: "col" }, t("class")), html("th", { scope: "col" }, "kWh"), html("th", { scope: "col" }, "kg CO₂"))),
        html("tbody", {}, Object.entries(energy.by_class).sort((a, b) => b[1].energy_kWh - a[1].energy_kWh).map(([name, used]) => html("tr", {},
          html("th", { scope: "row" }, html("span", { class: "class" }, icon(name), catalogue.className(name))),
          html("td", {}, value(used.energy_kWh)), html("td", {}, value(used.co2_kg))))))))));

  if (!app.session.signed_in) {
    root.append(app.signInFirst());
    return { close: () => charts.forEach((each) => each.close()) };
  }
  const kind = html("select", { "aria-label": t("class"), onchange: () => {
    app.remember({ class: kind.value || null });
    units.reload();
  } }, html("option", { value: "" }, t("allClasses")), [...catalogue.classes.values()].map((each) =>
    html("option", { value: each.name, selected: query.get("class") === each.name }, catalogue.className(each.name))));
  const enterprises = pagedTable(t("enterprises"), [
    [t("name"), (each) => html("a", { href: `#/enterprise/${id(each.id)}` }, enterpriseName(each, catalogue))],
    [t("industry"), (each) => catalogueName(catalogue.industry(each.industry), each.industry)],
    [t("contracts"), (each) => count(each.contracts_current), "num"],
  ], (cursor) => get("v1/enterprises", { ...scope, cursor, limit: 15 }));
  const units = pagedTable(t("units"), [
    [t("unit"), (each) => html("a", { href: `#/unit/${id(each.id)}` }, html("span", { class: "class" }, icon(each.class), each.name || each.id))],
    [t("class"), (each) => catalogue.className(each.class)],
    [t("state"), (each) => stateChip(each)],
  ], (cursor) => get("v1/units", { ...scope, cursor, limit: 15, class: kind.value }));
  root.append(
    panel(t("nav./alarms"), html("a", { href: `#/alarms?place=${code}` }, t("all")), await alarmList(app, { place: code, state: "open", limit: 8 })),
    html("div", { class: "halves" }, panel(t("enterprises"), null, enterprises), panel(t("units"), kind, units)));
  return { close: () => charts.forEach((each) => each.close()) };

  function catalogueName(thing, code_) {
    return thing ? (app.lang === "zh" ? thing.name_zh : thing.name) : code_;
  }
}

const sum = (rows, at) => rows.reduce((all, row) => all + row[at], 0);

const tile = (title, n, note, all) => html("li", { class: "card" }, html("h3", {}, title), html("p", { class: "number" }, count(n)),
  all !== undefined && html("progress", { max: Math.max(1, all), value: n, "aria-label": title }), html("p", { class: "of" }, note));
