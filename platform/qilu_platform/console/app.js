// The programme's page: paints from GET /v1/programme, then follows /v1/events.

import { count, duration, html, rate, say, share, short, svg, zh } from "./format.js";
import { CityMap } from "./map.js";
import { follow } from "./stream.js";

const TARGETS = {
  enterprises_on_cloud: ["Enterprises on cloud", "上云企业"],
  units_on_cloud: ["Equipment on cloud", "上云工业设备"],
  providers: ["Service providers", "云应用服务商"],
  centres: ["Experience centres", "省级体验中心"],
};
/** The programme's other targets: a small number each. */
const OTHERS = {
  platforms_comprehensive: ["Comprehensive platforms", "综合服务平台"],
  platforms_cross_industry: ["Cross-industry platforms", "跨行业跨领域平台"],
  platforms_enterprise: ["Enterprise-level platforms", "企业级平台"],
  platforms_leading: ["Leading platforms", "国际领先平台"],
  suppliers: ["Excellent suppliers", "优秀供应商"],
  applications: ["Industrial applications", "工业APP"],
  pilots: ["Pilot enterprises", "试点示范企业"],
  bases: ["Industry bases", "产业基地"],
  clusters: ["Application clusters", "应用集群"],
};
const CLASSES = {
  blast_furnace: ["Blast furnace", "高炉", "M9 3h6l1 6 2 3v6H6v-6l2-3zM4 21h16M9 15h6"],
  wind_turbine: ["Wind turbine", "风力发电机组", "M12 12v9M9 21h6M12 10.500V3M12.800 11.500l6.200 3.600M11.200 11.5 5 15.1"],
  motor: ["Electric motor", "电动机", "M4 8h13v8H4zM17 11h4v2h-4M7 16v3M14 16v3M8 8v8M12 8v8"],
  boiler: ["Industrial boiler", "工业锅炉", "M3 9h18v7H3zM7 9V4h3v5M6 16v4M18 16v4M12 12.500h6"],
  compressor: ["Air compressor", "空气压缩机", "M3 11h18v6H3zM6 17v3M18 17v3M6 11V6h5v5M14 8h6"],
  cnc: ["CNC machine", "数控机床", "M4 3h16v18H4zM12 3v8M9 7h6v4H9zM7 17h10"],
  robot: ["Industrial robot", "工业机器人", "M6 21h8M10 21v-7l-4-5 6-5 6 3M18 7v4M16 11h4"],
  reactor: ["Chemical reactor", "化学反应器", "M8 3h8M9 3v4a6 7 0 1 0 6 0V3M12 7v9M9 16h6"],
  pump: ["Pump", "泵", "M4 14a6 6 0 1 0 12 0 6 6 0 1 0-12 0M10 8h10v4h-4M7 20h6"],
  loom: ["Loom", "织机", "M4 4h16M4 20h16M7 4v16M12 4v16M17 4v16M4 12h16"],
  pasteuriser: ["Pasteuriser", "巴氏杀菌机", "M5 4h14v16H5zM9 4v16M15 4v16M2 8h3M19 16h3"],
  oven: ["Oven", "烘烤炉", "M3 6h18v13H3zM6 10h12v6H6zM8 3v3M16 3v3"],
};
const KINDS = {
  infrastructure: ["Infrastructure", "基础设施"],
  platform: ["Platform systems", "平台系统"],
  business: ["Business capabilities", "业务能力"],
  equipment: ["Equipment", "设备"],
};
const STATES = { connecting: "Connecting", live: "Live", lost: "Connection lost, trying again" };
const SAMPLES = 120;

const $ = (id) => document.getElementById(id);
let programme = null;
let map = null;
let names = new Map();
let shown = null;
const samples = [];

