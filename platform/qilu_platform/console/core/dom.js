// Elements without a framework.

const SPACES = { svg: "http://www.w3.org/2000/svg", html: "http://www.w3.org/1999/xhtml" };

function make(space, tag, attributes, children) {
  const node = document.createElementNS(SPACES[space], tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return node;
}

/** `html("p", {class: "x", onclick: f}, child, [children])`; attributes that are null or false are left out. */
export const html = (tag, attributes, ...children) => make("html", tag, attributes, children);
export const svg = (tag, attributes, ...children) => make("svg", tag, attributes, children);

/** A column's heading; a column without one has an empty cell there. */
export const heading = (title, style = null) => html(title ? "th" : "td", { scope: title ? "col" : null, class: style }, title);

/** Sets a text only when it changed: the browser has less to do, and a reader's selection stays. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** A titled panel; `more` stands at the right of its title. */
export function panel(title, more, ...children) {
  const head = html("div", { class: "panel-head" }, html("h2", {}, title), more);
  return html("section", { class: "panel", "aria-label": title }, head, ...children);
}

/** A dialog that closes by Escape and by clicking beside it; resolves to what `close(value)` was called with. */
export function dialog(title, build) {
  return new Promise((resolve) => {
    const box = html("dialog", { "aria-label": title });
    const close = (value) => {
      box.close();
      box.remove();
      resolve(value);
    };
    box.append(html("h2", {}, title), build(close));
    box.addEventListener("cancel", () => close(undefined));
    box.addEventListener("click", (event) => event.target === box && close(undefined));
    document.body.append(box);
    box.showModal();
  });
}
