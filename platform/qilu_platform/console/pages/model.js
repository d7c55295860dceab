// About the model: every figure with its mark and its source.

import { get } from "../core/api.js";
import { html, panel } from "../core/dom.js";
import { count, named, numberIn, t, unitText, value } from "../core/language.js";

const MARKS = ["S", "C", "N", "A"];

export async function show(root, app, { query }) {
  const { catalogue } = app;
  const { items } = await get("v1/assumptions");
  const all = [
    ...items.map((each) => ({ group: "programme", name: each.name, value: numberIn(each.value), unit: each.unit, mark: each.mark, source: each.source })),
    ...[...catalogue.classes.values()].flatMap((class_) => [
      ...class_.signals.map((each) => ({ group: class_.name, name: named(each), value: `${value(each.low)} – ${value(each.high)}`, unit: unitText(each.unit), mark: each.mark, source: each.source })),
      ...class_.set_points.map((each) => ({ group: class_.name, name: named(each), value: `${value(each.low)} – ${value(each.high)}`, unit: unitText(each.unit), mark: each.mark, source: each.source })),
      ...class_.faults.map((each) => ({ group: class_.name, name: t("fault.named", { name: named(each) }), value: "", unit: "", mark: each.mark, source: each.source })),
    ]),
  ];
  const filters = { group: query.get("group") ?? "programme", mark: query.get("mark") ?? "" };
  const body = html("tbody");
  const groups = html("select", { "aria-label": t("model.group"), onchange: () => change({ group: groups.value }) },
    html("option", { value: "programme" }, t("model.programme")), [...catalogue.classes.keys()].map((name) => html("option", { value: name }, catalogue.className(name))));
  const marks = html("div", { class: "tabs", role: "group", "aria-label": t("model.mark") }, ["", ...MARKS].map((mark) =>
    html("button", { type: "button", value: mark, onclick: () => change({ mark }) }, mark ? t(`mark.${mark}`) : t("all"))));
  function change(values) {
    Object.assign(filters, values);
    groups.value = filters.group;
    for (const tab of marks.children) tab.setAttribute("aria-pressed", String(tab.value === filters.mark));
    app.remember({ group: filters.group, mark: filters.mark || null });
    const shown = all.filter((each) => each.group === filters.group && (!filters.mark || each.mark === filters.mark));
    body.replaceChildren(...shown.map((each) => html("tr", {},
      html("th", { scope: "row" }, each.name), html("td", { class: "num" }, each.value, " ", html("small", {}, each.unit)),
      html("td", {}, html("span", { class: `chip mark-${each.mark}` }, t(`mark.${each.mark}`))), html("td", { lang: "en" }, each.source))));
  }
  change({});
  const tally = MARKS.map((mark) => html("li", { class: "card" }, html("h2", {}, t(`mark.${mark}`)), html("p", { class: "number" }, count(all.filter((each) => each.mark === mark).length)), html("p", { class: "of" }, t(`mark.${mark}.about`))));
  root.append(html("h1", {}, t("nav./model")), html("p", { class: "about" }, t("model.about")), html("ul", { class: "cards" }, tally),
    html("div", { class: "row filters" }, groups, marks),
    panel(t("model.figures"), null, html("div", { class: "scroll", tabindex: 0 }, html("table", {}, html("thead", {}, html("tr", {},
      ["name", "value", "model.mark", "model.source"].map((key, at) => html("th", { scope: "col", class: at === 1 ? "num" : null }, t(key))))), body))));
  return {};
}
