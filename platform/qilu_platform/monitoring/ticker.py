"""The ticker: events such as units and enterprises on cloud, contracts, targets reached, alarms. It names
places and classes, but no enterprise.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from qilu_contract.catalogue.places import CITIES
from qilu_contract.storage import MEASUREMENTS, Point
from qilu_contract.wire.clock import wall_ms

from qilu_platform.counting.programme import Counts

KEPT = 40
_TOLD = {
    ("city", "units_onboarded"): "units",
    ("city", "enterprises_onboarded"): "enterprises",
    ("kind", "contracts_onboarded"): "contracts",
}
"""Counters whose increase is reported, and the name of an item."""
_TAGS = MEASUREMENTS["alarm"].tags


class Ticker:
    """The last things that happened while this platform ran."""

    def __init__(self) -> None:
        self._items: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._counts: Counts | None = None
        self._open: set[tuple[tuple[str, ...], int]] | None = None

    def value(self) -> dict[str, Any]:
        """The newest first."""
        return {"items": list(reversed(self._items))}

    def hear_counts(self, counts: Counts) -> None:
        before, self._counts = self._counts, dict(counts)
        if before is None:
            return
        for (scope, code, name), value in counts.items():
            what = _TOLD.get((scope, name))
            more = value - before.get((scope, code, name), 0)
            if what is not None and more > 0 and (scope != "city" or code in CITIES):
                self._tell(what, code=code, n=more, total=value)

    def hear_milestones(self, points: Iterable[Point]) -> None:
        for point in points:
            self._tell(
                "milestone", code=point.tags[0], n=point.fields["reached"], total=point.fields["share"]
            )

    def hear_alarms(self, open_alarms: Iterable[Point]) -> None:
        """Take the list of alarms that are open now."""
        found = {(point.tags, point.ts_ms) for point in open_alarms}
        before, self._open = self._open, found
        if before is None:
            return
        for tags, _ in sorted(found - before, key=lambda each: each[1]):
            by_tag: Mapping[str, str] = dict(zip(_TAGS, tags, strict=True))
            self._tell(
                "alarm", code=by_tag["city"], n=1, **{"class": by_tag["class"]}, signal=by_tag["signal"]
            )

    def _tell(self, what: str, **more: Any) -> None:
        self._items.append({"at_ms": wall_ms(), "what": what, **more})
