// The language of the page, and numbers, times and units of measure in it. One language at a time, remembered.

import { html } from "./dom.js";
import en from "../lang/en.js";
import zh from "../lang/zh.js";
import unitsZh from "../lang/units_zh.js";

const WORDS = { en, zh };
const LOCALES = { en: "en", zh: "zh-CN" };
const asked = new URLSearchParams(location.search).get("lang");
const kept = read("qilu.lang");

export const lang = [asked, kept, navigator.language.startsWith("zh") ? "zh" : "en"].find((each) => each in WORDS);
document.documentElement.lang = LOCALES[lang];

export function setLanguage(next) {
  write("qilu.lang", next);
  const url = new URL(location.href);
  url.searchParams.delete("lang");
  history.replaceState(null, "", url);
  location.reload();
}

/** Text of a key; `{name}` in it is replaced. */
export function t(key, values = {}) {
  const text = WORDS[lang][key] ?? WORDS.en[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}
export const has = (key) => key in WORDS.en;

/** What a thing of the catalogue is called in the page's language. */
export function named(thing, fallback = "") {
  if (!thing) return fallback;
  if (lang === "zh") return thing.title_zh || thing.name_zh || thing.title || thing.name;
  return thing.title || thing.name;
}

const formats = new Map();
function format(options) {
  const key = JSON.stringify(options);
  if (!formats.has(key)) formats.set(key, new Intl.NumberFormat(LOCALES[lang], options));
  return formats.get(key);
}

export const count = (n) => (n == null ? "–" : format({ maximumFractionDigits: 0 }).format(n));
export const compact = (n) =>
  n == null ? "–" : n < 10_000 ? count(n) : format({ notation: "compact", maximumSignificantDigits: 3 }).format(n);
export const rate = (n) => (n == null ? "–" : format({ maximumFractionDigits: n < 10 ? 1 : 0 }).format(n));

export const signed = (n) => format({ maximumFractionDigits: 0, signDisplay: "exceptZero" }).format(n);
export const percent = (ratio) => format({ style: "percent", maximumFractionDigits: 0 }).format(ratio);
/** The name of a month, 1 to 12. */
export const monthOfYear = (n) => new Intl.DateTimeFormat(LOCALES[lang], { month: "long", timeZone: "UTC" }).format(Date.UTC(2018, n - 1));
/** Money in yuan, `withSign` where it is a difference. */
export const yuan = (n, withSign = false) =>
  format({ style: "currency", currency: "CNY", currencyDisplay: "narrowSymbol", maximumFractionDigits: 0, signDisplay: withSign === true ? "exceptZero" : "auto" }).format(n);

/** A measured value: four digits that matter, no more. */
export function value(n) {
  if (n == null || Number.isNaN(n)) return "–";
  if (typeof n === "boolean") return n ? "1" : "0";
  const digits = Math.abs(n) >= 1000 ? 0 : Math.abs(n) >= 100 ? 1 : Math.abs(n) >= 1 ? 2 : 4;
  return format({ maximumFractionDigits: digits }).format(n);
}

/** A value that comes as text: a number is printed as one, anything else as it is. */
export const numberIn = (text) => (text.trim() !== "" && Number.isFinite(Number(text)) ? format({ maximumSignificantDigits: 15 }).format(Number(text)) : text);

/** Share of a target; tiny but real progress is never shown as nothing. */
export function share(part, all) {
  const style = (digits) => format({ style: "percent", maximumFractionDigits: digits });
  if (!all || !part) return style(0).format(0);
  const ratio = part / all;
  if (ratio < 0.0001) return `< ${style(2).format(0.0001)}`;
  return style(ratio < 0.01 ? 2 : ratio < 0.1 ? 1 : 0).format(Math.floor(ratio * 10_000) / 10_000);
}

/** A length of time in ms, in the unit that a person would say. */
export function duration(ms) {
  if (ms == null) return "–";
  const unit = (amount, name) =>
    format({ style: "unit", unit: name, unitDisplay: "short", maximumFractionDigits: 1 }).format(amount);
  if (ms < 1000) return unit(Math.round(ms), "millisecond");
  if (ms < 60_000) return unit(ms / 1000, "second");
  if (ms < 3_600_000) return unit(ms / 60_000, "minute");
  if (ms < 172_800_000) return unit(ms / 3_600_000, "hour");
  return unit(ms / 86_400_000, "day");
}

const SHANGHAI = { timeZone: "Asia/Shanghai", hourCycle: "h23" };
const clock = new Intl.DateTimeFormat(LOCALES[lang], { ...SHANGHAI, dateStyle: "medium", timeStyle: "medium" });
const short = new Intl.DateTimeFormat(LOCALES[lang], { ...SHANGHAI, timeStyle: "medium" });
const day = new Intl.DateTimeFormat(LOCALES[lang], { ...SHANGHAI, dateStyle: "medium" });

const months = new Intl.DateTimeFormat(LOCALES[lang], { timeZone: "UTC", year: "numeric", month: "long" });

/** The month in which an instant (UTC) lies. */
export const monthText = (ms) => months.format(ms);
export const timeText = (ms) => (ms == null ? "–" : clock.format(ms));
export const clockText = (ms) => short.format(ms);
export const dayText = (ms) => day.format(ms);
/** An element with the time in Shanghai, and in UTC on hover. */
export function time(ms, text = timeText) {
  if (ms == null) return html("span", {}, "–");
  const iso = new Date(ms).toISOString();
  return html("time", { datetime: iso, title: `${iso.slice(0, 19).replace("T", " ")} UTC` }, text(ms));
}

/** A unit of measure as it is printed: degC, m3 and the like have signs of their own. */
export function unitText(unit) {
  if (!unit || unit === "-" || unit === "1") return "";
  if (lang === "zh" && unitsZh[unit]) return unitsZh[unit];
  return unit.replace("deg", "°").replace(/\b(N?m|mm|cm)([23])/g, (_, base, power) => base + (power === "2" ? "²" : "³"))
    .replace(/CO2/g, "CO₂").replace(/(s)2\b/g, "$1²");
}

/** The name of an enterprise. Those of simulated fleets follow from county and industry, and so have one in Chinese. */
export function enterpriseName(enterprise, catalogue) {
  const made = / No\. (\d+)$/.exec(enterprise.name);
  const county = catalogue.county(enterprise.county);
  const industry = catalogue.industry(enterprise.industry);
  if (lang !== "zh" || !made || !county || !industry) return enterprise.name;
  if (enterprise.name !== `${county.name} ${industry.name} No. ${made[1]}`) return enterprise.name;
  return `${county.name_zh}${industry.name_zh}${made[1]}号企业`;
}

export function read(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null; // storage is switched off: nothing is remembered
  }
}

export function write(name, text) {
  try {
    localStorage.setItem(name, text);
  } catch {
    // the same
  }
}
