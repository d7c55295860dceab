"""A run of the programme's model that is played into this platform: how far it is, and what its viewers want.

The player reports its progress and asks for the wishes; the stack around it starts again when that is wished.
Kept in memory: with several replicas, player and viewers must use the same one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qilu_platform.errors import Conflict

_RUNS = ("playing", "paused")


class Show:
    """`scenarios`: those that the stack around this platform can start."""

    def __init__(self, scenarios: tuple[str, ...]) -> None:
        self._scenarios = scenarios
        self._standing: Mapping[str, Any] | None = None
        self._paused = False
        self._speed: float | None = None
        self._again: str | None = None

    def hear(self, standing: Mapping[str, Any]) -> None:
        """The player's progress. A run that begins is not paused and has the speed of its options, whatever
        was wished of the run before."""
        if not self._plays():
            self._paused, self._speed = False, None
        self._standing = standing

    def value(self) -> dict[str, Any]:
        """As GET /v1/programme/replay answers."""
        wanted = {"paused": self._paused, "speed": self._speed, "again": self._again}
        return {"standing": self._standing, "wanted": wanted, "scenarios": self._scenarios}

    def pause(self, paused: bool) -> None:
        """Raises Conflict when nothing is played."""
        self._check_plays()
        self._paused = paused

    def set_speed(self, speed: float) -> None:
        """Simulated seconds per second, 0 for as fast as possible. Raises Conflict when nothing is played."""
        self._check_plays()
        self._speed = speed

    def _plays(self) -> bool:
        return self._standing is not None and self._standing["state"] in _RUNS

    def _check_plays(self) -> None:
        if not self._plays():
            raise Conflict("No run of the programme is being played into this platform.")

    def again(self, scenario: str | None) -> str:
        """Start again, with another scenario if one is given; returns the scenario. Raises Conflict."""
        if not self._scenarios:
            raise Conflict(
                "This platform's data cannot begin again: `qilu programme run --live` starts a stack whose "
                "data can."
            )
        if scenario is not None and scenario not in self._scenarios:
            raise Conflict(f"There is no scenario {scenario}; there are {', '.join(self._scenarios)}.")
        self._again = scenario or self._scenarios[0]
        return self._again
