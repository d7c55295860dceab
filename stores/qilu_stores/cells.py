"""The stores of all cells as one store, for readers: a question about one county goes to the stores of that
county, any other one to all stores at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self, TypeVar

from qilu_common.cells import Cells
from qilu_contract.columns import Columns
from qilu_contract.readings import Value
from qilu_contract.storage import Point
from qilu_contract.store import MAX_ROWS, Aggregate, Chunk, PlatformStore, Row, SeriesQuery, Store

from qilu_stores import open_store

_T = TypeVar("_T")


class Several:
    """Implements `PlatformStore` for reading: asks several stores at once and puts the answers together."""

    def __init__(self, stores: Sequence[Store]) -> None:
        self._stores = stores

    async def write(self, points: Sequence[Point]) -> None:
        await self._stores[0].write(points)

    async def _ask(self, ask: Callable[[Store], Awaitable[_T]]) -> list[_T]:
        return list(await asyncio.gather(*map(ask, self._stores)))

    async def latest(self, measurement: str, tags: Mapping[str, str]) -> Row | None:
        found = await self._ask(lambda store: store.latest(measurement, tags))
        rows = sorted((row for row in found if row is not None), key=lambda row: row.ts_ms)
        if not rows:
            return None
        values: dict[str, Value] = {}
        for row in rows:
            values |= row.values
        return Row(rows[-1].ts_ms, values)

    async def series(self, query: SeriesQuery) -> list[Row]:
        found = await self._ask(lambda store: store.series(query))
        return _joined(found, query.aggregate if query.every_ms is not None else "last")

    async def since(self, measurement: str, starts: Mapping[str, int], end_ms: int) -> dict[str, list[Row]]:
        found = await self._ask(lambda store: store.since(measurement, starts, end_ms))
        return {
            unit: _joined([each.get(unit, []) for each in found], "last")
            for unit in starts
            if any(unit in each for each in found)
        }

    async def newest(
        self, measurement: str, having: Mapping[str, str | int], start_ms: int, end_ms: int, limit: int
    ) -> list[Point]:
        found = await self._ask(lambda store: store.newest(measurement, having, start_ms, end_ms, limit))
        points = [point for some in found for point in some]
        return sorted(points, key=lambda point: -point.ts_ms)[:limit]

    async def count_by(self, measurement: str, tag: str, start_ms: int, end_ms: int) -> dict[str, int]:
        total: Counter[str] = Counter()
        for counts in await self._ask(lambda store: store.count_by(measurement, tag, start_ms, end_ms)):
            total.update(counts)
        return dict(total)

    async def scan(self, measurement: str, start_ms: int, end_ms: int) -> AsyncIterator[Chunk]:
        for store in self._stores:
            async for chunk in store.scan(measurement, start_ms, end_ms):
                yield chunk


class CellStores(Several):
    """Implements `Store`. Writes go to the first cell's store: only the platform's own figures."""

    def __init__(self, cells: Cells, token: str | None) -> None:
        """Opens nothing. Raises ConfigError for a URL that names no store."""
        self._cells = cells
        self._by_url = {url: open_store(url, token) for url in cells.stores}
        self._stack = AsyncExitStack()
        super().__init__(list(self._by_url.values()))

    async def __aenter__(self) -> Self:
        for store in self._stores:
            await self._stack.enter_async_context(store)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    def of(self, county: str) -> PlatformStore:
        """The store of a county's readings: a cell that is unavailable does not concern the others."""
        return Several([self._by_url[url] for url in self._cells.stores_of(county)])

    async def write(self, points: Sequence[Point], columns: Sequence[Columns] = ()) -> None:
        await self._stores[0].write(points, columns)

    async def count(self, measurement: str) -> int:
        return sum(await self._ask(lambda store: store.count(measurement)))

    async def count_duplicates(self, measurement: str) -> int:
        """Within each store; `qilu verify` finds those in two stores."""
        return sum(await self._ask(lambda store: store.count_duplicates(measurement)))

    async def ping(self) -> None:
        await self._ask(lambda store: store.ping())


def store_of(store: PlatformStore, county: str) -> PlatformStore:
    """The part of a store that holds the readings of a county."""
    return store.of(county) if isinstance(store, CellStores) else store


def _joined(found: Sequence[Sequence[Row]], aggregate: Aggregate) -> list[Row]:
    """Rows by time. Where two stores have the same bucket, a mean is that of their means. Raises ValueError
    for more than MAX_ROWS."""
    if sum(map(bool, found)) <= 1:
        return [row for rows in found for row in rows]
    by_time: dict[int, dict[str, list[Value]]] = {}
    for row in (row for rows in found for row in rows):
        values = by_time.setdefault(row.ts_ms, {})
        for name, value in row.values.items():
            values.setdefault(name, []).append(value)
    if len(by_time) > MAX_ROWS:
        raise ValueError(f"more than {MAX_ROWS} rows")
    join: dict[Aggregate, Callable[[list[Value]], Value]] = {
        "mean": lambda values: sum(values) / len(values),
        "min": min,
        "max": max,
        "count": sum,
        "last": lambda values: values[-1],
    }
    return [
        Row(ts_ms, {name: join[aggregate](values) for name, values in by_name.items()})
        for ts_ms, by_name in sorted(by_time.items())
    ]
