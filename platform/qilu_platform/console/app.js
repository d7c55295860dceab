// The shell: which page is shown, in which language and colours, who has signed in, whether the platform is there.
// A page is a module `pages/<name>.js` with `show(root, app, params)`, which may return {stream, handlers, close}.

import { ApiError, get, remove } from "./core/api.js";
import { loadCatalogue } from "./core/catalogue.js";
import { html, say } from "./core/dom.js";
import { count, lang, read, setLanguage, t, write } from "./core/language.js";
import { Stream } from "./core/stream.js";

/** `?kiosk` in the address: the first page is for a video wall. */
const KIOSK = new URLSearchParams(location.search).has("kiosk");
/** Addresses: a pattern with named parts, and the page. All are behind the #, so that any path prefix serves. */
const ROUTES = [
  ["/", KIOSK ? "kiosk" : "province"],
  ["/place/:code", "place"],
  ["/enterprise/:id", "enterprise"],
  ["/unit/:id", "unit"],
  ["/alarms", "alarms"],
  ["/connect", "connect"],
  ["/pipeline", "pipeline"],
  ["/programme", "programme"],
  ["/what-if", "what_if"],
  ["/model", "model"],
  ["/search", "search"],
  ["/sign-in", "enter"],
  ["/enter/:link", "enter"],
];
const NAVIGATION = ["/", "/alarms", "/connect", "/pipeline", "/programme", "/model"];
/** A page that takes longer says so. */
const SLOW_MS = 400;
const THEMES = ["auto", "light", "dark"];

const $ = (id) => document.getElementById(id);

function parse(hash) {
  const [path, query] = (hash.slice(1) || "/").split("?");
  for (const [pattern, page] of ROUTES) {
    const names = [];
    const match = new RegExp(`^${pattern.replace(/:(\w+)/g, (_, name) => (names.push(name), "([^/]+)"))}$`).exec(path);
    if (!match) continue;
    const params = Object.fromEntries(names.map((name, at) => [name, decodeURIComponent(match[at + 1])]));
    return { page, path, params, query: new URLSearchParams(query) };
  }
  return { page: null, path, params: {}, query: new URLSearchParams(query) };
}

const app = {
  lang,
  catalogue: null,
  session: { signed_in: false, role: null, enterprise: null },
  go: (hash) => (location.hash = hash),
  /** Changes the query of the address without a page of its own in the history. */
  remember(values) {
    const { path, query } = parse(location.hash);
    for (const [name, value] of Object.entries(values)) value == null ? query.delete(name) : query.set(name, value);
    history.replaceState(null, "", `#${path}${query.size ? `?${query}` : ""}`);
  },
  may: (...roles) => ["admin", ...roles].includes(app.session.role),
  setSession(session) {
    app.session = session;
    paintAccount();
  },
  signInFirst: () => html("section", { class: "panel hint-panel" },
    html("p", {}, t("signInFirst")), html("p", {}, html("a", { class: "button", href: `#/sign-in?to=${encodeURIComponent(location.hash)}` }, t("signIn")))),
};

/** The platform was not there when the page was asked for. */
let missed = false;

const stream = new Stream((state) => {
  // The whole document: a module that could not be fetched is not asked for again.
  if (missed && state === "live") location.reload();
  $("stream").dataset.state = document.documentElement.dataset.stream = state;
  say($("stream-text"), t(`stream.${state}`));
});

let shown = null;
let path = null;
let run = 0;

