// A file of units or enterprises: sent piece by piece as a resumable import, with progress and the bad lines.

import { ApiError, get } from "../core/api.js";
import { html } from "../core/dom.js";
import { count, percent, t } from "../core/language.js";

const PIECE_BYTES = 1024 * 1024;
const SHOWN_ERRORS = 200;
/** A broken connection is tried again so many times, from where the platform has come to. */
const TRIES = 5;
const RETRY_MS = 2000;
const EXAMPLES = {
  units: "id,class,enterprise,name\nmy-motor-1,motor,my-works,Pump 3\n",
  enterprises: "id,name,county,industry\nmy-works,My works,370202,C34\n",
};

export function upload() {
  const book = html("select", { name: "book", onchange: () => (example.textContent = EXAMPLES[book.value]) },
    Object.keys(EXAMPLES).map((each) => html("option", { value: each }, t(each))));
  const example = html("code", {}, EXAMPLES.units);
  // A browser labels such a box in its own language, so ours covers it.
  const file = html("input", { type: "file", class: "hidden", name: "file", accept: ".csv,.ndjson,text/csv", onchange: () => {
    chosen.textContent = file.files[0]?.name ?? "";
    go.disabled = !file.files.length;
  } });
  const chosen = html("span", {});
  const bar = html("progress", { max: 1, value: 0, "aria-label": t("upload.progress") });
  const said = html("p", { role: "status" });
  const go = html("button", { type: "submit", disabled: true }, t("upload.go"));
  const errors = html("div", { class: "scroll", tabindex: 0, hidden: true });

  async function submit(event) {
    event.preventDefault();
    go.disabled = true;
    errors.hidden = true;
    said.className = "";
    try {
      const job = await send(file.files[0], book.value, (offset, all, lines) => {
        bar.value = all ? offset / all : 1;
        said.textContent = t("upload.lines", { share: percent(bar.value), n: count(lines) });
      });
      said.textContent = t("upload.done", { created: count(job.created), existing: count(job.existing), bad: count(job.bad) });
      if (job.bad) await showErrors(job);
    } catch (error) {
      said.className = "fault";
      said.textContent = error.message;
    }
    go.disabled = false;
  }

  async function showErrors(job) {
    const lines = (await (await fetch(job.errors.slice(1))).text()).trim().split("\n");
    errors.replaceChildren(html("table", {}, html("caption", { class: "note" }, t("upload.bad", { n: count(Math.min(SHOWN_ERRORS, lines.length)), all: count(job.bad) })),
      html("thead", {}, html("tr", {}, ["upload.line", "upload.column", "upload.reason"].map((key) => html("th", { scope: "col" }, t(key))))),
      html("tbody", {}, lines.slice(0, SHOWN_ERRORS).map((each) => JSON.parse(each)).map(({ line, column, reason }) =>
        html("tr", {}, html("th", { scope: "row" }, count(line)), html("td", {}, html("code", {}, column ?? "–")), html("td", { lang: "en" }, reason))))));
    errors.hidden = false;
  }

  const field = (title, box) => html("label", { class: "field" }, html("span", {}, title), box);
  return html("form", { class: "fields upload", onsubmit: submit },
    field(t("upload.book"), book), field(t("upload.file"), html("span", { class: "row file" }, file, html("b", { class: "tool" }, t("upload.choose")), chosen)), html("p", { class: "note" }, t("upload.columns")), html("pre", { tabindex: 0 }, example),
    go, bar, said, errors);
}

/** The job when the whole file is in; `shown(offset, bytes, lines)` after every piece. */
async function send(file, book, shown) {
  const type = /\.(ndjson|jsonl)$/.test(file.name) ? "application/x-ndjson" : "text/csv";
  let job = await call("POST", `v1/imports?book=${book}`);
  for (let tries = 0; job.state === "open"; ) {
    const end = Math.min(job.offset + PIECE_BYTES, file.size);
    const headers = { "Content-Type": type, "Upload-Offset": job.offset, "Upload-Complete": end === file.size ? "?1" : "?0" };
    try {
      job = await call("PATCH", `v1/imports/${job.id}`, headers, file.slice(job.offset, end));
      tries = 0;
    } catch (error) {
      if (error.status !== 0 || ++tries > TRIES) throw error;
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      job = await get(`v1/imports/${job.id}`).catch(() => job);
    }
    shown(job.state === "done" ? file.size : job.offset, file.size, job.lines);
  }
  return job;
}

async function call(method, path, headers = {}, body = undefined) {
  const answer = await fetch(path, { method, body, headers: { "X-Qilu-Console": "1", ...headers } }).catch(() => {
    throw new ApiError(0, { detail: t("stream.lost") });
  });
  const found = await answer.json().catch(() => null);
  if (!answer.ok) throw new ApiError(answer.status, found);
  return found;
}
