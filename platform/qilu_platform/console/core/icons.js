// Signs of classes; a class of the user's own has the last one.

import { svg } from "./dom.js";

const PATHS = {
  blast_furnace: "M9 3h6l1 6 2 3v6H6v-6l2-3zM4 21h16M9 15h6",
  wind_turbine: "M12 12v9M9 21h6M12 10.500V3M12.800 11.500l6.200 3.600M11.200 11.5 5 15.1",
  motor: "M4 8h13v8H4zM17 11h4v2h-4M7 16v3M14 16v3M8 8v8M12 8v8",
  boiler: "M3 9h18v7H3zM7 9V4h3v5M6 16v4M18 16v4M12 12.500h6",
  compressor: "M3 11h18v6H3zM6 17v3M18 17v3M6 11V6h5v5M14 8h6",
  cnc: "M4 3h16v18H4zM12 3v8M9 7h6v4H9zM7 17h10",
  robot: "M6 21h8M10 21v-7l-4-5 6-5 6 3M18 7v4M16 11h4",
  reactor: "M8 3h8M9 3v4a6 7 0 1 0 6 0V3M12 7v9M9 16h6",
  pump: "M4 14a6 6 0 1 0 12 0 6 6 0 1 0-12 0M10 8h10v4h-4M7 20h6",
  loom: "M4 4h16M4 20h16M7 4v16M12 4v16M17 4v16M4 12h16",
  pasteuriser: "M5 4h14v16H5zM9 4v16M15 4v16M2 8h3M19 16h3",
  oven: "M3 6h18v13H3zM6 10h12v6H6zM8 3v3M16 3v3",
  other: "M12 3l8 4.500v9L12 21l-8-4.500v-9zM12 12l8-4.500M12 12v9M12 12 4 7.500",
};

export const icon = (className) =>
  svg("svg", { class: "glyph", viewBox: "0 0 24 24", "aria-hidden": "true" }, svg("path", { d: PATHS[className] ?? PATHS.other }));
