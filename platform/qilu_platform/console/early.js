// Asks at once for what the first page shows, while its modules are still on their way; core/api.js takes the answers.

const paths = ["console/catalogue.json", "v1/session"];
if (/^#?\/?$/.test(location.hash) && !new URLSearchParams(location.search).has("kiosk")) {
  paths.push("v1/programme", "console/shandong.geojson", "v1/places/370000/history");
}
globalThis.early = new Map(paths.map((path) => {
  const answer = fetch(path, { headers: { "X-Qilu-Console": "1" } });
  answer.catch(() => {}); // whoever takes it hears of it
  return [path, answer];
}));
setTimeout(() => globalThis.early.clear(), 10_000); // what nobody took is old by then
