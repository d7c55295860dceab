"""Findings of an audit."""

from __future__ import annotations

from dataclasses import dataclass

Key = tuple[str, str, str]
"""Scope, code and name of a counter."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A count on which ledger, counters and registry do not agree. `registry` is None where the registry was
    not asked."""

    scope: str
    code: str
    name: str
    counter: int
    ledger: int
    registry: int | None

    def __str__(self) -> str:
        registry = "" if self.registry is None else f", the registry holds {self.registry}"
        return (
            f"{self.name} of {self.scope} {self.code}: counter {self.counter}, ledger {self.ledger}{registry}"
        )


@dataclass(frozen=True, slots=True)
class Fault:
    """Rows that contradict each other, or what no version of this software writes."""

    text: str

    def __str__(self) -> str:
        return self.text


Finding = Difference | Fault
