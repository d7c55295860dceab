// Messages that a gateway could not accept: to read, and to replay once their cause is mended.

import { get, post } from "../core/api.js";
import { html } from "../core/dom.js";
import { count, has, t, time } from "../core/language.js";
import { pagedTable } from "../core/table.js";
import { refusalText } from "./problem_list.js";

const SHORT = 60;
const reasonText = (reason) => (has(`reason.${reason}`) ? t(`reason.${reason}`) : reason);

/** The list for those that may see it; for others, and where the platform knows no gateway, how to see it. */
export async function letterList(app) {
  if (!app.may("operator")) return html("p", { class: "note" }, t("letters.may"));
  const reasons = new Set();
  const gateways = (await get("v1/dead-letters/gateways")).items;
  if (!gateways.length) {
    return html("p", { class: "note" }, t("letters.elsewhere"), " ", html("code", {}, "qilu gateway dead-letters list"));
  }
  const said = html("p", { class: "note", role: "status" });
  const filter = html("select", { "aria-label": t("letters.reason"), onchange: () => table.reload() }, html("option", { value: "" }, t("all")));
  const gateway = html("select", { "aria-label": t("letters.gateway"), hidden: gateways.length < 2, onchange: () => table.reload() },
    gateways.map((each) => html("option", { value: each.gateway }, each.gateway, each.problem && ` · ${t("letters.away")}`)));
  const all = html("button", { type: "button", class: "quiet", onclick: () => replay(filter.value ? { reason: filter.value } : {}) }, t("letters.replayAll"));

  async function load(cursor) {
    const page = await get("v1/dead-letters", { gateway: gateway.value, reason: filter.value, before_id: cursor });
    for (const { reason } of page.items) {
      if (reasons.has(reason)) continue;
      reasons.add(reason);
      filter.append(html("option", { value: reason }, reasonText(reason)));
    }
    return page;
  }

  async function replay(choice) {
    all.disabled = true;
    const total = { done: 0, kept: 0 };
    try {
      let before = null;
      do {
        const outcome = await post("v1/dead-letters/replay", { ...choice, gateway: gateway.value, before_id: before });
        total.done += outcome.done;
        total.kept += outcome.kept;
        before = outcome.before_id;
      } while (before !== null);
      said.textContent = t("letters.replayed", { done: count(total.done), kept: count(total.kept) });
    } catch (error) {
      said.textContent = error.message;
    }
    all.disabled = false;
    table.reload();
  }

  const payload = ({ payload: text, payload_bytes: bytes, topic, whole }) => html("details", {},
    html("summary", {}, html("code", {}, text.slice(0, SHORT) || "–", text.length > SHORT && "…")),
    html("p", { class: "note" }, topic), html("pre", { tabindex: 0 }, html("code", {}, text)),
    html("p", { class: "note" }, t("letters.bytes", { n: count(bytes) }), !whole && ` · ${t("letters.cut")}`));
  const again = (letter) => html("button", { type: "button", class: "quiet", disabled: !letter.whole, onclick: () => replay({ id: letter.id }) }, t("letters.replay"));
  const table = pagedTable(t("letters.list"), [
    [t("pipeline.at"), (each) => time(each.last_seen_ms)],
    [t("letters.reason"), (each) => html("span", {}, reasonText(each.reason), html("small", {}, refusalText(each.detail)))],
    [t("unit"), (each) => (each.unit ? html("code", {}, each.unit) : "–")],
    [t("letters.readings"), (each) => count(each.readings), "num"],
    [t("letters.message"), payload],
    ["", again],
  ], load, t("pipeline.noDead"));
  return html("div", { class: "letters" }, html("div", { class: "row filters" }, gateway, filter, all, said), table);
}
