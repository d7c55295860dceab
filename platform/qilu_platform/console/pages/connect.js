// Connecting a device: registering it, what it needs, and waiting for its first reading.

import { ApiError, get, id, post, put } from "../core/api.js";
import { html, panel, svg } from "../core/dom.js";
import { enterpriseName, named, t, time, unitText, value } from "../core/language.js";
import { icon } from "../core/icons.js";
import { devicePassword } from "../parts/device_password.js";
import { classOf, typeForm, unitSignal } from "../parts/device_type.js";
import { problemList } from "../parts/problem_list.js";
import { snippets } from "../parts/snippets.js";
import { upload } from "../parts/upload.js";

export async function show(root, app, { query }) {
  root.append(html("h1", {}, t("nav./connect")));
  if (!app.session.signed_in) {
    root.append(app.signInFirst());
    return {};
  }
  if (query.get("unit")) return waiting(root, app, query.get("unit"));
  if (!app.may("operator", "enterprise", "fleet")) {
    root.append(panel(t("connect.register"), null, html("p", {}, t("connect.may"))));
    return {};
  }
  register(root, app, query, await get("v1/device-types").then((found) => found.items, () => []));
  return {};
}

const NEW = "+";
/** Before the id of a device type: its units are generic. */
const TYPE = "type ";
const GENERIC = "generic";

function register(root, app, query, types) {
  const { catalogue } = app;
  const own = app.session.enterprise;
  const fault = html("p", { class: "fault", role: "alert" });
  const picture = html("p", { class: "class big-class" });
  const option = (value, thing) => html("option", { value, selected: value === "motor" }, thing);
  const kind = html("select", { required: true, name: "class", onchange: () => describe() },
    html("optgroup", { label: t("type.catalogue") }, [...catalogue.classes.values()].map((each) => option(each.name, named(each)))),
    html("optgroup", { label: t("type.own") }, types.map((each) => option(TYPE + each.id, named(each))), app.may("operator") && option(NEW, t("type.new"))));
  const about = html("p", { class: "note" });
  const ownClass = html("p", { class: "note" }, t("connect.ownClass"), " ", html("code", {}, "qilu up --classes my-class.yaml"));
  const change = html("button", { type: "button", class: "quiet", onclick: () => describe(true) }, t("type.change"));
  const form = html("div");
  let described = null;
  /** Shows what the chosen class measures; an own one `changed`, and a new one, as a form. */
  function describe(changed = false) {
    const type = types.find((each) => TYPE + each.id === kind.value);
    const class_ = type ? { ...type, signals: type.signals.map(unitSignal) } : catalogue.class(kind.value);
    described = kind.value === NEW || changed ? typeForm(types, type) : null;
    form.replaceChildren(...(described ? [described.root] : []));
    picture.replaceChildren(icon(type || described ? GENERIC : kind.value), named(class_, t("type.new")));
    change.hidden = !type || changed || !app.may("operator");
    ownClass.hidden = Boolean(class_ && !class_.learns && !type);
    about.textContent = !class_ || class_.learns ? t("connect.learns") : class_.signals.map((each) => named(each)).join(" · ");
  }
  describe();
  const owner = html("input", { name: "enterprise", list: "enterprises", value: own ?? query.get("enterprise") ?? "", readonly: Boolean(own),
    placeholder: t("connect.find"), "aria-label": t("enterprise"), autocomplete: "off" });
  const found = html("datalist", { id: "enterprises" });
  owner.addEventListener("input", async () => {
    const page = await get("v1/enterprises", { name: owner.value, limit: 12 }).catch(() => ({ items: [] }));
    found.replaceChildren(...page.items.map((each) => html("option", { value: each.id }, enterpriseName(each, catalogue))));
  });
  const county = html("select", { name: "county" }, [...catalogue.counties.values()].map((each) =>
    html("option", { value: each.code, selected: each.code === "370202" }, `${catalogue.placeName(each.city)} ${catalogue.placeName(each.code)}`)));
  const industry = html("select", { name: "industry" }, [...catalogue.industries.values()].map((each) =>
    html("option", { value: each.code, selected: each.code === "C34" }, named(each))));
  const newName = html("input", { name: "new-enterprise", maxlength: 200, "aria-label": t("connect.newName") });
  const makes = html("fieldset", { class: "fields", hidden: true }, html("legend", {}, t("connect.new")),
    field(t("name"), newName), field(t("place"), county), field(t("industry"), industry));
  const choice = html("select", { name: "which", hidden: Boolean(own), "aria-label": t("enterprise"), onchange: () => {
    makes.hidden = choice.value !== NEW;
    owner.parentElement.hidden = choice.value === NEW;
  } }, html("option", { value: "" }, t("connect.existing")), !own && html("option", { value: NEW }, t("connect.new")));
  const name = html("input", { name: "name", maxlength: 200 });

  async function submit(event) {
    event.preventDefault();
    fault.textContent = "";
    try {
      let enterprise = owner.value.trim();
      if (choice.value === NEW) {
        enterprise = (await post("v1/enterprises", { name: newName.value.trim(), county: county.value, industry: industry.value })).id;
      }
      const type = described ? await described.save() : kind.value.startsWith(TYPE) ? kind.value.slice(TYPE.length) : null;
      const unit = await post("v1/units", { class: type === null ? kind.value : GENERIC, enterprise, ...(name.value.trim() ? { name: name.value.trim() } : {}) });
      if (type !== null) await put(`v1/units/${id(unit.id)}/device-type`, { type });
      app.go(`#/connect?unit=${id(unit.id)}`);
    } catch (error) {
      fault.textContent = error.message;
    }
  }
  root.append(html("div", { class: "halves" },
    panel(t("connect.register"), null, html("form", { class: "fields", onsubmit: submit },
      field(t("class"), kind), form, field(t("enterprise"), choice), html("div", {}, owner, found), makes,
      field(t("connect.unitName"), name), html("button", { type: "submit" }, t("connect.go")), fault)),
    html("div", { class: "stack" }, panel(t("connect.class"), change, picture, about, ownClass),
      app.may("operator", "fleet") && panel(t("upload"), null, upload()))));
}

