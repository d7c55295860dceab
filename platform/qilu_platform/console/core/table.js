// Tables that page: a page costs its own length, however many rows there are.

import { heading, html } from "./dom.js";
import { t } from "./language.js";

/**
 * `columns`: [title, row => node or text, class?]; `load(cursor)`: {items, next}. Returns the element; `reload()`
 * on it begins anew, `refresh()` shows the same pages as they are now.
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

  const row = (item) => html("tr", {}, columns.map(([, show, style], at) =>
    html(at ? "td" : "th", { scope: at ? null : "row", class: style }, show(item))));

  async function pageAfter(place) {
    let page = await load(place);
    // A page may hold nothing though others follow: it looked at as much as it may.
    for (let tries = 0; page.items.length === 0 && page.next && tries < 20; tries++) page = await load(page.next);
    return page;
  }

  function shown(place) {
    cursor = place;
    note.textContent = body.rows.length ? "" : empty;
    more.hidden = !cursor;
  }

  async function next() {
    const mine = ++run;
    more.disabled = true;
    try {
      const page = await pageAfter(cursor);
      if (mine !== run) return;
      body.append(...page.items.map(row));
      shown(page.next);
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
  root.refresh = async () => {
    const mine = run;
    const items = [];
    let place = null;
    do {
      const page = await pageAfter(place);
      items.push(...page.items);
      place = page.next;
    } while (place && items.length < body.rows.length);
    // Not while something else is loaded, nor under the keyboard's focus.
    if (mine !== run || more.disabled || body.contains(document.activeElement)) return;
    body.replaceChildren(...items.map(row));
    shown(place);
  };
  root.reload();
  return root;
}
