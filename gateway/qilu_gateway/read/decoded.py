"""What one message says, and how it came."""

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
    """How a message came: see `Decoder.decode`."""

    dup: bool
    retained: bool
    past_ms: int | None
    lane: int
    followed: bool

    @property
    def present(self) -> bool:
        """It changes births, deaths and sequence numbers."""
        return not self.retained and self.past_ms is None


class Decoded(msgspec.Struct):
    """What one message says. Without readings, refusals and birth it is a control message."""

    unit: str | None = None
    county: str = ""
    enterprise: str = ""
    readings: list[Reading] = []
    refused: list[BadReading] = []
    remarks: dict[Remark, tuple[str, int]] = {}
    """What was left out, with the first one's detail and how many there were."""
    birth: BirthTable | None = None
    units: dict[str, str] = {}
    """Units of measurement that a birth gives, by name."""
    clock: clock.RunClock | None = None
    sessions: list[SessionRow] = []
    """What a birth or death changes about the edge node or device."""
    gap: bool = False
    """The edge node's sequence number shows that a message is missing."""
    complete: bool = False
    """It is the last of the messages that were missing."""
    history: bool = False
    """It came on the topics of history, and says nothing about who is there now."""
    host: str = ""
    """Whose STATE it is."""
    death: bool = False
    """The unit is gone, or the edge node with all its units."""
    ignored_death: bool = False
    """The will of an earlier connection of the edge node, or a retained death."""
    mark: Mark | None = None
    """The edge node wants to know that we have come to here."""
    rebirth: bool = False
    """The aliases are not known: the edge node is to say its births again."""

    def remark(self, kind: Remark, detail: str) -> None:
        first, count = self.remarks.get(kind, (detail, 0))
        self.remarks[kind] = first, count + 1
