// Small pieces that several pages share.

import { id } from "../core/api.js";
import { html } from "../core/dom.js";
import { enterpriseName, t } from "../core/language.js";

/** The way down from the province to a place, and to an enterprise where one is given. */
export function crumbs(app, code, enterprise = null) {
  const { catalogue } = app;
  const steps = [["#/", catalogue.placeName("370000")]];
  const county = catalogue.county(code);
  const city = county ? county.city : code;
  if (county || enterprise) steps.push([`#/place/${city}`, catalogue.placeName(city)]);
  if (county && enterprise) steps.push([`#/place/${code}`, catalogue.placeName(code)]);
  if (enterprise && enterprise.link) steps.push([`#/enterprise/${id(enterprise.id)}`, enterpriseName(enterprise, catalogue)]);
  return html("nav", { class: "crumbs", "aria-label": t("crumbs") }, steps.map(([href, text]) => html("a", { href }, text)));
}

/** How a unit is: its state, and whether it was heard of lately. */
export function stateChip(unit) {
  const state = unit.state === "on_cloud" && !unit.active ? "stale" : unit.state;
  return html("span", { class: `chip ${state}` }, t(`state.${state}`));
}
