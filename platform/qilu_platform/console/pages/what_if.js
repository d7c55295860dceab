// What if: two policies, tried on the programme's model, with the money per additional enterprise and unit.

import { get, post } from "../core/api.js";
import { Chart } from "../core/chart.js";
import { html, panel, say } from "../core/dom.js";
import { count, monthOfYear, named, percent, signed, t, yuan } from "../core/language.js";

const LEVELS = ["province", "city", "county"];
const MAX_SHARES = 80;
/** Name, most, step; in percent but for the centres. */
const SLIDERS = [["province", 60, 1], ["city", 60, 1], ["county", 60, 1], ["pools", 300, 5], ["centres", 60, 1]];
const SIDES = ["a", "b"];
const PLAN = "default";

export async function show(root, app, { query }) {
  root.append(html("h1", {}, t("whatif")), html("p", {}, t("whatif.about")));
  if (!app.session.signed_in) {
    root.append(app.signInFirst());
    return {};
  }
  if (!(await get("v1/what-if")).available) {
    root.append(html("section", { class: "panel hint-panel" }, html("p", {}, t("whatif.elsewhere"), " ",
      html("code", {}, "qilu programme compare default county-share-cut"))));
    return {};
  }
  const waiting = html("p", { class: "note", role: "status" }, t("whatif.running"));
  root.append(waiting);
  const charts = [chart("growth.enterprises"), chart("growth.units")];
  // Not awaited: the page is there while the model computes the plan.
  post("v1/what-if", {}).then((plan) => {
    waiting.remove();
    fill(root, app, query, plan, charts);
  }).catch((error) => say(waiting, error.message));
  return { close: () => charts.forEach((each) => each.close()) };
}

/** Sliders for two policies, which begin with the plan's, and what comes of them. */
function fill(root, app, query, plan, charts) {
  const outcomes = new Map([[text(valuesOf(plan.policy)), plan]]);
  const sides = SIDES.map((side) => controls(side, parse(query.get(side), plan.rules) ?? valuesOf(plan.policy), plan.rules));
  const go = html("button", { type: "submit" }, t("whatif.compare"));
  const said = html("p", { class: "note", role: "status" });
  const result = html("div", { class: "stack", hidden: true });

  async function outcome(values) {
    const key = text(values);
    if (!outcomes.has(key)) outcomes.set(key, await post("v1/what-if", bodyOf(values)));
    return outcomes.get(key);
  }

  async function compare(event) {
    event?.preventDefault();
    go.disabled = true;
    say(said, t("whatif.running"));
    try {
      const both = [];
      for (const side of sides) both.push(await outcome(side.values()));
      app.remember(Object.fromEntries(sides.map((side, at) => [SIDES[at], text(side.values())])));
      paint(...both);
      say(said, "");
    } catch (error) {
      say(said, error.message);
    }
    go.disabled = false;
  }

  function paint(a, b) {
    result.hidden = false;
    charts.forEach((each, at) => each.set(a.months.map((row, month) => [Date.parse(`${row[0]}-01`), row[at + 1], b.months[month][at + 1]])));
    result.querySelector(".verdict").replaceChildren(...verdict(a, b));
    result.querySelector("tbody").replaceChildren(...rows(a, b, app.catalogue));
  }

  root.append(html("form", { onsubmit: compare }, html("div", { class: "halves" }, sides.map((side) => side.root)),
    html("p", { class: "row go" }, go, said)), result);
  result.append(html("ul", { class: "cards verdict", "aria-live": "polite" }),
    html("div", { class: "halves" }, charts.map((each) => panel(each.label, null, each.root))),
    panel(t("whatif.outcome"), null, html("div", { class: "scroll", tabindex: 0 }, html("table", {}, html("thead", {}, html("tr", {},
      ["programme.target", "whatif.a", "whatif.b", "whatif.difference", "whatif.reachedA", "whatif.reachedB"].map((key, at) =>
        html("th", { scope: "col", class: at ? "num" : null }, t(key))))), html("tbody")))));
  if (query.get("b")) compare();
}

const chart = (key) => new Chart({ label: t(key), height: 220, fromZero: true, series: [{ name: t("whatif.a") }, { name: t("whatif.b") }] });

