// The programme: every target with its share, voucher money by who pays, and how the counts grew.

import { get } from "../core/api.js";
import { Chart } from "../core/chart.js";
import { html, panel, say } from "../core/dom.js";
import { count, named, share, t } from "../core/language.js";

const LEVELS = ["province", "city", "county"];
const MONEY = ["granted", "redeemed", "clawed_back"];
const MONTH_MS = 30 * 86_400_000;

export async function show(root, app) {
  const { catalogue } = app;
  const to = Date.now() + 1;
  const [programme, history] = await Promise.all([
    get("v1/programme"),
    get("v1/places/370000/history", { from: to - MONTH_MS, to }).catch(() => ({ rows: [] })),
  ]);
  const targets = html("tbody");
  const vouchers = html("tbody");
  const row = (name) => html("tr", { "data-key": name }, html("th", { scope: "row" }, named(catalogue.targets.get(name), name)),
    html("td", { class: "num" }), html("td", { class: "num" }, catalogue.targets.get(name)?.wanted ?? ""), html("td", {}, html("progress", { "aria-label": named(catalogue.targets.get(name), name) })), html("td", { class: "num" }));

  function paint(next) {
    for (const { name, target, onboarded } of next.targets) {
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
    made.set(history.rows.map((each) => [each[0], each[at], each[at + 1]]));
    return made;
  };
  const [units, enterprises] = [chart(t("growth.units"), 1), chart(t("growth.enterprises"), 3)];
  const head = (keys) => html("thead", {}, html("tr", {}, keys.map(([key, style]) => html("th", { scope: "col", class: style }, key && t(key)))));
  root.append(html("div", { class: "panel-head" }, html("h1", {}, t("nav./programme")), html("a", { class: "button", href: "#/what-if" }, t("whatif"))), html("div", { class: "halves" },
    panel(t("programme.targets"), null, html("table", {}, head([["programme.target"], ["onCloud.count", "num"], ["programme.wanted", "num"], [""], ["programme.share", "num"]]), targets)),
    html("div", { class: "stack" }, panel(t("growth.units"), null, units.root), panel(t("growth.enterprises"), null, enterprises.root),
      panel(t("programme.vouchers"), null, html("table", {}, head([["programme.payer"], ...MONEY.map((name) => [`voucher.${name}`, "num"])]), vouchers)))));
  return {
    handlers: { programme: paint },
    close() {
      units.close();
      enterprises.close();
    },
  };
}
