// The programme: every target with its share, voucher money by who pays, and how the counts grew; where a run of the
// model is played, its month, and every count on the scale of the whole province.

import { get } from "../core/api.js";
import { Chart } from "../core/chart.js";
import { html, panel, say } from "../core/dom.js";
import { count, monthText, named, share, t } from "../core/language.js";
import { grown } from "../parts/history.js";

const LEVELS = ["province", "city", "county"];
const MONEY = ["granted", "redeemed", "clawed_back"];
const HISTORY_MS = 10_000;
const MONTH_MS = 30 * 86_400_000;
/** What a played run takes a share of; everything else it brings in full. */
const SCALED = new Set(["enterprises_on_cloud", "units_on_cloud", "pilots"]);

export async function show(root, app) {
  const { catalogue } = app;
  let [programme, history] = await Promise.all([get("v1/programme"), grown("370000", MONTH_MS)]);
  const targets = html("tbody");
  const vouchers = html("tbody");
  const row = (name) => html("tr", { "data-key": name }, html("th", { scope: "row" }, named(catalogue.targets.get(name), name)),
    html("td", { class: "num" }), html("td", { class: "num" }, catalogue.targets.get(name)?.wanted ?? ""), html("td", {}, html("progress", { "aria-label": named(catalogue.targets.get(name), name) })), html("td", { class: "num" }));

  let times = 1;
  let now;
  function paint(next) {
    now = next;
    for (const { name, target, onboarded: counted } of next.targets) {
      const onboarded = SCALED.has(name) ? Math.round(counted * times) : counted;
      let line = targets.querySelector(`tr[data-key="${name}"]`);
      if (!line) targets.append((line = row(name)));
      say(line.cells[1], count(onboarded));
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
  const show = html("section", { class: "panel replay", "aria-label": t("replay") }, month, bar, about);

  function paintReplay(next) {
    times = 1 / next.scale;
    say(month, monthText(Date.parse(`${next.month}-01`)));
    [bar.max, bar.value] = [next.months, next.done];
    const speed = next.speed === null ? t("replay.fast") : t("replay.speed", { n: count((next.speed * 1000) / MONTH_MS) });
    say(about, [t("replay.scenario", { name: next.scenario }), next.done === next.months ? t("replay.over") : speed].join(" · "));
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
  const head = (keys) => html("thead", {}, html("tr", {}, keys.map(([key, style]) => html("th", { scope: "col", class: style }, key && t(key)))));
  root.append(html("div", { class: "panel-head" }, html("h1", {}, t("nav./programme")), html("a", { class: "button", href: "#/what-if" }, t("whatif"))), scale, html("div", { class: "halves" },
    panel(t("programme.targets"), null, html("table", {}, head([["programme.target"], ["onCloud.count", "num"], ["programme.wanted", "num"], [""], ["programme.share", "num"]]), targets)),
    html("div", { class: "stack" }, panel(t("growth.units"), null, units.root), panel(t("growth.enterprises"), null, enterprises.root),
      panel(t("programme.vouchers"), null, html("table", {}, head([["programme.payer"], ...MONEY.map((name) => [`voucher.${name}`, "num"])]), vouchers)))));
  return {
    handlers: { programme: paint, replay: paintReplay },
    close() {
      clearInterval(timer);
      charts.forEach((each) => each.close());
    },
  };
}
