// What gateways refused of what devices sent, and why.

import { get, id } from "../core/api.js";
import { html } from "../core/dom.js";
import { count, has, lang, t, time } from "../core/language.js";

/** A gateway's words in the page's language. */
const { refusalText } = lang === "zh" ? await import("../lang/reasons_zh.js") : { refusalText: (text) => text };
export { refusalText };

/** The element; its `reload()` asks again and returns the problems. */
export async function problemList(path, withUnit = false) {
  const list = html("ul", { class: "problems" });
  list.reload = async () => {
    const items = await get(path).then((found) => found.items, () => []);
    list.replaceChildren(...items.map((each) => html("li", {},
      html("b", {}, has(`reason.${each.reason}`) ? t(`reason.${each.reason}`) : each.reason),
      html("span", { class: "note" }, t("problems.times", { n: count(each.count) }), " · ", time(each.last_ms),
        withUnit && html("a", { href: `#/unit/${id(each.unit)}` }, ` ${each.unit}`)),
      html("code", {}, refusalText(each.excerpt)))));
    if (!items.length) list.append(html("li", { class: "note" }, t("problems.none")));
    return items;
  };
  await list.reload();
  return list;
}
