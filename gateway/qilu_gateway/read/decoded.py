"""Result of decoding one message, and how the message was delivered."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
from qilu_contract.errors import BadReading, Remark
from qilu_contract.readings import Reading
from qilu_contract.wire import clock
from qilu_contract.wire.marks import Mark

from qilu_gateway.read.births import BirthTable
from qilu_gateway.read.edge_nodes import SessionRow


class Delivery(NamedTuple):
    """How a message was delivered; see `Decoder.decode`."""

    dup: bool
    retained: bool
    past_ms: int | None
    lane: int
    followed: bool
    may_wait: bool = False
    """Whether data whose birth is unknown may wait for it, instead of being refused."""
    refusal: str = ""
    """Why data that has waited for its birth is refused now; empty: decode it."""

    @property
    def present(self) -> bool:
        """Whether it changes births, deaths and sequence numbers."""
        return not self.retained and self.past_ms is None


class Decoded(msgspec.Struct):
    """Content of one message. Without readings, refusals and birth it is a control message."""

    unit: str | None = None
    county: str = ""
    enterprise: str = ""
    readings: list[Reading] = []
    refused: list[BadReading] = []
    remarks: dict[Remark, tuple[str, int]] = {}
    """Values left out, by kind, with the detail of the first and their count."""
    birth: BirthTable | None = None
    units: dict[str, str] = {}
    """Units of measurement that a birth gives, by name."""
    clock: clock.RunClock | None = None
    sessions: list[SessionRow] = []
    """Change that a birth or death makes to the edge node or device."""
    gap: bool = False
    """The edge node's sequence number shows that a message is missing."""
    complete: bool = False
    """It closes the gap: no message is missing any more."""
    history: bool = False
    """It came on the history topics and does not affect the present state of nodes and units."""
    host: str = ""
    """The host whose STATE it is."""
    death: bool = False
    """Death of the unit, or of the edge node with all its units."""
    ignored_death: bool = False
    """The will of an earlier connection of the edge node, or a retained death."""
    mark: Mark | None = None
    """Mark: the edge node requests an answer when the gateway reaches this message."""
    rebirth: bool = False
    """The aliases are unknown: a rebirth must be requested."""
    unborn: bool = False
    """It cannot be decoded before the birth that is requested, and has to wait for it."""

    def remark(self, kind: Remark, detail: str) -> None:
        first, count = self.remarks.get(kind, (detail, 0))
        self.remarks[kind] = first, count + 1