/** One card a target, made once: number, share of the target, bar. */
const cards = new Map();
function paintTarget({ name, target, current, onboarded }) {
  if (!cards.has(name)) {
    const [title, title_zh] = TARGETS[name];
    const number = html("p", { class: "number", "data-counter": name });
    const bar = html("progress", { max: target, "aria-label": `${title}: share of the target` });
    const [part, now] = [html("strong"), html("span")];
    const of = html("p", { class: "of" }, part, ` of ${count(target)}`, now);
    cards.set(name, { number, bar, part, now });
    $("targets").append(html("li", { class: "card", "data-target": name }, html("h3", {}, title, " ", zh(title_zh)), number, bar, of));
  }
  const card = cards.get(name);
  say(card.number, count(onboarded));
  say(card.part, share(onboarded, target));
  say(card.now, current < onboarded ? ` · ${count(current)} now` : "");
  card.bar.value = Math.min(onboarded, target);
}

/** A count of its own and what is wanted of it. */
function paintOther({ name, target, onboarded }) {
  let entry = $("others").querySelector(`div[data-key="${name}"]`);
  if (!entry) {
    const [title, title_zh] = OTHERS[name] ?? [name, ""];
    const number = html("b", { "data-counter": name });
    entry = html("div", { "data-key": name }, html("dt", {}, title, " ", zh(title_zh)), html("dd", {}, number, ` of ${count(target)}`));
    $("others").append(entry);
  }
  say(entry.querySelector("b"), count(onboarded));
}

/** A table row, made once for its key: a heading cell, and one cell for each "on cloud, of registered". */
function row(body, key, heading, pairs) {
  let line = body.querySelector(`tr[data-key="${key}"]`);
  if (!line) {
    const cell = () =>
      html("td", {}, html("b"), " ", html("span", { class: "all" }, html("span", { class: "hidden" }, "of "), html("span")));
    line = html("tr", { "data-key": key }, html("th", { scope: "row" }, ...heading()), ...pairs.map(cell));
    body.append(line);
  }
  pairs.forEach(([onCloud, registered], i) => {
    const cell = line.cells[i + 1];
    say(cell.firstChild, count(onCloud));
    say(cell.lastChild.lastChild, count(registered));
  });
  return line;
}

const CITY_COLUMNS = ["units_on_cloud", "units_registered", "enterprises_on_cloud", "enterprises_registered"];

function paintCities() {
  const [body, foot] = [$("cities").tBodies[0], $("cities").tFoot];
  for (const [code, [name, name_zh]] of names) {
    const numbers = ofCity(code);
    const fresh = !body.querySelector(`tr[data-key="${code}"]`);
    const line = row(body, code, () => [name, " ", zh(name_zh)], [numbers.slice(0, 2), numbers.slice(2)]);
    if (!fresh) continue;
    line.addEventListener("pointerenter", () => map.point(code));
    line.addEventListener("pointerleave", () => map.point(null));
  }
  const total = totals();
  row(foot, "all", () => ["Shandong ", zh("山东省")], [total.slice(0, 2), total.slice(2)]);
}

/** The sentence under the map: the city that is pointed at, else the whole province. */
function paintReadout() {
  if (!programme) return;
  const [name, name_zh] = shown ? names.get(shown) : ["Shandong", "山东省"];
  const counts = shown ? ofCity(shown) : totals();
  const [units, unitsAll, enterprises, enterprisesAll] = counts.map(count);
  $("readout").replaceChildren(
    html("strong", {}, name, " ", zh(name_zh)),
    html("span", {}, html("b", {}, units), ` of ${unitsAll} units on cloud`),
    html("span", {}, html("b", {}, enterprises), ` of ${enterprisesAll} enterprises`),
  );
  for (const line of $("cities").tBodies[0].rows) line.classList.toggle("shown", line.dataset.key === shown);
}

/** Counts of a city, or of them all, in the order of CITY_COLUMNS. */
const ofCity = (code) => CITY_COLUMNS.map((column) => programme.by_city[code]?.[column] ?? 0);
const totals = () => [...names.keys()].map(ofCity).reduce((sums, counts) => sums.map((sum, i) => sum + counts[i]));

/** A definition list of one term and one number each, with a bar when there is something to measure it by. */
function fact(list, key, [title, title_zh], value, all) {
  let entry = list.querySelector(`div[data-key="${key}"]`);
  if (!entry) {
    const bar = all === undefined ? [] : [html("progress", { "aria-label": `${title}: share of the registered units` })];
    entry = html("div", { "data-key": key }, html("dt", {}, title, " ", zh(title_zh)), html("dd", {}, html("span"), ...bar));
    list.append(entry);
  }
  say(entry.querySelector("dd span"), count(value));
  const bar = entry.querySelector("progress");
  if (bar) {
    bar.max = Math.max(1, all);
    bar.value = Math.min(value, bar.max);
  }
}

