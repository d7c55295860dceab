"""Report of a run of the embedded stack."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass

from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.store import Store


@dataclass(frozen=True, slots=True)
class Report:
    """Readings and units of one run. `lost`: readings that the broker acknowledged to the equipment (counted
    at the edge) and that are neither in the store nor in the dead letters. `duplicates`: readings stored
    twice, under two tag sets. `refused`: dead letters of the equipment, except those that a transport fault
    made on purpose. `stored`: stored readings of the equipment, up to the end that its record gives:
    equipment that was killed leaves a record that is a second old or more. `taken`: all readings that the
    gateway stored, including those of other devices."""

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
    refused: int
    taken: int
    failure: str | None = None
    """Why the run ended before its time, in a sentence."""

    @property
    def good(self) -> bool:
        return self.lost == 0 and self.duplicates == 0 and self.refused == 0

    def as_dict(self) -> dict[str, int | float | str | None]:
        return asdict(self)


async def count_stored(store: Store, start_ms: int, until_ms: int) -> Counter[str]:
    """Readings of a run that the store holds, by enterprise."""
    stored: Counter[str] = Counter()
    for name in CATALOGUE:
        stored.update(await store.count_by(name, "enterprise", start_ms, until_ms + 1))
    return stored


async def count_duplicates(store: Store) -> int:
    return sum([await store.count_duplicates(name) for name in CATALOGUE])
