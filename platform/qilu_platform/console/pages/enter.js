// Signing in: by the link that `qilu up` prints, or by a key.

import { post } from "../core/api.js";
import { html } from "../core/dom.js";
import { t } from "../core/language.js";

export async function show(root, app, { link, query }) {
  const to = query.get("to") ?? "#/";
  app.title(t("signIn"));
  const fault = html("p", { class: "fault", role: "alert" });
  async function enter(body) {
    try {
      app.setSession(await post("v1/session", body));
      // The link is spent, and nobody wants it in the history.
      location.replace(to.startsWith("#/") ? to : "#/");
    } catch (error) {
      fault.textContent = error.message;
    }
  }
  const key = html("input", { type: "password", name: "key", required: true, autocomplete: "current-password", "aria-label": t("key") });
  root.append(html("section", { class: "panel narrow" },
    html("h1", {}, t("signIn")),
    html("p", {}, t("signIn.how")),
    html("form", { class: "row", onsubmit: (event) => {
      event.preventDefault();
      enter({ key: key.value.trim() });
    } }, html("input", { type: "text", name: "username", autocomplete: "username", value: "qilu", hidden: true }), key, html("button", { type: "submit" }, t("signIn"))),
    fault));
  if (link) await enter({ link });
  return {};
}
