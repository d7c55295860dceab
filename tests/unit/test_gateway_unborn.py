"""Data that waits for its birth: when it is decoded, when it is given up, and how much of it waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from birth_metrics import T0, bd_seq, named
from qilu_common.mqtt.messages import Messages
from qilu_contract.wire import sparkplug, topics
from qilu_contract.wire.sparkplug import Metric, Payload
from qilu_gateway.connect.session import HISTORY
from qilu_gateway.metrics import Counters
from qilu_gateway.read import births, unborn
from qilu_gateway.read.arrivals import Arrival
from qilu_gateway.read.births import Births
from qilu_gateway.read.decoding import Decoder
from qilu_gateway.read.in_flight import InFlight, InFlightMessage
from qilu_gateway.read.unborn import Freed, Unborn
from qilu_gateway.statefile import StateFile

WINDOWS = {0: 400, HISTORY: 40}


class Gateway:
    """The parts of a gateway that hold data; what is held and freed is named by its unit and value."""

    def __init__(self, state: StateFile) -> None:
        self._births = Births(state)
        self._decoder = Decoder(self._births, 4096)
        self.unborn = Unborn(self._births, WINDOWS)
        self.in_flight = InFlight(Counters())

    def hear(
        self,
        kind: topics.MessageType,
        metrics: list[Metric],
        *,
        unit: str = "m1",
        node: str = "e1",
        history: bool = False,
        lane: int = 0,
    ) -> list[tuple[str, float | str]]:
        """The readings that this message frees, and why others are refused."""
        topic = topics.sparkplug(kind, "370202", node, unit if kind[0] == "D" else None)
        topic = topics.HISTORY + topic if history else topic
        body = sparkplug.encode(Payload(T0, 1, metrics), datatypes="BIRTH" in kind or "DEATH" in kind)
        arrival = Arrival(Messages([topic.encode()], [body], [1], [0]), lane, 1)
        self.in_flight.begin(arrival)
        freed = self.unborn.heard(arrival)
        decoded = self._decoder.decode(topic, body, dup=False, lane=lane, may_wait=True)
        message = InFlightMessage.of(topic, body, False, decoded)
        message.arrival = arrival
        if message.unborn:
            freed += self.unborn.hold(message)
        else:
            freed += self.unborn.after(message)
            self.in_flight.settle(arrival, np.array([0]))
        return self.outcome(freed)

    def outcome(self, freed: list[Freed]) -> list[tuple[str, float | str]]:
        found: list[tuple[str, float | str]] = []
        for arrival, place, refusal in freed:
            topic, body = arrival.messages.topics[place].decode(), arrival.messages.payloads[place]
            decoded = self._decoder.decode(topic, body, dup=False, lane=arrival.lane, refusal=refusal)
            found += [(r.unit, float(next(iter(r.values.values())))) for r in decoded.readings]
            found += [(decoded.unit or "", bad.detail) for bad in decoded.refused]
            self.in_flight.settle(arrival, np.array([place]))
        return found


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with StateFile(tmp_path, [births.SCHEMA]) as state:
        yield Gateway(state)


def none(unit: str) -> bool:
    """Units that wait for the platform's answer."""
    return False


def data(value: float, alias: int = 1) -> list[Metric]:
    return [Metric(alias=alias, value=value)]


@pytest.mark.parametrize(("history", "lane"), [(False, 0), (True, HISTORY)])
async def test_a_birth_frees_the_data_of_its_device_in_order(
    gateway: Gateway, history: bool, lane: int
) -> None:
    for value in (1.0, 2.0):
        for unit in ("m1", "m2"):
            assert gateway.hear("DDATA", data(value), unit=unit, history=history, lane=lane) == []
    assert gateway.hear("NBIRTH", bd_seq(5), history=history, lane=lane) == []
    freed = gateway.hear("DBIRTH", named(speed=1), history=history, lane=lane)
    assert freed == [("m1", 1.0), ("m1", 2.0)]
    assert gateway.unborn.messages == 2
    freed = gateway.hear("DBIRTH", named(speed=1), unit="m2", history=history, lane=lane)
    assert freed == [("m2", 1.0), ("m2", 2.0)]
    assert gateway.unborn.messages == 0
    assert gateway.in_flight.messages == 0


