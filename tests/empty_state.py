"""A state file in which nothing is found."""

from __future__ import annotations


class EmptyState:
    def read(self, _query: str, _values: tuple[object, ...]) -> None:
        return None

    def read_all(self, _query: str, _values: tuple[object, ...]) -> list[tuple[object, ...]]:
        return []
