"""The report: one self-contained HTML page about one scenario, without scripts and external resources, for
light and dark mode."""

from __future__ import annotations

from html import escape
from importlib.resources import files

import numpy as np
from qilu_contract.catalogue.claims import CLAIMS, WHY_CLAIMS_DIFFER
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.catalogue.places import CITIES
from qilu_contract.catalogue.targets import CORE_TARGETS

from qilu_programme.charts import bars, city_map, curve, short, stacks, timeline
from qilu_programme.events import ACTIONS
from qilu_programme.figures import CLASSES, FIGURES, GROUPS, TABLES, read_table
from qilu_programme.months import CHECKPOINT, LABELS, YEARS, year
from qilu_programme.report_checks import depth, other_province
from qilu_programme.rules import Rules
from qilu_programme.runs import BAND, Ensemble
from qilu_programme.scenario import LEVELS, MARKS
from qilu_programme.world import CITY_CODES, make_world

_HEADLINES = ("enterprises_on_cloud", "units_on_cloud", "providers", "centres")
_MARKS = {"S": "sourced", "C": "computed", "N": "standard named, not checked", "A": "assumed"}
_ACTIONS = {
    "infrastructure": "Infrastructure",
    "platform": "Platform systems",
    "business": "Business capabilities",
    "equipment": "Equipment",
}


def page(ensemble: Ensemble) -> str:
    """The whole page."""
    style = files("qilu_programme").joinpath("data", "report.css").read_text(encoding="utf-8")
    name = escape(ensemble.scenario.name)
    sections = (
        _headlines(ensemble),
        _curves(ensemble),
        _targets(ensemble),
        _claims(ensemble),
        _places(ensemble),
        _industries(ensemble),
        _money(ensemble),
        '<div class="row two">'
        + _card("Depth: enterprises by stars", "上云深度(星级)", depth(ensemble))
        + _card("Out of sample: Zhejiang", "样本外检验:浙江", other_province())
        + "</div>",
        _assumptions(ensemble),
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Clouds in Qilu: {name}</title><style>{style}</style></head><body>"
        f"{_header(ensemble)}<main>{''.join(sections)}</main>"
        "<footer>This is a model, not a record. Values between the known points are computed from the "
        "assumptions listed above. City borders: map data of Apache ECharts 4.9.0 (Apache-2.0).</footer>"
        "</body></html>\n"
    )


def _header(ensemble: Ensemble) -> str:
    count = len(ensemble.tables)
    runs = f"{count} runs over {len(set(ensemble.sets))} parameter sets" if count > 1 else "one run"
    scenario = ensemble.scenario
    return (
        '<header><div><h1>Clouds in Qilu <span lang="zh">云行齐鲁</span></h1>'
        "<p>Model of the programme, October 2017 to December 2022</p></div>"
        f'<div class="facts"><span class="chip">Scenario <b>{escape(scenario.name)}</b></span>'
        f'<span class="chip">{runs}</span><span class="chip">seed {scenario.seed}</span></div></header>'
    )


def _card(title: str, title_zh: str, body: str, extra: str = "") -> str:
    heading = f'{escape(title)} <span lang="zh">{title_zh}</span>'
    return f'<section class="card {extra}"><h2>{heading}</h2>{body}</section>'


def _headlines(ensemble: Ensemble) -> str:
    cards = []
    for name in _HEADLINES:
        target = CORE_TARGETS[name]
        value = ensemble.value(name)
        low, high = ensemble.band(name)
        good = target.reached(value)
        when = ensemble.reached_in(name)
        verdict = f"reached in {when}" if when else "not reached by the end of 2022"
        part = min(100.0, 100.0 * value / target.target)
        band = (
            ""
            if len(ensemble.tables) == 1
            else f"<p>{short(low[-1])} – {short(high[-1])} in 80 % of the runs</p>"
        )
        if len(ensemble.tables) > 1:
            band += f"<p>{int(ensemble.series(name)[0, -1]):,} in the first run ({ensemble.sets[0]})</p>"
        cards.append(
            f'<section class="card headline"><h3>{escape(target.title)} <span '
            f'lang="zh">{target.title_zh}</span></h3>'
            f'<p class="number">{value:,}</p><div class="track"><i style="width:{part:.1f}%"></i></div>'
            f"<p><b>{100.0 * value / target.target:.0f} %</b> of {target.target:,}<br>"
            f'<span class="{"good" if good else "bad"}">{verdict}</span></p>{band}</section>'
        )
    return f'<div class="row four">{"".join(cards)}</div>'


