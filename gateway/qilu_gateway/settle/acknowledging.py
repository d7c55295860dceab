"""Last step: acknowledges durable messages to the broker."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from qilu_gateway.connect.session import Session
from qilu_gateway.read.arrivals import Settling
from qilu_gateway.read.in_flight import InFlight
from qilu_gateway.write.batches import Batch


class Acknowledging:
    def __init__(self, sessions: Mapping[int, Session], in_flight: InFlight) -> None:
        """`sessions` by lane."""
        self._sessions, self._in_flight = sessions, in_flight

    def acknowledge(self, batch: Batch) -> None:
        """Acknowledge all messages of the batch, in the order of arrival. Messages of a closed connection are
        redelivered, and acknowledged then."""
        settling = Settling()
        for message in batch.plain:
            if message.arrival is not None:
                settling.add(message.arrival, np.array([message.place]))
        for read in batch.reads:
            settling.add(read.arrival, read.places)
        due: dict[int, list[int]] = {}
        arrivals = settling.all()
        for arrival, places in arrivals:
            self._in_flight.settle(arrival, places)
            session = self._sessions.get(arrival.lane)
            if session is not None:
                due.setdefault(arrival.lane, []).extend(arrival.due(session.epoch, places))
        for lane, mids in due.items():
            session = self._sessions[lane]
            if mids and session.acknowledge(session.epoch, mids):
                for arrival, places in arrivals:
                    if arrival.lane == lane:
                        arrival.was_acknowledged(session.epoch, places)
