// Alarms: what is open, acknowledged, shelved and cleared, where, how long and how often.

import { html, panel } from "../core/dom.js";
import { count, t } from "../core/language.js";
import { alarmList } from "../parts/alarm_list.js";
import { deliveryList } from "../parts/delivery_list.js";

const STATES = ["open", "acknowledged", "shelved", "cleared"];
const SHOWN = 200;

export async function show(root, app, { query }) {
  const { catalogue } = app;
  if (!app.session.signed_in) {
    root.append(html("h1", {}, t("nav./alarms")), app.signInFirst());
    return {};
  }
  const filters = { state: query.get("state") ?? "open", place: query.get("place") ?? "", class: query.get("class") ?? "", signal: query.get("signal") ?? "", limit: SHOWN };
  const often = html("ul", { class: "often" });
  const list = await alarmList(app, filters, (items) => {
    const by = new Map();
    for (const each of items) {
      const key = `${each.class}/${each.signal}`;
      by.set(key, (by.get(key) ?? 0) + 1);
    }
    const most = [...by].sort((a, b) => b[1] - a[1]).slice(0, 8);
    often.replaceChildren(...(most.length ? [] : [html("li", { class: "note" }, t("none"))]), ...most.map(([key, n]) => {
      const [name, signal] = key.split("/");
      return html("li", {}, html("button", { type: "button", class: "quiet", onclick: () => change({ class: name, signal }) },
        `${catalogue.className(name)} · ${catalogue.signalName(name, signal)}`), html("b", {}, count(n)));
    }));
  });
  function change(values) {
    Object.assign(filters, values);
    for (const [name, box] of Object.entries(boxes)) box.value = filters[name];
    for (const tab of tabs.children) tab.setAttribute("aria-pressed", String(tab.value === filters.state));
    app.remember({ state: filters.state, place: filters.place || null, class: filters.class || null, signal: filters.signal || null });
    return list.filter({ ...filters });
  }
  const option = (value, text) => html("option", { value }, text);
  const select = (name, label, options) => html("select", { "aria-label": label, onchange: (event) => change({ [name]: event.target.value }) }, options);
  const signals = new Map();
  for (const class_ of catalogue.classes.values()) {
    for (const signal of class_.signals) if (signal.limits.some((each) => each.level === "alarm")) signals.set(signal.name, catalogue.signalName(class_.name, signal.name));
  }
  const boxes = {
    place: select("place", t("place"), [option("", t("allPlaces")), [...catalogue.cities.values()].map((each) => option(each.code, catalogue.placeName(each.code)))]),
    class: select("class", t("class"), [option("", t("allClasses")), [...catalogue.classes.keys()].map((name) => option(name, catalogue.className(name)))]),
    signal: select("signal", t("alarm.signal"), [option("", t("allSignals")), [...signals].map(([name, text]) => option(name, text))]),
  };
  const tabs = html("div", { class: "tabs", role: "group", "aria-label": t("state") }, STATES.map((state) =>
    html("button", { type: "button", value: state, "aria-pressed": String(state === filters.state), onclick: () => change({ state }) }, t(`alarm.${state}`))));
  for (const [name, box] of Object.entries(boxes)) box.value = filters[name];
  root.append(html("h1", {}, t("nav./alarms")), html("div", { class: "row filters" }, tabs, Object.values(boxes)),
    html("div", { class: "with-side" }, panel(t("alarms.list"), null, list), panel(t("alarms.often"), null, often)));
  if (app.may("operator")) root.append(panel(t("hooks.list"), null, await deliveryList()));
  let before = null;
  return {
    handlers: {
      alarms: (next) => {
        const now = JSON.stringify(next);
        if (before !== null && before !== now) list.reload();
        before = now;
      },
    },
  };
}
