"""The gate finds the points that a store refuses, among points and in columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qilu_contract.columns import Columns, Series, of_points
from qilu_contract.errors import Rejected, Retryable
from qilu_contract.storage import Point
from qilu_gateway.metrics import Counters
from qilu_gateway.write.store_gate import StoreGate

TAGS = ("370200", "370202", "C34", "370202-e00001", "m1")
FIGURE = Point("pipeline", ("qilu", "1m"), 0, {"accepted": 1})


class PickyStore:
    """Takes a batch as a whole, or refuses or fails with it for one of its points; keeps what it took."""

    def __init__(self, bad: set[int], error: Rejected | Retryable) -> None:
        self._bad, self._error = bad, error
        self.taken: list[int] = []

    async def write(self, points: Sequence[Point], columns: Sequence[Columns] = ()) -> None:
        times = [point.ts_ms for point in points if point.measurement == "motor"]
        times += [ts_ms for each in columns for ts_ms in each.ts_ms.tolist()]
        if not self._bad.isdisjoint(times):
            raise self._error
        self.taken += times


def batch(sizes: list[int]) -> tuple[list[Point], list[Columns]]:
    """Points and columns of these sizes; no two points have the same time."""
    points = [Point("motor", TAGS, ts_ms, {"power_in": 1.0 + ts_ms}) for ts_ms in range(sum(sizes))]
    groups = [points[sum(sizes[:at]) : sum(sizes[: at + 1])] for at in range(len(sizes))]
    return groups[0], [each for some in groups[1:] for each in of_points(some, Series(), {})]


@pytest.mark.parametrize("error", [Rejected("refused"), Retryable("fails")], ids=["refused", "fails"])
@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=4), data=st.data())
async def test_what_a_store_does_not_take_is_found_and_the_rest_is_written_once(
    error: Rejected | Retryable, sizes: list[int], data: st.DataObject
) -> None:
    points, columns = batch(sizes)
    total = sum(sizes)
    bad = data.draw(st.sets(st.integers(0, total - 1))) if total else set()
    store = PickyStore(bad, error)
    opened: Any = store
    gate = StoreGate(opened, Counters(), lambda: [FIGURE], batch_size=5000, spooling=True)
    find = gate.write_good if isinstance(error, Rejected) else gate.sift
    refused = await find(points, columns)
    assert [each.point.ts_ms for each in refused] == sorted(bad)
    assert sorted(store.taken) == [ts_ms for ts_ms in range(total) if ts_ms not in bad]
    for each in refused:
        group = points if each.group is None else columns[each.group].points()
        assert group[each.place] == each.point
        assert str(error) in each.detail


async def test_a_batch_that_is_refused_as_a_whole_is_not_searched() -> None:
    points, columns = batch([3, 4])
    counters = Counters()
    store: Any = PickyStore({0}, Rejected("beyond the retention", 7))
    gate = StoreGate(store, counters, lambda: [FIGURE], batch_size=5000, spooling=True)
    refused = await gate.write_good(points, columns)
    assert [(each.group, each.place) for each in refused] == [
        *((None, place) for place in range(3)),
        *((0, place) for place in range(4)),
    ]
    assert counters.store_refused == 1
