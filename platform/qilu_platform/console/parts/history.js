// How the counts of the province and of cities grew.

import { get, id } from "../core/api.js";

const HOUR_MS = 3_600_000;
/** Rows of a long time are by the hour; with fewer than these the last hour shows more. */
const FEW = 3;

/** {rows, range} of the last `spanMs`: rows [ms, units on cloud, registered, enterprises on cloud, registered]. */
export async function grown(code, spanMs) {
  const to = Date.now() + 1;
  // The last hour is what the platform answers with when it is not given a time.
  const ask = (length) => get(`v1/places/${id(code)}/history`, length === HOUR_MS ? {} : { from: to - length, to })
    .then((found) => found.rows, () => []); // a platform without a store has no history
  let rows = await ask(spanMs);
  if (rows.length < FEW && spanMs > HOUR_MS) rows = await ask(HOUR_MS);
  return { rows, range: rows.length > 1 ? [rows[0][0], rows.at(-1)[0]] : null };
}
