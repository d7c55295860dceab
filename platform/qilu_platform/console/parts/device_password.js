// A password for one device: made, shown once, revoked.

import { get, id, post, remove } from "../core/api.js";
import { html } from "../core/dom.js";
import { t, time } from "../core/language.js";

/** `onMade({username, password, listener})` hears of a new one; `at` is the answer of GET /v1/connection. */
export async function devicePassword(app, unit, at, onMade) {
  const path = `v1/units/${id(unit.id)}/password`;
  const root = html("div", { class: "device-password" });
  const fault = html("p", { class: "fault", role: "alert" });
  const shown = html("div");
  const may = app.may("operator", "enterprise");

  async function act(work) {
    fault.textContent = "";
    try {
      await work();
    } catch (error) {
      fault.textContent = error.message;
    }
  }
  const make = () => act(async () => {
    const made = await post(path);
    shown.replaceChildren(html("dl", { class: "plate" },
      html("div", {}, html("dt", {}, t("password.user")), html("dd", {}, html("code", {}, made.username))),
      html("div", {}, html("dt", {}, t("password.password")), html("dd", {}, html("code", { class: "secret" }, made.password)))),
      html("p", { class: "note" }, t("password.once")), revokes());
    onMade(made);
  });
  const revoke = () => act(async () => {
    await remove(path);
    shown.replaceChildren(html("p", { role: "status" }, t("password.revoked")));
    onMade(null);
  });
  const revokes = () => html("button", { type: "button", class: "quiet", onclick: revoke }, t("password.revoke"));
  if (may && at.password) root.append(html("button", { type: "button", onclick: make }, t("password.make")));
  root.append(html("p", { class: "note" }, t(at.password ? "password.about" : "password.none")), shown, fault);
  const present = await get(path);
  if (present.issued_ms) shown.append(html("p", {}, t("password.present"), " ", time(present.issued_ms)), may && revokes());
  return root;
}
