// The province: the map, the programme's targets, how they grow, what happens now.

import { get } from "../core/api.js";
import { Chart } from "../core/chart.js";
import { html, panel, say } from "../core/dom.js";
import { compact, count, duration, named, rate, share, t, time } from "../core/language.js";
import { CityMap } from "../core/map.js";
import { icon } from "../core/icons.js";

const HEADLINE = ["enterprises_on_cloud", "units_on_cloud", "providers", "centres"];
const KINDS = ["infrastructure", "platform", "business", "equipment"];
const SPANS = { hour: 3_600_000, day: 86_400_000, month: 30 * 86_400_000 };
const PULSES_PER_TEN_SECONDS = 40;

export async function show(root, app, { query }) {
  const { catalogue } = app;
  const [programme, map, history] = await Promise.all([
    get("v1/programme"), fetch("console/shandong.geojson").then((answer) => answer.json()), grown(query.get("span")),
  ]);

  const cards = html("ul", { class: "cards" });
  const others = html("dl", { class: "panel others" });
  const targets = new Map();
  const readout = html("p", { class: "readout" });
  let pointed = null;
  let now = programme;
  const cityMap = new CityMap(map.features, (code) => {
    pointed = code;
    paintReadout();
  }, (code) => app.go(`#/place/${code}`));

  const ticker = html("ol", { class: "ticker" });
  const kinds = html("dl", { class: "bars" });
  const cities = html("tbody");
  const classes = html("tbody");
  const pipeline = html("dl", { class: "facts" });

  function target({ name, target: wanted, current, onboarded, reached }) {
    const about = catalogue.targets.get(name) ?? { title: name };
    let entry = targets.get(name);
    if (!entry) {
      const number = html(HEADLINE.includes(name) ? "p" : "b", { class: "number", "data-counter": name });
      const [part, more] = [html("strong"), html("span")];
      const bar = html("progress", { max: wanted, "aria-label": t("shareOf", { what: named(about) }) });
      const of = t("ofTarget", { n: about.wanted ?? count(wanted) });
      const box = HEADLINE.includes(name)
        ? html("li", { class: "card" }, html("h3", {}, named(about)), number, bar, html("p", { class: "of" }, part, " ", of, more))
        : html("div", {}, html("dt", {}, named(about)), html("dd", {}, number, ` ${of}`));
      (HEADLINE.includes(name) ? cards : others).append(box);
      targets.set(name, (entry = { number, bar, part, more, box }));
    }
    if (entry.number.textContent && entry.number.textContent !== count(onboarded)) flash(entry.number);
    say(entry.number, count(onboarded));
    say(entry.part, share(onboarded, wanted));
    say(entry.more, current < onboarded ? ` · ${t("nowCurrent", { n: count(current) })}` : "");
    entry.bar.value = Math.min(onboarded, wanted);
    entry.box.classList.toggle("reached", reached);
  }

  function paintReadout() {
    const counts = pointed ? now.by_city[pointed] : totals(now.by_city);
    readout.replaceChildren(
      html("strong", {}, catalogue.placeName(pointed ?? "370000")),
      html("span", {}, t("units.ofRegistered", { n: count(counts.units_on_cloud), all: count(counts.units_registered) })),
      html("span", {}, t("enterprises.ofRegistered", { n: count(counts.enterprises_on_cloud), all: count(counts.enterprises_registered) })));
  }

  function paint(next) {
    now = next;
    next.targets.forEach(target);
    cityMap.update(next.by_city);
    paintReadout();
    for (const [code, counts] of Object.entries(next.by_city)) {
      row(cities, code, () => html("a", { href: `#/place/${code}` }, catalogue.placeName(code)),
        [counts.units_on_cloud, counts.units_registered], [counts.enterprises_on_cloud, counts.enterprises_registered]);
    }
    for (const [name, counts] of Object.entries(next.by_class)) {
      row(classes, name, () => html("span", { class: "class" }, icon(name), catalogue.className(name)),
        [counts.units_on_cloud, counts.units_registered]);
    }
    const most = Math.max(1, ...KINDS.map((kind) => next.contracts[kind]?.current ?? 0));
    for (const kind of KINDS) bar(kinds, kind, t(`kind.${kind}`), next.contracts[kind]?.current ?? 0, most);
    bar(funnel, "registered", t("registered"), next.registered.units, next.registered.units);
    bar(funnel, "on-cloud", t("onCloud"), totals(next.by_city).units_on_cloud, next.registered.units);
    bar(funnel, "active", t("active24"), next.active, next.registered.units);
  }

  const funnel = html("dl", { class: "bars" });
  const growth = new Chart({
    label: t("growth.units"), height: 190, fromZero: true,
    series: [{ name: t("onCloud") }, { name: t("registered") }],
  });
  const growthOfEnterprises = new Chart({
    label: t("growth.enterprises"), height: 190, fromZero: true,
    series: [{ name: t("onCloud") }, { name: t("registered") }],
  });
  function paintGrowth({ rows, range }) {
    growth.set(rows.map((each) => [each[0], each[1], each[2]]), range);
    growthOfEnterprises.set(rows.map((each) => [each[0], each[3], each[4]]), range);
  }
  const span = html("select", { "aria-label": t("span"), onchange: async () => {
    app.remember({ span: span.value });
    paintGrowth(await grown(span.value));
  } }, Object.keys(SPANS).map((each) => html("option", { value: each, selected: each === (query.get("span") ?? "hour") }, t(`span.${each}`))));

  let alarms = { open: 0, by_city: {} };
  function paintAlarms(next) {
    for (const [code, n] of Object.entries(next.by_city)) if (n > (alarms.by_city[code] ?? 0)) cityMap.pulse(code, "alarm");
    alarms = next;
    cityMap.mark(next.by_city);
  }

  const beats = [];
  function paintActivity({ by_city: byCity }) {
    // As many rings in ten seconds as fit, shared out by the readings of the last minute.
    beats.splice(0).forEach(clearTimeout);
    const all = Object.values(byCity).reduce((sum, n) => sum + n, 0);
    if (!all) return;
    const rings = Math.min(PULSES_PER_TEN_SECONDS, Math.max(4, Math.round(all / 60)));
    for (const [code, n] of Object.entries(byCity)) {
      const mine = Math.max(1, Math.round((rings * n) / all));
      for (let i = 0; i < mine; i++) beats.push(setTimeout(() => cityMap.pulse(code, "reading"), ((i + Math.random()) / mine) * 10_000));
    }
  }

  let told = -1;
  function paintTicker({ items }) {
    for (const item of items) if (item.at_ms > told && told >= 0 && item.what === "units") cityMap.pulse(item.code, "joined");
    if (items.length) told = items[0].at_ms;
    ticker.replaceChildren(...items.slice(0, 14).map((item) => html("li", { class: item.what },
      time(item.at_ms, (ms) => new Date(ms).toLocaleTimeString(document.documentElement.lang, { timeZone: "Asia/Shanghai", hour12: false })),
      html("span", {}, sentence(item, catalogue)))));
    if (!items.length) ticker.replaceChildren(html("li", { class: "note" }, t("ticker.none")));
  }

  function paintPipeline(next) {
    fact(pipeline, "accepted", t("pipeline.accepted"), t("perSecond", { n: rate(next.accepted_per_s) }));
    fact(pipeline, "lag", t("pipeline.lag"), duration(next.lag_ms));
    fact(pipeline, "dead", t("pipeline.dead"), count(next.dead_lettered));
  }

  paint(programme);
  paintGrowth(history);
  paintTicker({ items: [] });
  const unitTitle = html("span", {}, t("units"), " ", html("small", {}, t("registered")));
  root.append(
    html("h1", { class: "hidden" }, t("nav./")), cards,
    html("div", { class: "province" },
      html("section", { class: "panel map-panel", "aria-label": t("map.title") },
        html("div", { class: "panel-head" }, html("h2", {}, t("map.title")), html("p", { class: "hint" }, t("map.hint"))),
        cityMap.root, readout, cityMap.legend),
      html("div", { class: "stack" },
        panel(t("ticker"), null, ticker),
        panel(t("pipeline.now"), html("a", { href: "#/pipeline" }, t("details")), pipeline)),
      html("div", { class: "stack" },
        panel(t("growth.units"), span, growth.root),
        panel(t("growth.enterprises"), null, growthOfEnterprises.root))),
    others,
    html("div", { class: "thirds" },
      panel(t("byCity"), null, html("table", { id: "cities" }, html("thead", {}, html("tr", {}, html("th", { scope: "col" }, t("city")),
        html("th", { scope: "col" }, unitTitle), html("th", { scope: "col" }, t("enterprises")))), cities)),
      panel(t("byClass"), null, html("table", { id: "classes" }, html("thead", {}, html("tr", {}, html("th", { scope: "col" }, t("class")),
        html("th", { scope: "col" }, t("units")))), classes)),
      html("div", { class: "stack" },
        panel(t("kinds"), null, kinds),
        panel(t("funnel"), null, funnel))));
  return {
    handlers: {
      programme: paint, pipeline: paintPipeline, ticker: paintTicker, activity: paintActivity, alarms: paintAlarms,
    },
    close() {
      beats.forEach(clearTimeout);
      growth.close();
      growthOfEnterprises.close();
    },
  };
}

