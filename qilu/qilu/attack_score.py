"""Scores the security events of a platform against the attacks of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from qilu_contract.errors import QiluError
from qilu_contract.security import SecurityKind
from qilu_devices.run.manifest import Manifest
from qilu_devices.transport.episodes import Attack, Episode, Kind

DETECTED_BY: Mapping[Attack, SecurityKind] = {
    Attack.SPOOF: "wrong_topic",
    Attack.REPLAY: "sequence",
    Attack.FORGE: "sequence",
    Attack.INJECT: "unusual_value",
    Attack.FLOOD: "dead_letter_burst",
}
"""The kind of security event by which the platform detects an attack."""
MOST = 1_000
"""Enterprises that the platform names for one kind."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Pairs of an enterprise and a kind of event: `attacked` by the ground truth, `detected` by the platform,
    and both."""

    attacked: int
    detected: int
    both: int

    @property
    def precision(self) -> float | None:
        """None if nothing was detected."""
        return self.both / self.detected if self.detected else None

    @property
    def recall(self) -> float | None:
        """None if nothing was attacked."""
        return self.both / self.attacked if self.attacked else None

    def as_dict(self) -> dict[str, float | int | None]:
        names = ("attacked", "detected", "both", "precision", "recall")
        return {name: getattr(self, name) for name in names}


Pair = tuple[str, str]
"""Enterprise and kind of event."""


def score(attacked: set[Pair], detected: set[Pair]) -> dict[str, Counts]:
    """Counts by kind, and of `all`."""
    found = {}
    for kind in ("all", *sorted(set(DETECTED_BY.values()))):
        truth, events = (
            {pair for pair in pairs if kind in ("all", pair[1])} for pairs in (attacked, detected)
        )
        found[kind] = Counts(len(truth), len(events), len(truth & events))
    return found


def attacked_pairs(truth: Iterable[Episode]) -> set[Pair]:
    return {
        (episode.node, DETECTED_BY[episode.method])
        for episode in truth
        if episode.kind is Kind.ATTACK and episode.method is not None
    }


def detected_pairs(manifest: Manifest, enterprises_with: Callable[[str], Iterable[str]]) -> set[Pair]:
    """`enterprises_with` returns the enterprises that have events of a kind; those of other runs do not
    count. Raises QiluError if there are more than the platform names."""
    found: set[Pair] = set()
    for kind in sorted(set(DETECTED_BY.values())):
        named = list(enterprises_with(kind))
        if len(named) >= MOST:
            raise QiluError(
                f"More than {MOST} enterprises have events of the kind {kind}: score a smaller run."
            )
        found |= {(enterprise, kind) for enterprise in named if enterprise in manifest.nodes}
    return found
