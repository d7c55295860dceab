// Security events: how often by kind, city and enterprise, and the latest.

import { get } from "../core/api.js";
import { html } from "../core/dom.js";
import { count, t, time } from "../core/language.js";
import { pagedTable } from "../core/table.js";

export async function securityList(app) {
  if (!app.may("operator", "viewer", "enterprise")) return html("p", { class: "note" }, t("security.may"));
  const { catalogue } = app;
  const cities = html("dl", { class: "bars" }), enterprises = html("dl", { class: "bars" });
  const kinds = html("select", { "aria-label": t("security.kind"), onchange: () => table.reload() }, html("option", { value: "" }, t("all")));

  async function load() {
    const found = await get("v1/security/events", { kind: kinds.value });
    for (const kind of Object.keys(found.by_kind)) {
      if (![...kinds.options].some((each) => each.value === kind)) kinds.append(html("option", { value: kind }, t(`security.${kind}`)));
    }
    paint(cities, found.by_city, (code) => catalogue.placeName(code));
    paint(enterprises, found.by_enterprise, (id) => id);
    return { items: found.items, next: null };
  }
  const table = pagedTable(t("security.list"), [
    [t("pipeline.at"), (each) => time(each.last_ms)],
    [t("security.kind"), (each) => t(`security.${each.kind}`)],
    [t("enterprise"), (each) => (each.enterprise ? html("a", { href: `#/enterprise/${encodeURIComponent(each.enterprise)}` }, each.enterprise) : "–")],
    [t("security.subject"), (each) => html("code", {}, each.subject)],
    [t("security.times"), (each) => count(each.count), "num"],
    [t("details"), (each) => html("small", { lang: "en" }, each.detail)],
  ], load, t("security.none"));
  const root = html("div", { class: "security with-side" }, html("div", {}, html("div", { class: "row filters" }, kinds), table),
    html("div", {}, html("h3", {}, t("security.byCity")), cities, html("h3", {}, t("security.byEnterprise")), enterprises));
  root.reload = table.reload;
  return root;
}

function paint(list, counts, nameOf) {
  const most = Math.max(1, ...Object.values(counts));
  list.replaceChildren(...Object.entries(counts).slice(0, 20).map(([key, n]) => html("div", {},
    html("dt", {}, nameOf(key)), html("dd", {}, html("span", {}, count(n)), html("progress", { max: most, value: n, "aria-label": nameOf(key) })))));
}
