// Device types: classes that an operator describes for generic units, without a restart.

import { get, id, put } from "../core/api.js";
import { html } from "../core/dom.js";
import { t } from "../core/language.js";

/** A signal that belongs to the unit and not to its class, as pages use it; without bounds nobody knows its range. */
export const unitSignal = ({ name, title, title_zh, unit = "", low = null, high = null }) => ({
  name, title, title_zh, unit, low, high, nominal: low === null ? 1 : (low + high) / 2, interval_s: 10, limits: [] });

/** The class of a generic unit with the titles and signals of the unit; any other class as it is. */
export async function classOf(unit, catalogue) {
  const class_ = catalogue.class(unit.class);
  if (!class_.learns) return class_;
  const { type, items } = await get(`v1/units/${id(unit.id)}/signals`);
  return { ...class_, ...(type ? { title: type.title, title_zh: type.title_zh } : {}), signals: items.map(unitSignal) };
}

const COLUMNS = ["name", "title", "title_zh", "unit", "low", "high"];

/** A form for a type: `save()` makes it, or replaces the one that the form was filled with, and returns its id. */
export function typeForm(types, type = null) {
  let made = type?.id ?? null;
  const box = (name, of, options = {}) => html("input", { name: `type-${name}`, value: of?.[name] ?? "", "aria-label": t(`type.${name}`), maxlength: 80, ...options });
  const title = box("title", type, { required: true });
  const titleZh = box("title_zh", type);
  const rows = html("div", { class: "stack" });
  const add = (signal) => {
    const row = html("div", { class: "type-row" }, COLUMNS.map((name) => box(name, signal, {
      required: name === "name", placeholder: t(`type.${name}`), ...(name === "low" || name === "high" ? { type: "number", step: "any" } : {}) })),
      html("button", { type: "button", class: "quiet", "aria-label": t("type.remove"), onclick: () => rows.children.length > 1 && row.remove() }, "×"));
    rows.append(row);
  };
  (type?.signals ?? [null]).forEach(add);
  const root = html("fieldset", { class: "fields wide" }, html("legend", {}, t("type.define")),
    [["type.title", title], ["type.title_zh", titleZh]].map(([key, input]) => html("label", { class: "field" }, html("span", {}, t(key)), input)),
    html("span", { class: "note" }, t("type.signals")), rows,
    html("button", { type: "button", class: "quiet", onclick: () => add(null) }, t("type.add")), html("p", { class: "note" }, t("type.about")));

  async function save() {
    made ??= newId(title.value, types.map((each) => each.id));
    const number = (text) => (text === "" ? null : Number(text));
    const signals = [...rows.children].map((row) => Object.fromEntries(COLUMNS.map((name) => {
      const text = row.querySelector(`[name="type-${name}"]`).value.trim();
      return [name, name === "low" || name === "high" ? number(text) : text];
    })));
    await put(`v1/device-types/${id(made)}`, { title: title.value.trim(), title_zh: titleZh.value.trim(), signals });
    return made;
  }
  return { root, save };
}

/** An id of its title, where that has Latin letters, which no other type has. */
function newId(title, taken) {
  const base = title.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-+|-+$/g, "").slice(0, 24) || "type";
  let [made, number] = [base, 1];
  while (taken.includes(made)) made = `${base}-${(number += 1)}`;
  return made;
}
