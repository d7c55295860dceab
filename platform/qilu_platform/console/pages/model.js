// About the model: every figure with its mark and its source.

import { get } from "../core/api.js";
import { html, panel } from "../core/dom.js";
import { count, lang, named, numberIn, t, unitText, value } from "../core/language.js";

const MARKS = ["S", "C", "N", "A"];

/** Assumptions of the programme have an identifier; in Chinese they have a name as well. */
function assumption({ name, source }, chinese) {
  const [title, text] = chinese?.ASSUMPTIONS[name] ?? [null, source];
  return title ? { name: title, code: name, source: text } : { name: html("code", {}, name), source: text };
}

export async function show(root, app, { query }) {
  const { catalogue } = app;
  const [{ items }, chinese] = await Promise.all([get("v1/assumptions"), lang === "zh" ? import("../lang/model_zh.js") : null]);
  const source = (each) => (chinese ? chinese.sourceText(each.source) : each.source);
  const all = [
    ...items.map((each) => ({ group: "programme", ...assumption(each, chinese), value: numberIn(each.value), unit: unitText(each.unit), mark: each.mark })),
    ...[...catalogue.classes.values()].flatMap((class_) => [
      ...class_.signals.map((each) => ({ group: class_.name, name: named(each), value: `${value(each.low)} – ${value(each.high)}`, unit: unitText(each.unit), mark: each.mark, source: source(each) })),
      ...class_.set_points.map((each) => ({ group: class_.name, name: named(each), value: `${value(each.low)} – ${value(each.high)}`, unit: unitText(each.unit), mark: each.mark, source: source(each) })),
      ...class_.faults.map((each) => ({ group: class_.name, name: t("fault.named", { name: named(each) }), value: "", unit: "", mark: each.mark, source: source(each) })),
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
      html("th", { scope: "row" }, each.name, each.code && html("small", {}, html("code", {}, each.code))), html("td", { class: "num" }, each.value, " ", html("small", {}, each.unit)),
      html("td", {}, html("span", { class: `chip mark-${each.mark}` }, t(`mark.${each.mark}`))), html("td", {}, each.source))));
  }
  change({});
  const tally = MARKS.map((mark) => html("li", { class: "card" }, html("h2", {}, t(`mark.${mark}`)), html("p", { class: "number" }, count(all.filter((each) => each.mark === mark).length)), html("p", { class: "of" }, t(`mark.${mark}.about`))));
  root.append(html("h1", {}, t("nav./model")), html("p", { class: "about" }, t("model.about")), html("ul", { class: "cards" }, tally),
    html("div", { class: "row filters" }, groups, marks),
    panel(t("model.figures"), null, html("div", { class: "scroll", tabindex: 0 }, html("table", {}, html("thead", {}, html("tr", {},
      ["name", "value", "model.mark", "model.source"].map((key, at) => html("th", { scope: "col", class: at === 1 ? "num" : null }, t(key))))), body))));
  return {};
}