/** One policy: five figures as sliders, and the rules of vouchers. */
function controls(side, start, offered) {
  const fault = html("p", { class: "fault", role: "alert" });
  const inputs = SLIDERS.map(([name, most, step], at) => {
    const shown = html("output", {});
    const input = html("input", { type: "range", name: `${side}-${name}`, min: 0, max: most, step, value: start[at], oninput: () => change() });
    return { input, shown, box: html("label", { class: "slider" }, html("span", {}, t(`whatif.${name}`)), input, shown) };
  });
  const rules = html("select", { name: `${side}-rules`, onchange: () => change() },
    offered.map(({ name }) => html("option", { value: name, selected: name === start.at(-1) }, t(`whatif.rules.${name}`))));
  const described = html("p", { class: "note" });
  const figures = () => inputs.map(({ input }) => Number(input.value));
  function change() {
    figures().forEach((n, at) => say(inputs[at].shown, SLIDERS[at][0] === "centres" ? count(n) : percent(n / 100)));
    say(described, inWords(offered.find(({ name }) => name === rules.value)));
    const shares = figures().slice(0, LEVELS.length).reduce((sum, n) => sum + n, 0);
    say(fault, shares > MAX_SHARES ? t("whatif.tooMuch", { n: percent(MAX_SHARES / 100) }) : "");
    inputs[0].input.setCustomValidity(fault.textContent);
  }
  change();
  const chosen = html("label", { class: "slider" }, html("span", {}, t("whatif.rules")), rules);
  return { values: () => [...figures(), rules.value], root: panel(t(`whatif.${side}`), null, inputs.map(({ box }) => box), chosen, described, fault) };
}

/** Rules of vouchers: who claims, in which months, and how much. */
function inWords({ sectors, sizes, window: [first, last], cap_cny: cap, later_cap_cny: later, provider_caps_cny: providers }) {
  const some = Object.entries(sizes).filter(([, share]) => share < 1);
  const claimants = sectors.length > 1 ? t("whatif.rules.sectors") : t(`whatif.rules.${sectors[0]}`);
  return [
    claimants,
    some.length && t("whatif.rules.sizes", { list: some.map(([size, share]) => `${t(`size.${size}`)} ${percent(share)}`).join(", ") }),
    (first > 1 || last < 12) && t("whatif.rules.window", { first: monthOfYear(first), last: monthOfYear(last) }),
    t("whatif.rules.cap", { n: yuan(cap) }),
    later && t("whatif.rules.later", { n: yuan(later) }),
    providers && t("whatif.rules.providers", { full: yuan(providers[0]), others: yuan(providers[1]) }),
  ].filter(Boolean).join(t("whatif.rules.and"));
}

/** What one more enterprise and one more unit cost; where the second policy brings fewer, what each of them saves. */
function verdict(a, b) {
  const money = funds(b) - funds(a);
  const card = (title, number, of) => html("li", { class: "card" }, html("h2", {}, title), html("p", { class: "number" }, number), html("p", { class: "of" }, of));
  const each = (name) => {
    const more = value(b, name) - value(a, name);
    const key = more < 0 && money < 0 ? "saved" : "more";
    return card(t(`whatif.${key}.${name}`), more ? yuan(money / more) : "–", t(`whatif.of.${name}`, { n: signed(more) }));
  };
  return [card(t("whatif.money"), yuan(money, true), t("whatif.moneyOf", { a: yuan(funds(a)), b: yuan(funds(b)) })),
    each("enterprises_on_cloud"), each("units_on_cloud")];
}

function rows(a, b, catalogue) {
  const line = (title, first, second, show, reached = []) => html("tr", {}, html("th", { scope: "row" }, title),
    [show(first), show(second), signed(second - first), ...[0, 1].map((at) => reached[at] ?? "–")].map((cell) => html("td", { class: "num" }, cell)));
  return [
    ...a.targets.map(({ name, value: first, reached_in: when }, at) =>
      line(named(catalogue.targets.get(name), name), first, b.targets[at].value, count, [when, b.targets[at].reached_in])),
    line(t("whatif.vouchers"), a.vouchers_cny, b.vouchers_cny, yuan),
    line(t("whatif.awards"), a.awards_cny, b.awards_cny, yuan),
  ];
}

const funds = (each) => each.vouchers_cny + each.awards_cny;
const value = (each, name) => each.targets.find((target) => target.name === name).value;
/** The five figures and the rules in the address: `10-10-0-100-30`, `10-10-0-100-30.guangdong-rules`. */
const text = (values) => values.slice(0, -1).join("-") + (values.at(-1) === PLAN ? "" : `.${values.at(-1)}`);
const valuesOf = (policy) =>
  [...LEVELS.map((level) => Math.round(100 * policy.shares[level])), Math.round(100 * policy.pools), policy.centres, policy.rules];
const bodyOf = ([province, city, county, pools, centres, rules]) =>
  ({ shares: { province: province / 100, city: city / 100, county: county / 100 }, pools: pools / 100, centres, rules });

function parse(given, offered) {
  const [figures, rules = PLAN] = (given ?? "").split(".");
  const values = figures.split("-").map(Number);
  const fits = values.length === SLIDERS.length && values.every((n, at) => n >= 0 && n <= SLIDERS[at][1]);
  return fits && offered.some(({ name }) => name === rules) ? [...values, rules] : null;
}