def _curves(ensemble: Ensemble) -> str:
    drawn = []
    known = {
        LABELS[0]: FIGURES["adoption.launch"].value,
        LABELS[CHECKPOINT]: FIGURES["adoption.checkpoint"].value,
    }
    for name in ("enterprises_on_cloud", "units_on_cloud"):
        target = CORE_TARGETS[name]
        svg = curve(
            f"{target.title} by month",
            ensemble.median(name),
            ensemble.band(name),
            target.target,
            ensemble.series(name).tolist() if len(ensemble.tables) > 1 else [],
            known if name == "enterprises_on_cloud" else {},
        )
        drawn.append(_card(target.title, target.title_zh, svg))
    many = len(ensemble.tables) > 1
    legend = (
        f"Median (thick), single runs (thin), band from the {BAND[0]:g}th to the {BAND[1]:g}th percentile. "
        "The band covers chance and the parameter sets, which meet both known points equally well. "
        "Two points do not determine three parameters, so the band widens after October 2020."
        if many
        else "One run; <code>--runs N</code> shows the median and a band."
    )
    return f'<div class="row two">{"".join(drawn)}</div><p class="note">{legend}</p>'


def _targets(ensemble: Ensemble) -> str:
    many = len(ensemble.tables) > 1
    rows = []
    for name, target in CORE_TARGETS.items():
        value, when = ensemble.value(name), ensemble.reached_in(name)
        low, high = ensemble.band(name)
        spark = timeline(ensemble.median(name), target.target, LABELS.index(when) if when else None)
        sign = f'<span class="good">✓ {when}</span>' if when else '<span class="bad">✗ not reached</span>'
        extra = (
            f'<td class="n soft">{short(low[-1])} – {short(high[-1])}</td><td '
            f'class="n">{ensemble.chance(name):.0%}</td>'
            if many
            else ""
        )
        rows.append(
            f'<tr><th scope="row">{escape(target.title)} <span lang="zh">{target.title_zh}</span></th>'
            f'<td class="n">{target.wanted}</td><td class="n"><b>{value:,}</b></td>{extra}'
            f'<td>{spark}</td><td class="once">{sign}</td></tr>'
        )
    heads = '<th class="n">10–90 %</th><th class="n">runs that reach the target</th>' if many else ""
    table = (
        '<div class="scroll"><table><thead><tr><th>Target</th><th class="n">goal</th><th class="n">end '
        "of 2022</th>"
        f"{heads}<th>2017 – 2022</th><th>reached in</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
    return _card("Core targets", "主要目标", table)


def _claims(ensemble: Ensemble) -> str:
    """The model's counts beside what was reported for the same month."""
    rows = []
    for claim in CLAIMS:
        target, counted = CORE_TARGETS[claim.name], ensemble.median(claim.name)[LABELS.index(claim.month)]
        ratio = f"{claim.value / counted:,.1f}" if counted else "–"
        rows.append(
            f'<tr><th scope="row">{escape(target.title)} <span lang="zh">{target.title_zh}</span></th>'
            f'<td>{claim.month}</td><td class="n"><b>{counted:,.0f}</b></td>'
            f'<td class="n">{"> " if claim.more else ""}{claim.value:,}</td><td class="n">{ratio}</td>'
            f"<td>{escape(claim.who)}: {escape(claim.source)}</td></tr>"
        )
    table = (
        '<div class="scroll"><table><thead><tr><th>Count</th><th>month</th><th class="n">proven by telemetry '
        '(model)</th><th class="n">reported</th><th class="n">reported ÷ proven</th><th>by whom</th></tr>'
        f"</thead><tbody>{''.join(rows)}</tbody></table></div>"
    )
    return _card("Two counting rules", "两种统计口径", f'{table}<p class="note">{WHY_CLAIMS_DIFFER}</p>')


def _places(ensemble: Ensemble) -> str:
    world = make_world()
    everybody = np.bincount(world.city, weights=world.count, minlength=len(CITY_CODES))
    on_cloud = np.median([table.enterprises_by_city[-1] for table in ensemble.tables], axis=0)
    units = np.median([table.units_by_city[-1] for table in ensemble.tables], axis=0)
    drawn = city_map(
        "Enterprises on cloud by city at the end of 2022",
        dict(zip(CITY_CODES, on_cloud.tolist(), strict=True)),
        {code: short(value) for code, value in zip(CITY_CODES, on_cloud.tolist(), strict=True)},
        float(on_cloud.max()),
    )
    centres = {
        code: sum(centre.county[:4] == code[:4] for centre in ensemble.scenario.centres)
        for code in CITY_CODES
    }
    rows = "".join(
        f'<tr><th scope="row">{escape(CITIES[code].name)} <span lang="zh">{CITIES[code].name_zh}</span></th>'
        f'<td class="n"><b>{on_cloud[index]:,.0f}</b></td>'
        f'<td class="n soft">{100.0 * on_cloud[index] / everybody[index]:.1f} %</td>'
        f'<td class="n">{short(units[index])}</td><td class="n soft">{centres[code]}</td></tr>'
        for index, code in enumerate(CITY_CODES)
    )
    table = (
        '<div class="scroll"><table class="tight"><thead><tr><th>City</th><th class="n">enterprises</th>'
        '<th class="n">share</th><th class="n">units</th><th class="n">centres</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )
    return (
        f'<div class="row wide-left">{_card("Enterprises on cloud by city", "各市上云企业", drawn)}'
        f"{_card('The sixteen cities', '16 市', table)}</div>"
        '<p class="note">The numbers of enterprises by city and county are assumed, because no '
        "source for adoption by city was found. The seed industries of the cities are those of the "
        "programme.</p>"
    )


def _industries(ensemble: Ensemble) -> str:
    on_cloud = np.median([table.enterprises_by_group[-1] for table in ensemble.tables], axis=0)
    units = np.median([table.units_by_group[-1] for table in ensemble.tables], axis=0)
    kinds = np.median([table.contracts_by_kind[-1] for table in ensemble.tables], axis=0)
    by_enterprise = [
        (GROUPS[index].capitalize(), float(on_cloud[index]), f"{short(on_cloud[index])}")
        for index in np.argsort(-on_cloud)
    ]
    by_units = [
        (GROUPS[index].capitalize(), float(units[index]), short(units[index])) for index in np.argsort(-units)
    ]
    classes = ensemble.tables[0].units_by_class
    by_class = [
        (_title(CLASSES[index]), float(classes[index]), f"{classes[index]:,}")
        for index in np.argsort(-classes)
    ]
    by_kind = [
        (_ACTIONS[name], float(kinds[index]), f"{kinds[index]:,.0f} contracts")
        for index, name in enumerate(ACTIONS)
    ]
    return (
        '<div class="row two">'
        + _card(
            "Enterprises on cloud by industry",
            "各行业上云企业",
            bars("Enterprises by industry", by_enterprise),
        )
        + _card("Equipment on cloud by industry", "各行业上云设备", bars("Units by industry", by_units))
        + "</div>"
        + '<div class="row two">'
        + _card("The four kinds of cloud action", "四类上云", bars("Contracts by kind", by_kind))
        + _card("Equipment on cloud by class (first run)", "各类上云设备", bars("Units by class", by_class))
        + "</div>"
    )


def _title(class_name: str) -> str:
    found = CATALOGUE.get(class_name)
    if class_name == "cnc":
        return "CNC machine"
    return found.title if found is not None else class_name.replace("_", " ").capitalize()


def _money(ensemble: Ensemble) -> str:
    first = ensemble.tables[0]
    net = first.redeemed - first.clawed_back
    ends = [max(month for month in range(len(LABELS)) if year(month) == found) for found in YEARS]
    by_year = np.diff(np.vstack((np.zeros((1, 3)), first.redeemed[ends])), axis=0)
    drawn = stacks(
        "Vouchers paid by year and level, CNY",
        LEVELS,
        [(str(found), by_year[index].tolist()) for index, found in enumerate(YEARS)],
    )
    joined = int(first.values["enterprises_on_cloud"][-1] - first.values["enterprises_on_cloud"][0])
    vouchers, awards = int(net[-1].sum()), int(first.awards[-1])
    rows = [
        ("Granted", int(first.granted[-1].sum()), "reserved when an enterprise goes on cloud"),
        ("Redeemed", int(first.redeemed[-1].sum()), "paid after two months on cloud"),
        (
            "Clawed back",
            int(first.clawed_back[-1].sum()),
            "for contracts that failed after the payment",
        ),
        ("Awards", awards, "experience centres, benchmark firms, industry clouds"),
        (
            "Public funds per new enterprise",
            round((vouchers + awards) / max(joined, 1)),
            "redeemed minus clawed back vouchers, plus awards",
        ),
    ]
    body = "".join(
        f'<tr><th scope="row">{name}<br><span class="soft">{why}</span></th><td '
        f'class="n"><b>{value:,}</b></td></tr>'
        for name, value, why in rows
    )
    legend = "".join(
        f'<span><i class="layer{index}"></i>{level}</span>' for index, level in enumerate(LEVELS)
    )
    pools = sum(sum(pool.values()) for pool in ensemble.scenario.pools.values())
    table = (
        f'<table class="tight"><thead><tr><th>CNY, all levels</th><th class="n">to the end of '
        "2022</th></tr></thead>"
        f'<tbody><tr><th scope="row">Pools<br><span class="soft">budgets of the three levels</span></th>'
        f'<td class="n"><b>{pools:,}</b></td></tr>{body}</tbody></table>'
    )
    return (
        '<div class="row two">'
        + _card("Vouchers paid by year", "云服务券兑付", f'{drawn}<p class="legend">{legend}</p>')
        + _card("Public funds", "财政资金", table)
        + '</div><p class="note">First run. Vouchers are capped and granted first come, first served. They '
        "are paid after the enterprise is on cloud, and clawed back when its contract fails.</p>"
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"


def _assumptions(ensemble: Ensemble) -> str:
    def row(name: str, value: str, mark: str, source: str) -> str:
        return (
            f'<tr><td><code>{escape(name)}</code></td><td class="n">{escape(value)}</td>'
            f'<td><span class="mark m{mark}" '
            f'title="{_MARKS[mark]}">{mark}</span></td><td>{escape(source)}</td></tr>'
        )

    scenario = ensemble.scenario
    own = {
        "set": f"{scenario.set.name}: m {scenario.set.market:,}, p {scenario.set.p}, q {scenario.set.q}, "
        f"fit {scenario.set.fit}",
        "shares": ", ".join(f"{level} {value:.0%}" for level, value in scenario.shares.items()),
        "caps": ", ".join(f"{level} {value:,}" for level, value in scenario.caps.items()),
        "pools": ", ".join(f"{level} {short(sum(pool.values()))}" for level, pool in scenario.pools.items()),
        "centres": f"{len(scenario.centres)} centres",
    }
    if scenario.rules != Rules():
        own["rules"] = scenario.rules.described()
    rows = [row(f"scenario.{name}", own[name], *MARKS[name]) for name in own]
    rows += [row(found.name, _number(found.value), found.mark, found.source) for found in FIGURES.values()]
    rows += [
        row(f"table {name}", f"{len(read_table(f'{name}.csv'))} rows", mark, what)
        for name, (mark, what) in TABLES.items()
    ]
    marks = [found.mark for found in FIGURES.values()]
    counts = ", ".join(f"{marks.count(mark)} {meaning}" for mark, meaning in _MARKS.items())
    table = (
        '<div class="scroll"><table class="tight list"><thead><tr><th>Figure</th><th '
        'class="n">value</th><th>mark</th>'
        f"<th>meaning and source</th></tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )
    return _card(
        "Figures of the model and their marks", "模型参数与假设", f'<p class="note in">{counts}.</p>{table}'
    )