async function grown(name) {
  const span = SPANS[name] ?? SPANS.hour;
  const to = Date.now() + 1;
  try {
    const found = await get("v1/places/370000/history", { from: to - span, to });
    return { rows: found.rows, range: found.rows.length > 1 ? [found.rows[0][0], found.rows.at(-1)[0]] : [to - span, to] };
  } catch {
    return { rows: [], range: [to - span, to] }; // a platform without a store has no history
  }
}

const totals = (byCity) => Object.values(byCity).reduce((sums, counts) => {
  for (const [name, n] of Object.entries(counts)) sums[name] = (sums[name] ?? 0) + n;
  return sums;
}, {});

/** A table row, made once for its key: a heading, and a cell for each [on cloud, registered]. */
function row(body, key, heading, ...pairs) {
  let line = body.querySelector(`tr[data-key="${key}"]`);
  if (!line) {
    line = html("tr", { "data-key": key }, html("th", { scope: "row" }, heading()), pairs.map(() =>
      html("td", {}, html("b"), " ", html("span", { class: "all" }))));
    body.append(line);
  }
  pairs.forEach(([onCloud, registered], i) => {
    say(line.cells[i + 1].firstChild, compact(onCloud));
    say(line.cells[i + 1].lastChild, t("of", { n: compact(registered) }));
  });
}

