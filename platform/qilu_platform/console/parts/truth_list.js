// The truth beside the limits: faults that were played into the unit, and which alarms saw them.

import { get, id } from "../core/api.js";
import { html } from "../core/dom.js";
import { duration, named, t, time, value } from "../core/language.js";

/** The element's `reload()` asks again. */
export async function truthList(app, unit, class_) {
  const list = html("ol", { class: "commands truth" });
  const note = html("p", { class: "note", role: "status" });
  const root = html("div", {}, html("p", { class: "note" }, t("truth.about")), list, note);
  const signalName = (name) => named(class_.signals.find((each) => each.name === name), name);

  function seen(fault) {
    if (fault.alarms.length) {
      return fault.alarms.map((each) => html("p", { class: "seen" },
        t("truth.seen", { signal: signalName(each.signal), after: duration(each.after_s * 1000) })));
    }
    const over = fault.until_ms !== null && fault.until_ms < Date.now();
    return html("p", {}, t(over ? "truth.missed" : "truth.notYet"));
  }

  root.reload = async () => {
    try {
      const { faults } = await get(`v1/units/${id(unit.id)}/truth`);
      list.replaceChildren(...faults.map((each) => html("li", { "data-fault": each.fault },
        html("b", {}, named(class_.faults.find((fault) => fault.name === each.fault), each.fault)), ` (${value(each.severity)}) `,
        time(each.from_ms), each.until_ms === null ? ` ${t("truth.lasts")}` : [" ", t("until"), " ", time(each.until_ms)],
        " ", html("small", {}, t("truth.shows"), " ", each.shows.map(signalName).join(" · ")), seen(each))));
      note.textContent = faults.length ? "" : t("truth.none");
    } catch (error) {
      note.textContent = error.message;
    }
  };
  await root.reload();
  return root;
}
