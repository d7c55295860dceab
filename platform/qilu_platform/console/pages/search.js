// Search by name and by identifier.

import { get, id } from "../core/api.js";
import { html, panel } from "../core/dom.js";
import { enterpriseName, t } from "../core/language.js";
import { icon } from "../core/icons.js";
import { pagedTable } from "../core/table.js";
import { stateChip } from "../parts/labels.js";

export async function show(root, app, { query }) {
  const { catalogue } = app;
  const text = query.get("q") ?? "";
  app.title(t("search"));
  root.append(html("h1", {}, t("search.for", { text })));
  if (!app.session.signed_in) {
    root.append(app.signInFirst());
    return {};
  }
  const places = [...catalogue.cities.values(), ...catalogue.counties.values()]
    .filter((each) => [each.code, each.name.toLowerCase(), each.name_zh].some((name) => name.startsWith(text.toLowerCase())));
  if (places.length) {
    root.append(panel(t("place"), null, html("ul", { class: "plain" }, places.slice(0, 12).map((each) => html("li", {}, html("a", { href: `#/place/${each.code}` }, catalogue.placeName(each.code)))))));
  }
  // Lists find ids only when asked for the whole id.
  const isId = /^[A-Za-z0-9_-]{1,32}$/.test(text);
  const exactly = (kind) => get(`v1/${kind}`, { id: text }).then((page) => page.items);
  async function found(kind, cursor) {
    if (text.startsWith("88.")) {
      return kind === "units" ? get("v1/units", { identifier: text, cursor, limit: 25 }).catch(() => ({ items: [], next: null })) : { items: [], next: null };
    }
    const page = await get(`v1/${kind}`, { name: text, cursor, limit: 25 });
    if (!cursor && isId) {
      const listed = new Set(page.items.map((each) => each.id));
      page.items.unshift(...(await exactly(kind)).filter((each) => !listed.has(each.id)));
    }
    return page;
  }
  root.append(html("div", { class: "halves" },
    panel(t("enterprises"), null, pagedTable(t("enterprises"), [
      [t("name"), (each) => html("a", { href: `#/enterprise/${id(each.id)}` }, enterpriseName(each, catalogue))],
      [t("county"), (each) => catalogue.placeName(each.county)],
    ], (cursor) => found("enterprises", cursor))),
    panel(t("units"), null, pagedTable(t("units"), [
      [t("unit"), (each) => html("a", { href: `#/unit/${id(each.id)}` }, html("span", { class: "class" }, icon(each.class), each.name || each.id))],
      [t("county"), (each) => catalogue.placeName(each.county)],
      [t("state"), stateChip],
    ], (cursor) => found("units", cursor)))));
  return {};
}
