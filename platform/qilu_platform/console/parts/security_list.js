// Security events: how often by kind and city, and the latest.

import { get } from "../core/api.js";
import { html } from "../core/dom.js";
import { count, t, time } from "../core/language.js";
import { pagedTable } from "../core/table.js";

export async function securityList(app) {
  if (!app.may("operator", "viewer", "enterprise")) return html("p", { class: "note" }, t("security.may"));
  const { catalogue } = app;
  const cities = html("dl", { class: "bars" });
  const kinds = html("select", { "aria-label": t("security.kind"), onchange: () => table.reload() }, html("option", { value: "" }, t("all")));

  async function load() {
    const found = await get("v1/security/events", { kind: kinds.value });
    for (const kind of Object.keys(found.by_kind)) {
      if (![...kinds.options].some((each) => each.value === kind)) kinds.append(html("option", { value: kind }, t(`security.${kind}`)));
    }
    const most = Math.max(1, ...Object.values(found.by_city));
    cities.replaceChildren(...Object.entries(found.by_city).map(([code, n]) => html("div", {},
      html("dt", {}, catalogue.placeName(code)), html("dd", {}, html("span", {}, count(n)), html("progress", { max: most, value: n, "aria-label": catalogue.placeName(code) })))));
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
  const root = html("div", { class: "security with-side" }, html("div", {}, html("div", { class: "row filters" }, kinds), table), cities);
  root.reload = table.reload;
  return root;
}
