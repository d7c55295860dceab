"""What a run of the embedded stack reports at its end."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from qilu_contract.catalogue import CATALOGUE
from qilu_contract.stores import Store


@dataclass(frozen=True, slots=True)
class Report:
    """Readings and units of one run. `lost` is what the broker took over from the equipment (its
    acknowledgements, counted at the edge) and neither the store nor the dead letters hold; `duplicates` stand
    twice, under two tag sets."""

    accepted: int
    stored: int
    spooled: int
    dead_lettered: int
    duplicates: int
    lost: int
    units_registered: int
    units_on_cloud: int
    enterprises_on_cloud: int
    seconds: float
    redelivered: int
    acknowledged: int
    dropped_at_the_edge: int

    @property
    def good(self) -> bool:
        return self.lost == 0 and self.duplicates == 0

    def as_dict(self) -> dict[str, int | float]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Stock:
    """Points of equipment in the store, as counted there."""

    points: int
    duplicates: int


async def count_stock(store: Store) -> Stock:
    points = [await store.count(name) for name in CATALOGUE]
    duplicates = [await store.count_duplicates(name) for name in CATALOGUE]
    return Stock(sum(points), sum(duplicates))
