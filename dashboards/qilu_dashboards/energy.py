"""The dashboard of energy and emissions: power consumed and generated, meter increases, emissions and their
limits."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard, timeseries
from grafana_foundation_sdk.models.dashboard import Dashboard
from qilu_contract.catalogue.classes import CATALOGUE, EquipmentClass, Signal
from qilu_contract.catalogue.key_signals import CUMULATIVE, KEY_SIGNALS
from qilu_contract.catalogue.limits import LIMITS

from qilu_dashboards.frame import CITY_NAMES, CLASS_NAMES, board, cities, classes, finish
from qilu_dashboards.panels import MANY_LINES, bars, graph, note, steps_of
from qilu_dashboards.queries import (
    EACH_MINUTE,
    OF_CLASS,
    PLACE,
    Source,
    each_interval,
    fleet,
    in_all,
    over_time,
    summed,
)
from qilu_dashboards.units import unit_of

UID = "qilu-energy"

_EMISSIONS = ("PM", "SO2", "NOx")


def _having(*, names: tuple[str, ...] = (), unit: str = "") -> list[tuple[EquipmentClass, Signal]]:
    return [
        (CATALOGUE[name], signal)
        for name, signals in KEY_SIGNALS.items()
        for signal in signals
        if signal.name in names or signal.unit == unit
    ]


def energy() -> Dashboard:
    """The dashboard, with panels for the classes that have such signals."""
    made = board("energy and emissions", UID, "Power, energy and emissions of the fleet. 能耗与排放")
    made.with_variable(cities())
    made.with_variable(classes())
    meters = _having(names=CUMULATIVE)
    made.with_row(dashboard.Row("Energy and CO₂ 能耗与二氧化碳"))
    if not meters:
        made.with_panel(
            note("No class of the catalogue has a meter (energy_kWh, co2_kg). 暂无配备电能计量的设备类型。")
        )
    measured = {signal.name: signal for _, signal in meters}
    for name in CUMULATIVE:
        if name in measured:
            made.with_panel(_added(measured[name]))
    for name in CUMULATIVE:
        if name in measured:
            source = Source("fleet", f"\"signal\" = '{name}' AND \"level\" = 'city' AND {OF_CLASS}")
            query = in_all({f"{name} increase": 'sum("sum")'}, source, "place")
            made.with_panel(bars(f"{name} by city 各市合计", query, "$tag_place", CITY_NAMES, height=14))
    made.with_row(dashboard.Row("Power 功率"))
    made.with_panel(_power())
    made.with_row(dashboard.Row("Emissions and limits 排放与限值"))
    for class_, signal in _having(names=_EMISSIONS):
        columns = {"maximum 最高": 'max("max")', "mean 均值": 'sum("sum") / sum("n")'}
        query = each_interval(columns, fleet(class_.name, signal.name, f"{PLACE} AND {OF_CLASS}"))
        limits = [limit for limit in LIMITS[class_.name] if limit.signal == signal.name]
        title = f"{class_.title} {class_.title_zh}: {signal.name} ({signal.unit})"
        steps = steps_of(limits) if limits else None
        made.with_panel(graph(title, query, unit_of(signal), every=EACH_MINUTE, steps=steps))
    return finish(made)


def _added(signal: Signal) -> timeseries.Panel:
    """Increase of the meters of each class in each interval."""
    source = Source("fleet", f"\"signal\" = '{signal.name}' AND {PLACE} AND {OF_CLASS}")
    return graph(
        f"{signal.name} increase by class 各类设备增量 ({signal.unit})",
        summed("sum", "added", source, "class", fn="sum"),
        unit_of(signal),
        alias="$tag_class",
        names=CLASS_NAMES,
        every=EACH_MINUTE,
    ).max_data_points(MANY_LINES)


def _power() -> timeseries.Panel:
    signals = "|".join(sorted({signal.name for _, signal in _having(unit="kW")}))
    # The mean of a minute times its units: correct if all units report at the same rate.
    source = Source("fleet", f'"signal" =~ /^({signals})$/ AND {PLACE} AND {OF_CLASS}')
    each = source.by_step(
        'SELECT max("units") * sum("sum") / sum("n") AS "each"',
        over_time("class", "signal", "place", "gateway"),
    )
    query = f'SELECT sum("each") AS "total" FROM {each} WHERE $timeFilter{over_time("class", "signal")}'
    title = "Total power by class and signal 各类设备功率合计 (kW)"
    made = graph(title, query, "kwatt", alias="$tag_class $tag_signal", from_zero=False, every=EACH_MINUTE)
    return (
        made.span(24)
        .max_data_points(MANY_LINES)
        .description("Sum over the units that reported within a minute.")
    )
