// The way of the data as a picture, with live rates; lag, spool, dead letters and gateways.

import { get } from "../core/api.js";
import { Chart } from "../core/chart.js";
import { html, panel, say, svg } from "../core/dom.js";
import { count, duration, has, rate, t, time } from "../core/language.js";
import { letterList } from "../parts/letter_list.js";
import { securityList } from "../parts/security_list.js";

const BOXES = [["devices", 20], ["broker", 220], ["gateway", 420], ["store", 640]];

export async function show(root, app) {
  const flow = flowPicture();
  const rates = new Chart({ label: t("pipeline.rates"), height: 220, fromZero: true, series: [
    { name: t("pipeline.accepted"), unit: "/s" }, { name: t("pipeline.stored"), unit: "/s" }] });
  const lag = new Chart({ label: t("pipeline.lag"), height: 220, fromZero: true, series: [{ name: t("pipeline.lag"), unit: "s" }] });
  const gateways = html("tbody");
  const letters = html("dl", { class: "bars" });
  const note = html("p", { class: "fault", role: "status" });

  async function load() {
    try {
      const found = await get("v1/pipeline");
      const range = found.rows.length > 1 ? [found.rows[0][0], found.rows.at(-1)[0]] : null;
      rates.set(found.rows.map((row) => [row[0], row[1], row[2]]), range);
      lag.set(found.rows.map((row) => [row[0], row[3] === null ? null : row[3] / 1000]), range);
      gateways.replaceChildren(...found.gateways.map((each) => html("tr", {}, html("th", { scope: "row" }, each.gateway, each.held_by && html("small", {}, t("pipeline.heldBy", { name: each.held_by }))),
        [rate(each.accepted_per_s), rate(each.stored_per_s), count(each.stored), count(each.spooled), count(each.dead_lettered), count(each.redelivered), duration(each.lag_ms)].map((text) => html("td", { class: "num" }, text)),
        html("td", {}, time(each.ts_ms)))));
      const reasons = Object.entries(found.dead_letters).filter(([, n]) => n > 0).sort((a, b) => b[1] - a[1]);
      const most = Math.max(1, ...reasons.map(([, n]) => n));
      letters.replaceChildren(...reasons.map(([reason, n]) => html("div", {},
        html("dt", {}, has(`reason.${reason}`) ? t(`reason.${reason}`) : reason), html("dd", {}, html("span", {}, count(n)), html("progress", { max: most, value: n, "aria-label": reason })))));
      if (!reasons.length) letters.append(html("div", {}, html("dt", {}, t("pipeline.noDead")), html("dd", {})));
      note.textContent = "";
    } catch (error) {
      note.textContent = error.message;
    }
  }
  await load();
  const timer = setInterval(() => document.hidden || load(), 10_000);
  root.append(html("h1", {}, t("nav./pipeline")), note,
    html("section", { class: "panel flow-box", tabindex: 0, "aria-label": t("pipeline.flow") }, flow.root),
    html("div", { class: "halves" }, panel(t("pipeline.rates"), null, rates.root), panel(`${t("pipeline.lag")} (s)`, null, lag.root)),
    html("div", { class: "with-side" },
      panel(t("pipeline.gateways"), null, html("div", { class: "scroll", tabindex: 0 }, html("table", {}, html("thead", {}, html("tr", {},
        ["gateway", "accepted", "stored", "storedAll", "spooled", "dead", "again", "lag", "at"].map((key) => html("th", { scope: "col", class: key === "gateway" || key === "at" ? null : "num" }, t(`pipeline.${key}`))))), gateways))),
      panel(t("pipeline.dead"), null, letters)),
    panel(t("letters.list"), null, await letterList(app)),
    panel(t("security.list"), null, await securityList(app)));
  return {
    handlers: { pipeline: flow.paint },
    close() {
      clearInterval(timer);
      rates.close();
      lag.close();
    },
  };
}

/** Boxes and pipes: the faster the readings, the faster the dashes move. */
function flowPicture() {
  const numbers = {};
  const number = (key, x, y) => (numbers[key] = svg("text", { class: "number", x, y }, "–"));
  const pipe = (d, style = "") => svg("path", { class: `pipe ${style}`, d });
  const box = ([key, x]) => svg("g", {}, svg("rect", { x, y: 40, width: 140, height: 76, rx: 12 }), svg("text", { class: "title", x: x + 70, y: 84 }, t(`pipeline.box.${key}`)));
  const side = (key, x) => svg("g", { class: "side" }, svg("rect", { x, y: 170, width: 150, height: 64, rx: 12 }), svg("text", { class: "title", x: x + 75, y: 196 }, t(`pipeline.${key}`)), number(key, x + 75, 222));
  const pipes = [pipe("M160 78H220"), pipe("M360 78H420"), pipe("M560 78H640")];
  const [spool, dead] = [pipe("M500 116V170", "down"), pipe("M470 116V140H330V170", "down bad")];
  const root = svg("svg", { class: "flow", viewBox: "0 0 800 250", role: "img", "aria-label": t("pipeline.flow") },
    pipes, spool, dead, BOXES.map(box), number("accepted", 390, 30), number("stored", 600, 30), side("dead", 255), side("spooled", 425), side("lag", 640));
  return {
    root,
    paint(next) {
      say(numbers.accepted, t("perSecond", { n: rate(next.accepted_per_s) }));
      say(numbers.stored, t("perSecond", { n: rate(next.stored_per_s) }));
      say(numbers.dead, count(next.dead_lettered));
      say(numbers.spooled, count(next.spooled));
      say(numbers.lag, duration(next.lag_ms));
      const speed = (n) => (n > 0 ? `${Math.max(0.4, 3 - Math.log10(n + 1) * 0.6).toFixed(2)}s` : "0s");
      pipes.forEach((each, at) => (each.style.animationDuration = speed(at < 2 ? next.accepted_per_s : next.stored_per_s)));
      spool.classList.toggle("busy", next.spooled > 0);
      dead.classList.toggle("busy", next.dead_lettered > 0);
      root.setAttribute("aria-label", `${t("pipeline.flow")}: ${t("pipeline.accepted")} ${rate(next.accepted_per_s)}/s, ${t("pipeline.stored")} ${rate(next.stored_per_s)}/s, ${t("pipeline.lag")} ${duration(next.lag_ms)}`);
    },
  };
}