@pytest.mark.parametrize("death", ["NDEATH", "DDEATH", "NBIRTH"])
async def test_data_of_a_connection_that_has_ended_is_not_decoded_by_a_later_birth(
    gateway: Gateway, death: topics.MessageType
) -> None:
    gateway.hear("NBIRTH", bd_seq(5))
    gateway.hear("DDATA", data(1.0))
    gateway.hear("DDATA", data(1.0), node="e2", unit="m3")
    assert gateway.hear(death, bd_seq(6 if death == "NBIRTH" else 5)) == [("m1", unborn.ENDED)]
    assert gateway.hear("DBIRTH", named(speed=1)) == []
    assert gateway.unborn.messages == 1  # of another node


async def test_a_birth_on_the_same_connection_frees_and_an_older_will_does_not_refuse(
    gateway: Gateway,
) -> None:
    gateway.hear("NBIRTH", bd_seq(5))
    gateway.hear("DDATA", data(1.0))
    assert gateway.hear("NDEATH", bd_seq(4)) == []
    assert gateway.hear("NBIRTH", bd_seq(5)) == []
    assert gateway.hear("DBIRTH", named(speed=1)) == [("m1", 1.0)]


async def test_an_alias_that_the_birth_does_not_have_is_refused(gateway: Gateway) -> None:
    gateway.hear("DDATA", data(1.0, alias=7))
    [(unit, detail)] = gateway.hear("DBIRTH", named(speed=1))
    assert (unit, "alias 7 is not in its birth" in str(detail)) == ("m1", True)


async def test_a_birth_on_another_lane_frees_nothing(gateway: Gateway) -> None:
    gateway.hear("DDATA", data(1.0), lane=0)
    assert gateway.hear("DBIRTH", named(speed=1), lane=HISTORY) == []
    assert gateway.outcome(gateway.unborn.overdue(time.monotonic() + unborn.WAIT_S + 1, none)) == [
        ("m1", unborn.LATE)
    ]


async def test_data_waits_as_long_as_its_birth_waits_for_the_platform(gateway: Gateway) -> None:
    for unit in ("m1", "m2"):
        gateway.hear("DDATA", data(1.0), unit=unit)
    much_later_s = time.monotonic() + unborn.WAIT_S + 1
    freed = gateway.unborn.overdue(much_later_s, lambda unit: unit == "m1")
    assert gateway.outcome(freed) == [("m2", unborn.LATE)]
    assert gateway.hear("DBIRTH", named(speed=1)) == [("m1", 1.0)]
    assert gateway.in_flight.messages == 0


async def test_at_most_a_quarter_of_the_window_waits_and_the_oldest_is_given_up(gateway: Gateway) -> None:
    gateway.hear("DDATA", data(0.0))
    for _ in range(99):
        assert gateway.hear("DDATA", data(1.0), unit="m2") == []
    assert gateway.hear("DDATA", data(2.0), unit="m3") == [("m1", unborn.TOO_MANY)]
    assert gateway.unborn.messages == 100


async def test_the_bytes_that_wait_are_bounded(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unborn, "MOST_BYTES", 60)
    freed = [gateway.hear("DDATA", data(1.0), unit=f"m{n}") for n in range(10)]
    assert freed[0] == []
    assert freed[-1] == [(f"m{9 - gateway.unborn.messages}", unborn.TOO_MANY)]


async def test_a_broker_with_a_small_window_is_not_blocked(gateway: Gateway) -> None:
    """It delivers nothing more while so many messages are unacknowledged."""
    gateway.hear("DDATA", data(0.0))
    assert (
        gateway.outcome(gateway.unborn.overdue(time.monotonic() + unborn.SILENT_S + 1, none)) == []
    )  # just quiet
    for second in range(19):
        gateway.hear("DDATA", named(speed=second), unit="m2")
    assert gateway.outcome(gateway.unborn.overdue(time.monotonic() + 1, none)) == []
    freed = gateway.outcome(gateway.unborn.overdue(time.monotonic() + unborn.SILENT_S + 1, none))
    assert freed == [("m1", unborn.TOO_MANY)]
    gateway.hear("DDATA", data(0.0))  # from now on after half of that window
    found = [gateway.hear("DDATA", named(speed=second), unit="m2") for second in range(11)]
    assert [len(each) for each in found] == [0] * 9 + [1, 0]


async def test_what_waits_for_a_birth_does_not_count_as_stalled(gateway: Gateway) -> None:
    gateway.hear("DDATA", data(0.0))
    await asyncio.sleep(0.01)
    assert gateway.in_flight.oldest_s() == 0.0
    gateway.unborn.overdue(time.monotonic() + unborn.WAIT_S + 1, none)
    assert 0.0 < gateway.in_flight.oldest_s() < 0.01  # since it can be worked on
