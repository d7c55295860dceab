"""Overview of a place: counts and their history, consumption of its equipment, and activity by place.
Computed from counters and roll-ups, never from the rows of units.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.catalogue.places import CITIES, COUNTIES, PROVINCE
from qilu_contract.readings import MAX_TIME_MS
from qilu_contract.storage import HOURLY, MEASUREMENTS, Point
from qilu_contract.store import MAX_ROWS, PlatformStore, SeriesQuery
from sqlalchemy import Connection, select

from qilu_platform.database.schema import counters

NAMES = {
    "enterprises_registered": "enterprises_registered",
    "enterprises_onboarded": "enterprises_on_cloud",
    "units_registered": "units_registered",
    "units_onboarded": "units_on_cloud",
    "units_current": "units_on_cloud_current",
}
HISTORY = ("units_on_cloud", "units_registered", "enterprises_on_cloud", "enterprises_registered")
_MINUTE_MS, _HOUR_MS = 60_000, 3_600_000
FINE_MS = 12 * _HOUR_MS
"""Longer periods use hourly rows."""


def level_of(code: str) -> str:
    """province, city or county."""
    if code == PROVINCE:
        return "province"
    return "city" if code in CITIES else "county"


def place(connection: Connection, code: str) -> dict[str, Any]:
    """Counts of a province, city or county, and of the places in it, by code."""
    level = level_of(code)
    below = {"province": list(CITIES), "city": [c for c, each in COUNTIES.items() if each.city == code]}
    codes = below.get(level, [])
    scopes = {level, "city" if level == "province" else "county"}
    rows = connection.execute(
        select(counters).where(counters.c.scope.in_(scopes), counters.c.code.in_([code, *codes]))
    )
    found: dict[str, dict[str, int]] = {each: dict.fromkeys(NAMES.values(), 0) for each in (code, *codes)}
    for row in rows:
        if row.name in NAMES:
            found[row.code][NAMES[row.name]] = int(row.value)
    return {"code": code, "level": level, "counts": found.pop(code), "within": found}


async def history(store: PlatformStore, code: str, start_ms: int, end_ms: int, rows: int) -> dict[str, Any]:
    """History of the counts of the province or a city, in about `rows` rows; the last value of each step."""
    hourly = end_ms - start_ms > FINE_MS
    every_ms = max((end_ms - start_ms) // rows, 3_600_000 if hourly else 10_000)
    measurement = "programme" + (HOURLY if hourly else "")
    tags = {"scope": level_of(code), "code": code}
    found = await store.series(SeriesQuery(measurement, tags, HISTORY, start_ms, end_ms, every_ms, "last"))
    table = [[row.ts_ms, *(row.values.get(name) for name in HISTORY)] for row in found]
    return {"code": code, "columns": ["ts_ms", *HISTORY], "rows": table}


async def energy(store: PlatformStore, code: str, start_ms: int, end_ms: int) -> dict[str, Any]:
    """Consumption and emissions of a place's equipment, by hour and class."""
    hours: dict[int, list[float]] = defaultdict(lambda: [0.0, 0.0])
    classes: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    at = MEASUREMENTS["fleet"].tags.index("class")
    for column, signal in enumerate(("energy_kWh", "co2_kg")):
        having: dict[str, str | int] = {"level": level_of(code), "place": code, "signal": signal}
        for point in await store.newest("fleet" + HOURLY, having, start_ms, end_ms, MAX_ROWS):
            added = float(point.fields.get("sum", 0.0))
            hours[point.ts_ms // _HOUR_MS * _HOUR_MS][column] += added
            classes[point.tags[at]][column] += added
    return {
        "code": code,
        "columns": ["ts_ms", "energy_kWh", "co2_kg"],
        "rows": [[ts_ms, *sums] for ts_ms, sums in sorted(hours.items())],
        "by_class": {name: {"energy_kWh": a, "co2_kg": b} for name, (a, b) in sorted(classes.items())},
    }


class Activity:
    """Readings of the last whole minute by city and county, from the roll-ups of gateways."""

    def __init__(self, store: PlatformStore) -> None:
        self._store = store
        self._minute_ms = 0

    async def value(self) -> dict[str, Any] | None:
        """None while there are no roll-ups."""
        if not self._minute_ms:
            last = await self._store.newest("fleet", {"level": "province"}, 0, MAX_TIME_MS, 1)
            if not last:
                return None
            self._minute_ms = last[0].ts_ms
        points: list[Point] = []
        for signal in sorted({each.base_signal.name for each in CATALOGUE.values()}):
            points += await self._store.newest(
                "fleet",
                {"level": "county", "signal": signal},
                self._minute_ms - _MINUTE_MS,
                MAX_TIME_MS,
                MAX_ROWS,
            )
        self._minute_ms = max([self._minute_ms, *(point.ts_ms for point in points)])
        counties = by_county(points, self._minute_ms)
        cities: dict[str, int] = defaultdict(int)
        for code, n in counties.items():
            cities[COUNTIES[code].city] += n
        return {"minute_ms": self._minute_ms, "by_city": cities, "by_county": counties}


def by_county(points: list[Point], minute_ms: int) -> dict[str, int]:
    """Every regular reading holds its class's base signal, whose row counts it."""
    tags = MEASUREMENTS["fleet"].tags
    county, class_, signal = tags.index("place"), tags.index("class"), tags.index("signal")
    found: dict[str, int] = defaultdict(int)
    for point in points:
        known = CATALOGUE.get(point.tags[class_])
        if point.ts_ms == minute_ms and known is not None and point.tags[signal] == known.base_signal.name:
            found[point.tags[county]] += int(point.fields.get("n", 0))
    return {code: n for code, n in found.items() if code in COUNTIES}
