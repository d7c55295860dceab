"""Products of equipment classes, with which the energy of a unit is compared."""

from __future__ import annotations

from dataclasses import dataclass

from qilu_contract.catalogue.classes import EquipmentClass


@dataclass(frozen=True, slots=True)
class Product:
    """`amount` is InfluxQL for the amount within an interval, in `unit`."""

    unit: str
    title: str
    title_zh: str
    amount: str


_PRODUCTS = {
    "boiler": Product("t", "steam", "蒸汽", 'integral("steam_flow", 1h)'),
    "compressor": Product("m3", "compressed air", "压缩空气", 'integral("flow", 1m)'),
    "cnc": Product("part", "part", "工件", 'spread("parts")'),
    "pump": Product("m3", "liquid", "液体", 'integral("flow", 1h)'),
    "pasteuriser": Product("m3", "product", "产品", 'integral("product_flow", 1h)'),
}


def product_of(class_: EquipmentClass) -> Product | None:
    """None for a class whose signals do not say how much it makes."""
    return _PRODUCTS.get(class_.name)
