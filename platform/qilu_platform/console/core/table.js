// Tables that page: a page costs its own length, however many rows there are.

import { heading, html } from "./dom.js";
import { t } from "./language.js";

/**
 * `columns`: [title, row => node or text, class?]; `load(cursor)`: {items, next}. Returns the element; `reload()`
 * on it begins anew.
 */
export function pagedTable(label, columns, load, empty = t("none")) {
  const body = html("tbody");
  const more = html("button", { type: "button", class: "quiet", hidden: true, onclick: () => next() }, t("more"));
  const note = html("p", { class: "note", role: "status" });
  const head = html("tr", {}, columns.map(([title, , style]) => heading(title, style)));
  const table = html("table", { class: "list" }, html("caption", { class: "hidden" }, label), html("thead", {}, head), body);
  const root = html("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": label }, table, note, more);
  let cursor = null;
  let run = 0;

  async function next() {
    const mine = ++run;
    more.disabled = true;
    try {
      let page = await load(cursor);
      // A page may hold nothing though others follow: it looked at as much as it may.
      for (let tries = 0; page.items.length === 0 && page.next && tries < 20; tries++) page = await load(page.next);
      if (mine !== run) return;
      cursor = page.next;
      for (const item of page.items) {
        body.append(html("tr", {}, columns.map(([, show, style], at) =>
          html(at ? "td" : "th", { scope: at ? null : "row", class: style }, show(item)))));
      }
      note.textContent = body.rows.length ? "" : empty;
      more.hidden = !cursor;
    } catch (error) {
      note.textContent = error.message;
    }
    more.disabled = false;
  }

  root.reload = () => {
    cursor = null;
    body.replaceChildren();
    return next();
  };
  root.reload();
  return root;
}
