// What does not change while the platform runs: places, industries, targets, classes with their signals.

import { get } from "./api.js";
import { named } from "./language.js";

export async function loadCatalogue() {
  const found = await get("console/catalogue.json");
  const by = (things, key) => new Map(things.map((each) => [each[key], each]));
  const [cities, counties, industries] = [by(found.cities, "code"), by(found.counties, "code"), by(found.industries, "code")];
  const [classes, targets] = [by(found.classes, "name"), by(found.targets, "name")];
  return {
    cities, classes, targets,
    counties: found.counties,
    industries: found.industries,
    city: (code) => cities.get(code),
    county: (code) => counties.get(code),
    industry: (code) => industries.get(code),
    class: (name) => classes.get(name),
    className: (name) => named(classes.get(name), name),
    signal: (className, name) => classes.get(className)?.signals.find((each) => each.name === name),
    signalName: (className, name) =>
      named(classes.get(className)?.signals.find((each) => each.name === name), name),
    place: (code) => (code === "370000" ? found.province : (cities.get(code) ?? counties.get(code))),
    placeName: (code) => named(code === "370000" ? found.province : (cities.get(code) ?? counties.get(code)), code),
  };
}