function paintProgramme(next) {
  programme = next;
  paintTime(next.as_of_ms);
  for (const target of next.targets) {
    if (target.name in TARGETS) paintTarget(target);
    else paintOther(target);
  }
  map?.update(next.by_city);
  paintCities();
  paintReadout();
  const { units } = next.registered;
  fact($("funnel"), "registered", ["Units registered", "已注册"], units, units);
  fact($("funnel"), "on-cloud", ["On cloud", "已上云"], totals()[0], units);
  fact($("funnel"), "active", ["Active in the last 24 hours", "近24小时活跃"], next.active, units);
  for (const [kind, title] of Object.entries(KINDS)) fact($("contracts"), kind, title, next.contracts[kind]?.current ?? 0);
  for (const [name, counts] of Object.entries(next.by_class)) {
    const [title, title_zh, icon] = CLASSES[name] ?? [name, "", ""];
    const heading = () => [
      html("span", { class: "class" },
        svg("svg", { class: "glyph", viewBox: "0 0 24 24", "aria-hidden": "true" }, svg("path", { d: icon })),
        html("span", {}, title, " ", zh(title_zh))),
    ];
    row($("classes").tBodies[0], name, heading, [[counts.units_on_cloud, counts.units_registered]]);
  }
}

/** The newest of what was told: counts that do not change are not told again. */
let newest = 0;
function paintTime(ms) {
  if (!(ms > newest)) return;
  newest = ms;
  const at = new Date(ms);
  say($("as-of"), at.toLocaleString("en", { dateStyle: "medium", timeStyle: "medium" }));
  $("as-of").dateTime = at.toISOString();
}

function paintPipeline(pipeline) {
  paintTime(pipeline.as_of_ms);
  say($("accepted"), rate(pipeline.accepted_per_s));
  say($("stored"), rate(pipeline.stored_per_s));
  say($("lag"), duration(pipeline.lag_ms));
  say($("dead-letters"), count(pipeline.dead_lettered));
  $("dead-letters").classList.toggle("bad", pipeline.dead_lettered > 0);
  samples.push(pipeline.accepted_per_s ?? 0);
  if (samples.length > SAMPLES) samples.shift();
  paintSpark();
}

function paintSpark() {
  const [width, height, margin] = [300, 64, 3];
  const top = Math.max(1, ...samples);
  // A steady rate is a line in the upper part, not along the edge; the newest sample is at the right, and the first
  // few do not fill the width.
  const spacing = width / Math.max(24, samples.length - 1);
  const x = (i) => width - (samples.length - 1 - i) * spacing;
  const y = (value) => height - margin - (value / (1.15 * top)) * (height - 2 * margin);
  const line = samples.map((value, i) => `${x(i).toFixed(1)} ${y(value).toFixed(1)}`).join("L");
  $("spark").querySelector(".line").setAttribute("d", `M${line}`);
  $("spark").querySelector(".area").setAttribute("d", `M${x(0).toFixed(1)} ${height}L${line}L${width} ${height}Z`);
  const [least, most] = [Math.min(...samples), Math.max(...samples)];
  $("spark").setAttribute("aria-label", `Accepted readings a second, lately between ${rate(least)} and ${rate(most)}`);
}

function paintState(state) {
  $("stream").dataset.state = document.documentElement.dataset.stream = state;
  say($("stream-text"), STATES[state]);
}

async function json(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`${url}: ${answer.status}`);
  return answer.json();
}

const { features } = await json("console/shandong.geojson");
names = new Map(features.map(({ properties: { code, name, name_zh } }) => [code, [name, name_zh]]));
map = new CityMap($("map"), $("legend"), features, (code) => {
  shown = code;
  paintReadout();
});
// The stream follows in any case, and brings the same object.
json("v1/programme").then(paintProgramme, () => paintState("lost"));
follow("v1/events", { programme: paintProgramme, pipeline: paintPipeline }, paintState);
