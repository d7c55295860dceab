// The platform's public API. Addresses are relative, so that a path prefix changes nothing.

import { has, t } from "./language.js";

export class ApiError extends Error {
  constructor(status, problem) {
    const detail = problem?.detail ?? `HTTP ${status}`;
    super(has(`problem.${status}`) ? t(`problem.${status}`, { detail }) : detail); // the API's own words are English
    this.status = status;
    this.errors = problem?.errors ?? [];
  }
}

/** The answer that early.js has asked for, once. */
function early(method, path) {
  const asked = method === "GET" ? globalThis.early?.get(path) : undefined;
  globalThis.early?.delete(path);
  return asked;
}

async function call(method, path, body) {
  let answer;
  try {
    answer = await (early(method, path) ?? fetch(path, {
      method,
      headers: { "X-Qilu-Console": "1", ...(body === undefined ? {} : { "Content-Type": "application/json" }) },
      body: body === undefined ? undefined : JSON.stringify(body),
    }));
  } catch {
    throw new ApiError(0, { detail: t("away") });
  }
  if (answer.status === 204) return null;
  const found = await answer.json().catch(() => null);
  if (!answer.ok) throw new ApiError(answer.status, found);
  return found;
}

const query = (values) => {
  const given = Object.entries(values).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return given.length ? `?${new URLSearchParams(given)}` : "";
};

export const get = (path, values = {}) => call("GET", path + query(values));
export const post = (path, body) => call("POST", path, body);
export const put = (path, body) => call("PUT", path, body);
export const remove = (path) => call("DELETE", path);
export const id = encodeURIComponent;
