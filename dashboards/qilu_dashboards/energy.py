"""The dashboard of energy and emissions: power drawn and made, what meters added, emissions against
limits."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard, timeseries
from grafana_foundation_sdk.models.dashboard import Dashboard
from qilu_contract.catalogue import CATALOGUE, EquipmentClass, Signal
from qilu_contract.limits import LIMITS
from qilu_contract.rollups import CUMULATIVE, KEY_SIGNALS

from qilu_dashboards.equipment_class import added
from qilu_dashboards.frame import CITY_NAMES, board, cities, finish
from qilu_dashboards.panels import bars, course, said, steps_of
from qilu_dashboards.queries import EACH_MINUTE, fleet, over_time
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
    """Made of the classes that have such signals; it grows with the catalogue."""
    made = board("energy and emissions", UID, "Power, energy and emissions of the fleet. 能耗与排放")
    made.with_variable(cities())
    meters = _having(names=CUMULATIVE)
    made.with_row(dashboard.Row("Energy and CO₂ 能耗与二氧化碳"))
    if not meters:
        made.with_panel(
            said("No class of the catalogue has a meter yet (energy_kWh, co2_kg). 尚无带电能表的设备类别。")
        )
    for class_, signal in meters:
        made.with_panel(added(class_, signal))
    for name in CUMULATIVE:
        if any(signal.name == name for _, signal in meters):
            query = (
                f'SELECT sum("sum") AS "{name} added" FROM "fleet" WHERE "signal" = \'{name}\' AND '
                '"level" = \'city\' AND $timeFilter GROUP BY "place"'
            )
            made.with_panel(bars(f"{name} by city 各市", query, "$tag_place", CITY_NAMES, height=14))
    made.with_row(dashboard.Row("Power 功率"))
    for class_, signal in _having(unit="kW"):
        made.with_panel(_power(class_, signal))
    made.with_row(dashboard.Row("Emissions against their limits 排放与限值"))
    for class_, signal in _having(names=_EMISSIONS):
        query = (
            'SELECT max("max") AS "highest 最高", sum("sum") / sum("n") AS "mean 均值" '
            f"{fleet(class_.name, signal.name)} {over_time()}"
        )
        limits = [limit for limit in LIMITS[class_.name] if limit.signal == signal.name]
        title = f"{class_.title} {class_.title_zh}: {signal.name} ({signal.unit})"
        steps = steps_of(limits) if limits else None
        made.with_panel(course(title, query, unit_of(signal), every=EACH_MINUTE, steps=steps))
    return finish(made)


def _power(class_: EquipmentClass, signal: Signal) -> timeseries.Panel:
    # A minute's mean over units, times the units: right when all units report equally often.
    each = (
        f'SELECT max("units") * sum("sum") / sum("n") AS "each" {fleet(class_.name, signal.name)} '
        f"{over_time('place', 'gateway')}"
    )
    query = f'SELECT sum("each") AS "total 合计" FROM ({each}) WHERE $timeFilter {over_time()}'
    title = f"{class_.title} {class_.title_zh}: {signal.name}, all units together ({signal.unit})"
    return course(title, query, unit_of(signal), from_zero=False, every=EACH_MINUTE).description(
        "Of the units that reported within a minute."
    )