function bar(list, key, title, value, all) {
  let entry = list.querySelector(`div[data-key="${key}"]`);
  if (!entry) {
    entry = html("div", { "data-key": key }, html("dt", {}, title), html("dd", {}, html("span"), html("progress", { "aria-label": title })));
    list.append(entry);
  }
  say(entry.querySelector("dd span"), count(value));
  const progress = entry.querySelector("progress");
  progress.max = Math.max(1, all);
  progress.value = Math.min(value, progress.max);
}

function fact(list, key, title, text) {
  let entry = list.querySelector(`div[data-key="${key}"]`);
  if (!entry) list.append((entry = html("div", { "data-key": key }, html("dt", {}, title), html("dd"))));
  say(entry.lastChild, text);
}

function flash(node) {
  node.classList.remove("flash");
  void node.offsetWidth; // begins the animation anew
  node.classList.add("flash");
}

function sentence(item, catalogue) {
  const values = { n: count(item.n), total: count(item.total) };
  if (item.what === "milestone") {
    return t("ticker.milestone", { what: named(catalogue.targets.get(item.code), item.code), n: values.n });
  }
  if (item.what === "contracts") return t("ticker.contracts", { ...values, kind: t(`kind.${item.code}`) });
  const place = catalogue.placeName(item.code);
  if (item.what === "alarm") {
    return t("ticker.alarm", { place, class: catalogue.className(item.class), signal: catalogue.signalName(item.class, item.signal) });
  }
  return t(`ticker.${item.what}`, { ...values, place });
}