async function route() {
  const mine = ++run;
  missed = false;
  const at = parse(location.hash);
  for (const link of $("nav").querySelectorAll("a")) {
    if (link.hash === `#${at.path}` || (at.path === "/" && link.hash === "#/")) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const root = html("div", { class: `page page-${at.page}` });
  const title = (text) => (document.title = text ? `${text} – ${t("brand")}` : t("brand"));
  title(has(`nav.${at.path}`) ? t(`nav.${at.path}`) : "");
  let next = {};
  const slow = setTimeout(() => mine === run && $("main").replaceChildren(html("p", { class: "loading", role: "status" }, t("loading"))), shown ? SLOW_MS : 0);
  try {
    if (!at.page) throw new Error(t("noSuchPage"));
    const page = await import(`./pages/${at.page}.js`);
    if (mine !== run) return clearTimeout(slow);
    next = (await page.show(root, { ...app, title }, { ...at.params, query: at.query })) ?? {};
  } catch (error) {
    missed = error.status === 0 || error instanceof TypeError;
    if (missed) error = new ApiError(0, { detail: t("away") });
    root.replaceChildren(error.status === 401 && !app.session.signed_in ? app.signInFirst()
      : html("section", { class: "panel hint-panel", role: "alert" }, html("p", {}, error.message)));
  }
  clearTimeout(slow);
  if (mine !== run) {
    next.close?.();
    return;
  }
  shown?.close?.();
  shown = next;
  $("main").replaceChildren(root);
  if (at.path !== path) scrollTo(0, 0); // another page begins at its top
  path = at.path;
  document.documentElement.dataset.page = at.page;
  const handlers = { ...next.handlers };
  handlers.alarms = (event) => {
    paintAlarms(event);
    next.handlers?.alarms?.(event);
  };
  stream.follow(next.stream ?? "v1/events", handlers);
}

const has = (key) => t(key) !== key;

function paintAlarms({ open }) {
  const badge = $("nav").querySelector('a[href="#/alarms"] .badge');
  badge.hidden = !open;
  say(badge, count(open));
}

function paintAccount() {
  const { signed_in: signedIn, role } = app.session;
  $("account").replaceChildren(
    signedIn
      ? html("button", { type: "button", class: "tool", onclick: signOut, title: t("signOut") }, t(`role.${role}`))
      : html("a", { class: "tool", href: "#/sign-in" }, t("signIn")),
  );
}

async function signOut() {
  await remove("v1/session");
  app.setSession(await get("v1/session"));
  route();
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  write("qilu.theme", theme);
  say($("theme"), t(`theme.${theme}`));
  $("theme").setAttribute("aria-label", `${t("theme")}: ${t(`theme.${theme}`)}`);
}

function paintShell() {
  $("skip").textContent = t("skip");
  $("skip").addEventListener("click", (event) => {
    event.preventDefault(); // the # is for pages
    $("main").focus();
  });
  $("brand").textContent = t("brand");
  $("nav").setAttribute("aria-label", t("navigation"));
  $("nav").append(...NAVIGATION.map((path) => html("a", { href: `#${path}` }, t(`nav.${path}`),
    path === "/alarms" && html("span", { class: "badge", hidden: true }))));
  const box = html("input", { type: "search", name: "q", placeholder: t("search"), "aria-label": t("search"), autocomplete: "off" });
  $("search").append(box);
  $("search").addEventListener("submit", (event) => {
    event.preventDefault();
    if (box.value.trim()) app.go(`#/search?q=${encodeURIComponent(box.value.trim())}`);
  });
  $("language").textContent = lang === "zh" ? "English" : "中文";
  $("language").lang = lang === "zh" ? "en" : "zh-CN";
  $("language").addEventListener("click", () => setLanguage(lang === "zh" ? "en" : "zh"));
  setTheme(THEMES.find((each) => each === read("qilu.theme")) ?? "auto");
  $("theme").addEventListener("click", () =>
    setTheme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length]));
  $("footer").append(html("p", {}, t("footer")), html("p", {},
    html("a", { href: "openapi.json" }, t("footer.api")), " · ", html("a", { href: "v1/programme" }, t("footer.json"))));
}

paintShell();
// The page's module comes while the catalogue does; a failure is heard of in route().
const { page: firstPage } = parse(location.hash);
if (firstPage) import(`./pages/${firstPage}.js`).catch(() => {});
try {
  const [catalogue, session] = await Promise.all([loadCatalogue(), get("v1/session")]);
  app.catalogue = catalogue;
  app.setSession(session);
  addEventListener("hashchange", route);
  await route();
} catch (error) {
  missed = true;
  $("main").replaceChildren(html("section", { class: "panel hint-panel", role: "alert" }, html("p", {}, error.message)));
  stream.follow("v1/events", {});
}
