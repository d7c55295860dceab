// A table of alarms with what may be done about them.

import { get, id, post } from "../core/api.js";
import { heading, html } from "../core/dom.js";
import { duration, t, time, unitText, value } from "../core/language.js";
import { icon } from "../core/icons.js";

const SHELVES_S = [3600, 8 * 3600, 7 * 86_400];

/** `filters` as GET /v1/alarms takes them; the element's `reload()` asks again, `onLoad(items)` hears what came. */
export async function alarmList(app, filters, onLoad = () => {}) {
  const { catalogue } = app;
  const body = html("tbody");
  const note = html("p", { class: "note", role: "status" });
  const withUnit = !filters.unit;
  const titles = [t("alarm.signal"), withUnit && t("unit"), t("state"), t("alarm.since"), t("alarm.lasts"), t("alarm.worst"), ""];
  const root = html("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": t("nav./alarms") },
    html("table", { class: "list alarms" }, html("thead", {}, html("tr", {}, titles.filter((each) => each !== false).map((each) => heading(each)))), body), note);
  const mayAct = app.may("operator", "enterprise");

  async function act(alarm, what, values) {
    try {
      await post(`v1/units/${id(alarm.unit)}/alarms/${id(alarm.signal)}/${what}`, values);
      await root.reload();
    } catch (error) {
      note.textContent = error.message;
    }
  }

  function actions(alarm) {
    if (!mayAct || alarm.state === "cleared") return html("td", {});
    const shelf = html("select", { class: "quiet", "aria-label": t("alarm.shelve"), onchange: () => act(alarm, "shelve", { for_s: Number(shelf.value) }) },
      html("option", { value: "", selected: true }, t("alarm.shelve")), SHELVES_S.map((each) => html("option", { value: each }, duration(each * 1000))));
    return html("td", { class: "actions" },
      alarm.acknowledged_ms === null && html("button", { type: "button", class: "quiet", onclick: () => act(alarm, "acknowledge", { since_ms: alarm.since_ms }) }, t("alarm.acknowledge")),
      alarm.shelved_until_ms ? html("button", { type: "button", class: "quiet", onclick: () => act(alarm, "shelve", { for_s: 0 }) }, t("alarm.unshelve")) : shelf);
  }

  root.reload = async () => {
    try {
      const { items, more } = await get("v1/alarms", filters);
      body.replaceChildren(...items.map((alarm) => {
        const signal = catalogue.signal(alarm.class, alarm.signal);
        const ends = alarm.ended_ms ?? Math.max(Date.now(), alarm.since_ms);
        return html("tr", { "data-state": alarm.state },
          html("th", { scope: "row" }, catalogue.signalName(alarm.class, alarm.signal)),
          withUnit && html("td", {}, html("a", { href: `#/unit/${id(alarm.unit)}?signal=${id(alarm.signal)}` },
            html("span", { class: "class" }, icon(alarm.class), alarm.unit)), html("small", {}, catalogue.placeName(alarm.county))),
          html("td", {}, html("span", { class: `chip ${alarm.state}` }, t(`alarm.${alarm.state}`)),
            alarm.shelved_until_ms && html("small", {}, t("until"), " ", time(alarm.shelved_until_ms))),
          html("td", {}, time(alarm.since_ms)), html("td", {}, duration(ends - alarm.since_ms)),
          html("td", {}, `${value(alarm.worst)} ${unitText(signal?.unit)}`, html("small", {}, t("alarm.limit", { n: value(alarm.limit) }))),
          actions(alarm));
      }));
      note.textContent = items.length ? (more ? t("alarm.more", { n: items.length }) : "") : t("alarm.none");
      onLoad(items);
    } catch (error) {
      note.textContent = error.message;
    }
  };
  root.filter = (next) => {
    filters = next;
    return root.reload();
  };
  await root.reload();
  return root;
}
