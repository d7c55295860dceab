"""Data sets of the catalogue: the readings of one class in one place.

Nothing stores a data set: it follows from the equipment catalogue and the registry. Its id is
`<class>.<place>`, such as `motor.370200`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qilu_contract.catalogue.classes import CATALOGUE, EquipmentClass
from qilu_contract.catalogue.places import CITIES, COUNTIES, PROVINCE, SHANDONG
from qilu_contract.catalogue.titles import titles
from qilu_contract.wire.ids import id_prefix
from sqlalchemy import Connection, Subquery, case, func, null, select, union_all

from qilu_platform.database.schema import counters, units
from qilu_platform.errors import NotFound
from qilu_platform.registry.listing import Filters, rows_after
from qilu_platform.registry.registration import FIRST_UNIT_NUMBER


@dataclass(frozen=True, slots=True)
class DataSet:
    equipment: EquipmentClass
    place: str
    """Code of the province, a city or a county."""

    @property
    def id(self) -> str:
        return f"{self.equipment.name}.{self.place}"

    @property
    def level(self) -> str:
        if self.place == PROVINCE:
            return "province"
        return "city" if self.place in CITIES else "county"

    @property
    def counties(self) -> list[str]:
        if self.place == PROVINCE:
            return list(COUNTIES)
        return [code for code, each in COUNTIES.items() if self.place in (code, each.city)]

    @property
    def export_filter(self) -> str:
        """Query parameters of `GET /v1/export/readings`, without times."""
        where = "" if self.level == "province" else f"&{self.level}={self.place}"
        return f"class={self.equipment.name}{where}"


def data_set(id_: str) -> DataSet:
    """Raises NotFound for an id that names no class and place."""
    class_name, _, place = id_.rpartition(".")
    if class_name not in CATALOGUE or not is_place(place):
        raise NotFound(
            f"data set {id_[:80]} does not exist: an id is <class>.<place>, such as motor.370200 "
            "(GET /v1/classes, GET /v1/counties)."
        )
    return DataSet(CATALOGUE[class_name], place)


def is_place(code: str) -> bool:
    return code == PROVINCE or code in CITIES or code in COUNTIES


def place_names(code: str) -> tuple[str, str]:
    """English and Chinese name of a place."""
    place = SHANDONG if code == PROVINCE else CITIES.get(code) or COUNTIES[code]
    return place.name, place.name_zh


def present(connection: Connection, place: str, class_name: str | None) -> list[DataSet]:
    """The data sets of a place that have a unit on cloud, in the order of the equipment catalogue."""
    candidates = [DataSet(each, place) for each in CATALOGUE.values() if class_name in (None, each.name)]
    if place == PROVINCE:
        query = select(counters.c.code).where(
            counters.c.scope == "class", counters.c.name == "units_onboarded", counters.c.value > 0
        )
        there = set(connection.scalars(query))
        return [each for each in candidates if each.equipment.name in there]
    return [each for each in candidates if _has_unit(connection, each)]


def _has_unit(connection: Connection, data: DataSet) -> bool:
    place = {data.level: data.place}
    filters = Filters(class_=data.equipment.name, state="on_cloud", **place)
    rows, after = rows_after(connection, units, filters, "", 1)
    return bool(rows) or after is not None


def units_of(data: DataSet) -> Subquery:
    """Rows of the units on cloud: their times, and the `number` that ends a regular id. Reads key ranges of
    this class alone."""
    columns = [units.c.on_cloud_ms, units.c.suspended_ms, units.c.retired_ms]
    on_cloud = units.c.on_cloud_ms.is_not(None)
    prefixes = [id_prefix(county, data.equipment.name) for county in data.counties]
    regular = [
        select(*columns, func.substr(units.c.id, len(prefix) + 1).label("number")).where(
            units.c.id >= prefix, units.c.id < prefix + "~", units.c.irregular.is_(None), on_cloud
        )
        for prefix in prefixes
    ]
    others = select(*columns, null().label("number")).where(
        units.c.irregular.is_not(None),
        units.c["class"] == data.equipment.name,
        units.c.county.in_(data.counties),
        on_cloud,
    )
    return union_all(*regular, others).subquery()


def lineage(connection: Connection, data: DataSet) -> dict[str, Any]:
    """Units on cloud by the origin of their readings, and the time of the first reading.

    Simulated fleets number their units below FIRST_UNIT_NUMBER; what people register has other ids.
    """
    rows = units_of(data)
    simulated = func.sum(case((rows.c.number < f"{FIRST_UNIT_NUMBER:07d}", 1), else_=0))
    total, made, first_ms = connection.execute(
        select(func.count(), simulated, func.min(rows.c.on_cloud_ms))
    ).one()
    made = int(made or 0)
    return {
        "units": total,
        "lineage": {"simulated": made, "measured": total - made},
        "first_ms": first_ms,
    }


def described(data: DataSet) -> dict[str, Any]:
    """Description of a data set, the same for every installation: title, class, place."""
    equipment = data.equipment
    name, name_zh = place_names(data.place)
    return {
        "id": data.id,
        "title": f"{equipment.title}, {name}: readings",
        "title_zh": f"{name_zh}{equipment.title_zh}运行数据",
        "class": equipment.name,
        "place": data.place,
        "place_name": name,
        "place_name_zh": name_zh,
        "interval_s": equipment.base_interval_s,
    }


def columns(data: DataSet) -> list[dict[str, Any]]:
    """The columns of the data set as `GET /v1/export/readings` gives them."""
    keys = [
        {"name": "unit", "type": "text", "title": "Id of the unit", "title_zh": "设备编号"},
        {"name": "ts", "type": "time", "title": "Sample time, UTC", "title_zh": "采样时间"},
    ]
    empty = {"unit": None, "resolution": None, "low": None, "high": None, "interval_s": None, "mark": None}
    signals = [
        {
            "name": each.name,
            "type": each.type,
            **titles("signal", data.equipment.name, each.name)._asdict(),
            **{name: getattr(each, name) for name in empty},
        }
        for each in data.equipment.signals
    ]
    return [*(empty | key for key in keys), *signals]
