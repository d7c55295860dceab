// Notifications of alarms by webhook: where they go, and what became of the latest.

import { get, post } from "../core/api.js";
import { html } from "../core/dom.js";
import { count, t, time } from "../core/language.js";
import { pagedTable } from "../core/table.js";

export async function deliveryList() {
  const note = html("p", { class: "note", role: "status" });
  const first = await get("v1/webhooks");
  if (!first.urls.length) return html("p", { class: "note" }, t("hooks.none"), " ", html("code", {}, "QILU_PLATFORM_WEBHOOKS"));
  const load = async () => {
    const found = await get("v1/webhooks");
    note.textContent = found.dropped ? t("hooks.dropped", { n: count(found.dropped) }) : "";
    return { items: found.items, next: null };
  };
  const table = pagedTable(t("hooks.list"), [
    [t("pipeline.at"), (each) => time(each.at_ms)],
    [t("hooks.event"), (each) => t(`hooks.${each.event}`)],
    [t("unit"), (each) => (each.unit ? html("a", { href: `#/unit/${encodeURIComponent(each.unit)}` }, each.unit) : "–")],
    [t("hooks.url"), (each) => each.target ?? "–"],
    [t("state"), (each) => html("span", { class: `chip ${each.state}` }, t(`hooks.${each.state}`))],
    [t("hooks.attempts"), (each) => count(each.attempts), "num"],
    [t("hooks.answer"), (each) => each.answer ?? "–"],
  ], load, t("hooks.nothing"));
  const test = html("button", { type: "button", class: "quiet", onclick: async () => {
    await post("v1/webhooks/test").catch((error) => (note.textContent = error.message));
    table.reload();
  } }, t("hooks.send"));
  return html("div", { class: "deliveries" }, html("p", {}, first.urls.join(" · "), " ", test), note, table);
}