const field = (title, box) => html("label", { class: "field" }, html("span", {}, title), box);

async function waiting(root, app, unitId) {
  const { catalogue } = app;
  const unit = await get(`v1/units/${id(unitId)}`);
  const class_ = await classOf(unit, catalogue);
  const at = await get("v1/connection");
  let ready = snippets(unit, class_, at);
  const text = html("code");
  const save = html("button", { type: "button", class: "quiet", onclick: () => download(new Blob([text.textContent]), ready[chosen][2] ?? "snippet.txt") }, t("connect.save"));
  const copy = html("button", { type: "button", class: "quiet", onclick: async () => {
    await navigator.clipboard.writeText(text.textContent).then(() => (copy.textContent = t("connect.copied")), () => {});
  } }, t("connect.copy"));
  let chosen = "mosquitto";
  const tabs = html("div", { class: "tabs", role: "group", "aria-label": t("connect.how") }, Object.entries(ready).map(([key, [title]]) =>
    html("button", { type: "button", value: key, onclick: () => choose(key) }, t(title))));
  function choose(key) {
    chosen = key;
    text.textContent = ready[key][1];
    copy.textContent = t("connect.copy");
    for (const tab of tabs.children) tab.setAttribute("aria-pressed", String(tab.value === key));
  }
  choose(chosen);
  const login = await devicePassword(app, unit, at, (made) => {
    ready = snippets(unit, class_, at, made);
    choose(chosen);
  });
  const note = html("p", { class: "fault", role: "alert" });
  const zip = html("button", { type: "button", disabled: !at.tls, onclick: async () => {
    const answer = await fetch(`v1/enterprises/${id(unit.enterprise)}/certificates/bundle`, {
      method: "POST", headers: { "Content-Type": "application/json", "X-Qilu-Console": "1" }, body: "{}" });
    if (answer.ok) download(await answer.blob(), `${unit.enterprise}.zip`);
    else note.textContent = new ApiError(answer.status, await answer.json()).message;
  } }, t("connect.zip"));
  const problems = await problemList(`v1/units/${id(unitId)}/problems`);
  const state = html("div", { class: "waiting", role: "status" }, html("span", { class: "radar", "aria-hidden": "true" }), html("p", {}, t("connect.waiting")));

  const signal = (name) => class_.signals.find((each) => each.name === name);
  function celebrate({ ts_ms: ms, values }) {
    state.className = "arrived";
    state.replaceChildren(confetti(), icon(unit.class), html("div", {},
      html("h2", {}, t("connect.arrived")), html("p", {}, time(ms), " · ", Object.entries(values).slice(0, 4).map(([name, n]) =>
        `${named(signal(name), name)} ${value(n)} ${unitText(signal(name)?.unit)}`).join(" · ")),
      html("p", {}, html("a", { class: "button", href: `#/unit/${id(unitId)}` }, t("connect.open")))));
  }
  const asking = setInterval(() => document.hidden || problems.reload(), 2000);

  root.append(
    html("p", { class: "crumbs" }, html("span", { class: "class" }, icon(unit.class), html("b", {}, unit.name || unit.id), html("code", {}, unit.id))),
    html("div", { class: "halves" },
      panel(t("connect.how"), html("span", { class: "row" }, copy, save), tabs, html("pre", { tabindex: 0 }, text),
        login, html("div", { class: "row" }, zip, html("small", {}, at.tls ? t("connect.zipAbout") : t("connect.noZip"))), note),
      html("div", { class: "stack" }, html("section", { class: "panel", "aria-label": t("connect.first") }, state),
        panel(t("connect.refused"), null, problems))));
  return {
    stream: `v1/units/${id(unitId)}/events`,
    handlers: { latest: celebrate },
    close: () => clearInterval(asking),
  };
}

function download(blob, name) {
  const link = html("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function confetti() {
  const pieces = Array.from({ length: 28 }, (_, i) =>
    svg("rect", { class: `piece p${i % 4}`, x: 4 + ((i * 37) % 92), y: -8 - ((i * 53) % 40), width: 2, height: 3.5 }));
  return svg("svg", { class: "confetti", viewBox: "0 0 100 60", preserveAspectRatio: "none", "aria-hidden": "true" }, pieces);
}
