// An enterprise: its nameplate, contracts, units, alarms and what its devices sent wrongly.

import { get, id } from "../core/api.js";
import { html, panel } from "../core/dom.js";
import { count, enterpriseName, named, t, time } from "../core/language.js";
import { icon } from "../core/icons.js";
import { pagedTable } from "../core/table.js";
import { alarmList } from "../parts/alarm_list.js";
import { crumbs, stateChip } from "../parts/labels.js";
import { problemList } from "../parts/problem_list.js";

export async function show(root, app, { id: enterpriseId }) {
  const { catalogue } = app;
  const enterprise = await get(`v1/enterprises/${id(enterpriseId)}`);
  const name = enterpriseName(enterprise, catalogue);
  app.title(name);
  const facts = [
    [t("id"), html("code", {}, enterprise.id)],
    [t("place"), html("a", { href: `#/place/${enterprise.county}` }, `${catalogue.placeName(enterprise.city)} ${catalogue.placeName(enterprise.county)}`)],
    [t("industry"), named(catalogue.industry(enterprise.industry), enterprise.industry)],
    [t("uscc"), enterprise.uscc ?? "–"],
    [t("registeredAt"), time(enterprise.registered_ms)],
    [t("onCloudSince"), time(enterprise.on_cloud_ms)],
    [t("contracts"), count(enterprise.contracts_current)],
  ];
  const units = pagedTable(t("units"), [
    [t("unit"), (each) => html("a", { href: `#/unit/${id(each.id)}` }, html("span", { class: "class" }, icon(each.class), each.name || each.id))],
    [t("class"), (each) => catalogue.className(each.class)],
    [t("state"), stateChip],
  ], (cursor) => get("v1/units", { enterprise: enterpriseId, cursor, limit: 25 }));
  const contracts = pagedTable(t("contracts"), [
    [t("kind"), (each) => t(`kind.${each.kind}`)],
    [t("provider"), (each) => each.provider],
    [t("since"), (each) => time(each.registered_ms)],
    [t("ends"), (each) => time(each.ended_ms)],
  ], (cursor) => get("v1/contracts", { enterprise: enterpriseId, cursor, limit: 10 }));
  root.append(crumbs(app, enterprise.county, {}), html("h1", {}, name),
    html("div", { class: "halves" },
      panel(t("units"), html("a", { href: `#/connect?enterprise=${id(enterpriseId)}` }, t("nav./connect")), units),
      html("div", { class: "stack" },
        panel(t("nameplate"), null, html("dl", { class: "plate" }, facts.map(([term, text]) => html("div", {}, html("dt", {}, term), html("dd", {}, text))))),
        panel(t("contracts"), null, contracts))),
    panel(t("nav./alarms"), null, await alarmList(app, { enterprise: enterpriseId, state: "open", limit: 20 })),
    panel(t("problems"), null, await problemList(`v1/enterprises/${id(enterpriseId)}/problems`, true)));
  return {};
}
