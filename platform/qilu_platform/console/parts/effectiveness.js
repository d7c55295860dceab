// OEE of a unit over the last eight hours of its readings: its three factors, when it worked and why it stopped.

import { get, id } from "../core/api.js";
import { html, svg } from "../core/dom.js";
import { duration, lang, named, percent, t, time } from "../core/language.js";

const SPAN_MS = 8 * 3_600_000;
const WIDTH = 600;
const FACTORS = ["oee", "availability", "effectiveness", "quality"];
const STOPS = 5;

/** The element's `reload(endMs)` asks again, for the hours before `endMs`. */
export function effectiveness(unit, class_) {
  const factors = html("dl", { class: "factors" });
  const line = html("div", { class: "states" });
  const stops = html("ol", { class: "commands stops" });
  const note = html("p", { class: "note", role: "status" });
  const assumed = html("ul", { class: "note" });
  const root = html("div", { class: "effectiveness" }, factors, line, stops, note,
    html("details", {}, html("summary", {}, t("oee.assumed")), assumed));

  root.reload = async (endMs) => {
    const [from, to] = [endMs - SPAN_MS, endMs];
    try {
      const found = await get(`v1/units/${id(unit.id)}/oee`, { from, to });
      factors.replaceChildren(...FACTORS.map((name) => html("div", { "data-factor": name },
        html("dt", {}, t(`oee.${name}`)), html("dd", {}, found[name] === null ? "–" : percent(found[name])))));
      line.replaceChildren(states(found.states, from, to, class_));
      const longest = found.states.filter((each) => each.state === "stopped").sort((a, b) => length(b) - length(a)).slice(0, STOPS);
      stops.replaceChildren(...longest.map((each) => html("li", {}, time(each.from_ms), ` ${duration(length(each))}: `, html("b", {}, reason(each, class_)))));
      note.textContent = found.planned_s ? "" : t("oee.none");
      const chinese = lang === "zh" ? await import("../lang/model_zh.js") : null;
      assumed.replaceChildren(...found.assumed.map((each) => html("li", {}, chinese ? chinese.effectivenessText(each) : each)));
    } catch (error) {
      note.textContent = error.message;
    }
  };
  return root;
}

const length = (state) => state.to_ms - state.from_ms;

/** Why a unit stood: what it reports, a command, or an alarm. */
function reason(state, class_) {
  const signal = () => named(class_.signals.find((each) => each.name === state.reason), state.reason);
  if (state.reason_kind === "command") return t("oee.command");
  if (state.reason_kind === "alarm") return t("oee.alarm", { signal: signal() });
  return state.reason ? signal() : t("oee.unknown");
}

/** A line of time: work, stops, and nothing where there are no readings. */
function states(found, from, to, class_) {
  const x = (ms) => (WIDTH * (Math.max(ms, from) - from)) / (to - from);
  const share = (state) => found.filter((each) => each.state === state).reduce((sum, each) => sum + length(each), 0);
  return svg("svg", { viewBox: `0 0 ${WIDTH} 24`, preserveAspectRatio: "none", role: "img",
    "aria-label": t("oee.line", { ran: duration(share("running")), stood: duration(share("stopped")) }) },
  svg("rect", { class: "nothing", x: 0, y: 0, width: WIDTH, height: 24 }),
  found.map((each) => svg("rect", { class: each.state, x: x(each.from_ms), y: 0, width: Math.max(0.5, x(each.to_ms) - x(each.from_ms)), height: 24 },
    svg("title", {}, each.state === "running" ? t("oee.running") : `${t("oee.stopped")}: ${reason(each, class_)}, ${duration(length(each))}`))));
}
