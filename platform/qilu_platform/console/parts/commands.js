// What a unit can be told: start, stop, a set point, a fault to play, a repair. For the roles that may.

import { get, id, post } from "../core/api.js";
import { html, panel } from "../core/dom.js";
import { named, t, time, unitText, value } from "../core/language.js";

export async function commandPanel(app, unit, class_) {
  const path = `v1/units/${id(unit.id)}/commands`;
  const list = html("ol", { class: "commands" });
  const note = html("p", { class: "fault", role: "alert" });
  let waiting = 0;
  let timer = 0;

  async function reload() {
    const { items } = await get(path, { limit: 8 }).catch(() => ({ items: [] }));
    waiting = items.filter((each) => each.state === "sent" && Date.now() - each.at_ms < 60_000).length;
    list.replaceChildren(...items.map((each) => html("li", { class: each.state },
      html("span", { class: `chip ${each.state}` }, t(`command.${each.state}`)), " ", describe(each.command, class_), " ", time(each.at_ms),
      each.reason && html("p", {}, each.reason))));
    clearTimeout(timer);
    if (waiting) timer = setTimeout(reload, 700);
  }

  async function send(command) {
    note.textContent = "";
    try {
      await post(path, command);
      await reload();
    } catch (error) {
      note.textContent = error.message;
    }
  }

  const may = app.may("operator");
  const tools = html("div", { class: "tools-grid" });
  if (may) {
    if (class_.stoppable) {
      tools.append(html("div", { class: "row" }, html("button", { type: "button", onclick: () => send({ command: "start" }) }, t("command.start")),
        html("button", { type: "button", class: "quiet", onclick: () => send({ command: "stop" }) }, t("command.stop"))));
    }
    for (const point of class_.set_points) {
      const box = html("input", { type: "number", step: "any", min: point.low, max: point.high, required: true, "aria-label": named(point) });
      tools.append(html("form", { class: "row", onsubmit: (event) => {
        event.preventDefault();
        send({ command: "set_point", name: point.name, value: Number(box.value) });
      } }, html("label", {}, named(point), html("small", {}, `${value(point.low)}–${value(point.high)} ${unitText(point.unit)}`)), box, html("button", { type: "submit" }, t("command.set"))));
    }
    if (class_.faults.length) {
      const which = html("select", { "aria-label": t("fault"), onchange: () => tell() }, class_.faults.map((each) => html("option", { value: each.name }, named(each))));
      const severity = html("input", { type: "range", min: 0.1, max: 1, step: 0.1, value: 0.9, "aria-label": t("severity") });
      const shows = html("small", {});
      const tell = () => {
        const fault = class_.faults.find((each) => each.name === which.value);
        const signs = { "+": "↑", "-": "↓", "~": "≈", "=": "=", "^": "⊤" };
        shows.textContent = fault.shows.map(([signal, way]) => `${named(class_.signals.find((each) => each.name === signal), signal)} ${signs[way]}`).join(" · ");
      };
      tell();
      tools.append(html("form", { class: "row fault-form", onsubmit: (event) => {
        event.preventDefault();
        send({ command: "fault", name: which.value, value: Number(severity.value), duration_s: 3600, onset_s: 5 });
      } }, html("label", {}, t("fault.inject"), shows), which, html("label", { class: "severity" }, t("severity"), severity),
      html("button", { type: "submit", class: "danger" }, t("fault.now")), html("button", { type: "button", class: "quiet", onclick: () => send({ command: "reset" }) }, t("command.reset"))));
    }
  }
  await reload();
  const root = panel(t("commands"), null, may ? tools : html("p", { class: "note" }, t("commands.may")), note, list);
  return { root, heard: () => waiting && reload(), close: () => clearTimeout(timer) };
}

function describe(command, class_) {
  if (command.command === "set_point") {
    const point = class_.set_points.find((each) => each.name === command.name);
    return `${named(point, command.name)} → ${value(command.value)} ${unitText(point?.unit)}`;
  }
  if (command.command === "fault") {
    return `${t("fault.named", { name: named(class_.faults.find((each) => each.name === command.name), command.name) })} (${value(command.value ?? 1)})`;
  }
  return t(`command.${command.command}`);
}
