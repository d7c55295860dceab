// The programme: every target with its share, voucher money by who pays, and how the counts grew; where a run of the
// model is played, its month, and every count on the scale of the whole province.

import { get, post } from "../core/api.js";
import { Chart } from "../core/chart.js";
import { dialog, heading, html, panel, say } from "../core/dom.js";
import { count, monthText, named, share, t, value } from "../core/language.js";
import { wholeCount } from "../parts/counts.js";
import { grown } from "../parts/history.js";

const LEVELS = ["province", "city", "county"];
const MONEY = ["granted", "redeemed", "clawed_back"];
const HISTORY_MS = 10_000;
const MONTH_MS = 30 * 86_400_000;
/** Months a second that a viewer may choose; 0: as fast as possible. */
const SPEEDS = [0.1, 0.25, 0.5, 1, 2, 4, 0];
/** The plan: a straight line (assumed) from these counts in October 2017 to the targets at the end of 2022. */
const LAUNCH = { enterprises_on_cloud: 20_000, units_on_cloud: 0 };
const [LAUNCH_MS, END_MS] = [Date.UTC(2017, 9, 1), Date.UTC(2023, 0, 1)];

export async function show(root, app) {
  const { catalogue } = app;
  let [programme, history, replay] = await Promise.all([
    get("v1/programme"), grown("370000", MONTH_MS), get("v1/programme/replay")]);
  const targets = html("tbody");
  const vouchers = html("tbody");
  const row = (name) => html("tr", { "data-key": name }, html("th", { scope: "row" }, named(catalogue.targets.get(name), name)),
    html("td", { class: "num" }, html("span"), html("small")), html("td", { class: "num" }, catalogue.targets.get(name)?.wanted ?? ""), html("td", {}, html("progress", { "aria-label": named(catalogue.targets.get(name), name) })), html("td", { class: "num" }));

  let times = 1;
  let endOfMonth = null; // of a played run
  /** Where the plan is at the end of the played month. */
  function planned(name, target) {
    if (endOfMonth === null || !(name in LAUNCH)) return "";
    const part = Math.min(1, (endOfMonth - LAUNCH_MS) / (END_MS - LAUNCH_MS));
    return t("programme.planned", { n: count(LAUNCH[name] + (target - LAUNCH[name]) * part) });
  }
  let now;
  function paint(next) {
    now = next;
    for (const { name, target, onboarded: counted } of next.targets) {
      const onboarded = wholeCount(name, counted, times);
      let line = targets.querySelector(`tr[data-key="${name}"]`);
      if (!line) targets.append((line = row(name)));
      say(line.cells[1].firstChild, count(onboarded));
      say(line.cells[1].lastChild, planned(name, target));
      const bar = line.querySelector("progress");
      [bar.max, bar.value] = [target, Math.min(onboarded, target)];
      say(line.cells[4], share(onboarded, target));
    }
    vouchers.replaceChildren(...LEVELS.map((level) => html("tr", {}, html("th", { scope: "row" }, t(`level.${level}`)),
      MONEY.map((name) => html("td", { class: "num" }, count(next.vouchers[level]?.[name] ?? 0))))));
  }
  paint(programme);
  const chart = (label, at) => {
    const made = new Chart({ label, height: 220, fromZero: true, series: [{ name: t("onCloud") }, { name: t("registered") }] });
    made.rescale = () => made.set(history.rows.map((each) => [each[0], each[at] * times, each[at + 1] * times]));
    return made;
  };
  const charts = [chart(t("growth.units"), 1), chart(t("growth.enterprises"), 3)];
  const [units, enterprises] = charts;
  const scale = html("p", { class: "note" }, t("replay.whole"));
  const month = html("p", { class: "number" });
  const about = html("p", { class: "of" });
  const bar = html("progress", { "aria-label": t("replay.progress") });
  const fault = html("p", { class: "fault", role: "alert" });
  const controls = html("div", { class: "row" });
  const show = html("section", { class: "panel replay", "aria-label": t("replay") }, month, bar, about, controls, fault);

  async function ask(what, body) {
    fault.textContent = "";
    try {
      await post(`v1/programme/replay/${what}`, body);
    } catch (error) {
      fault.textContent = error.message;
    }
  }

  async function again() {
    const scenario = html("select", { name: "scenario" }, replay.scenarios.map((each) => html("option", { value: each }, each)));
    const chosen = await dialog(t("replay.again"), (close) => html("div", { class: "fields" },
      html("label", { class: "field" }, html("span", {}, t("replay.choose")), scenario), html("p", { class: "note" }, t("replay.againAbout")),
      html("div", { class: "row" }, html("button", { type: "button", onclick: () => close(scenario.value) }, t("replay.start")),
        html("button", { type: "button", class: "quiet", onclick: () => close() }, t("replay.cancel")))));
    if (chosen) await ask("again", { scenario: chosen });
  }

  const speedText = (months) => (months === 0 ? t("replay.fast") : t("replay.speed", { n: value(months) }));

  /** The speeds to choose from, and the present one where it is another. */
  function speeds(present) {
    const near = SPEEDS.find((each) => Math.abs(each - present) <= each * 0.05);
    const all = near === undefined ? [...SPEEDS, present] : SPEEDS;
    const select = html("select", { name: "speed", "aria-label": t("replay.pace"), onchange: () => ask("speed", { speed: (Number(select.value) * MONTH_MS) / 1000 }) },
      all.map((each) => html("option", { value: each, selected: each === (near ?? present) }, speedText(each))));
    return select;
  }

  /** Controls for those who may: speed, pause or go on while it plays, and again where the stack can. */
  function paintControls(state, speed) {
    const shown = `${state} ${speed}`;
    if (!app.may("operator") || controls.dataset.shown === shown) return;
    controls.dataset.shown = shown;
    const button = (key, onclick) => html("button", { type: "button", onclick }, t(key));
    controls.replaceChildren(...[
      (state === "playing" || state === "paused") && speeds(speed),
      state === "playing" && button("replay.pause", () => ask("pause")),
      state === "paused" && button("replay.resume", () => ask("resume")),
      replay.scenarios.length > 0 && button("replay.again", again),
    ].filter(Boolean));
  }

  function paintReplay(next) {
    times = 1 / next.scale;
    const [year, number] = next.month.split("-").map(Number);
    endOfMonth = Date.UTC(year, number, 1);
    say(month, monthText(Date.UTC(year, number - 1, 1)));
    [bar.max, bar.value] = [next.months, next.done];
    const months = next.speed === null ? 0 : (next.speed * 1000) / MONTH_MS;
    const pace = next.state === "playing" ? speedText(months) : t(`replay.${next.state}`);
    say(about, [t("replay.scenario", { name: next.scenario }), t("replay.of", { n: next.done, all: next.months }), pace].join(" · "));
    show.dataset.state = next.state;
    paintControls(next.state, months);
    say(scale, times > 1 ? t("replay.scale", { n: count(times) }) : t("replay.whole"));
    if (!show.parentElement) scale.before(show);
    paint(now);
    charts.forEach((each) => each.rescale());
  }
  charts.forEach((each) => each.rescale());
  const timer = setInterval(async () => {
    if (document.hidden) return;
    history = await grown("370000", MONTH_MS);
    charts.forEach((each) => each.rescale());
  }, HISTORY_MS);
  const head = (keys) => html("thead", {}, html("tr", {}, keys.map(([key, style]) => heading(key && t(key), style))));
  root.append(html("div", { class: "panel-head" }, html("h1", {}, t("nav./programme")), html("a", { class: "button", href: "#/what-if" }, t("whatif"))), scale, html("div", { class: "halves" },
    panel(t("programme.targets"), null, html("table", {}, head([["programme.target"], ["onCloud.count", "num"], ["programme.wanted", "num"], [""], ["programme.share", "num"]]), targets)),
    html("div", { class: "stack" }, panel(t("growth.units"), null, units.root), panel(t("growth.enterprises"), null, enterprises.root),
      panel(t("programme.vouchers"), null, html("table", {}, head([["programme.payer"], ...MONEY.map((name) => [`voucher.${name}`, "num"])]), vouchers)))));
  if (replay.standing) paintReplay(replay.standing);
  return {
    handlers: { programme: paint, replay: paintReplay },
    close() {
      clearInterval(timer);
      charts.forEach((each) => each.close());
    },
  };
}
