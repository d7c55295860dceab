"""The gateway's state of edge nodes: which births and deaths count, and how long an alias is valid."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from birth_metrics import T0, bd_seq, named
from qilu_contract.errors import Reason
from qilu_contract.readings import Reading
from qilu_contract.wire import sparkplug, topics
from qilu_contract.wire.sparkplug import DataType, Metric, Payload
from qilu_gateway.read import births
from qilu_gateway.read.births import Births
from qilu_gateway.read.decoded import Decoded
from qilu_gateway.read.decoding import Decoder
from qilu_gateway.statefile import StateFile

NODE = ("370202", "370202-e00001")
UNIT = "m1"


class Gateway:
    """A decoder and its state file, as the pipeline uses them: everything is durable at once."""

    def __init__(self, state: StateFile) -> None:
        self._state = state
        self.restart()

    def restart(self) -> None:
        self._births = Births(self._state)
        self._decoder = Decoder(self._births, 4096)

    async def hear(
        self,
        kind: topics.MessageType,
        metrics: list[Metric],
        *,
        seq: int | None = None,
        unit: str = UNIT,
        dup: bool = False,
        retained: bool = False,
        past_ms: int | None = None,
        lane: int = 0,
    ) -> Decoded:
        topic = topics.sparkplug(kind, *NODE, unit if kind[0] == "D" else None)
        body = sparkplug.encode(Payload(T0, seq, metrics))
        how: dict[str, Any] = {"dup": dup, "retained": retained, "past_ms": past_ms, "lane": lane}
        decoded = self._decoder.decode(topic, body, **how)
        tables = [decoded.birth] if decoded.birth is not None else []
        await self._state.write(
            lambda connection: self._births.save(connection, [*tables, *decoded.sessions])
        )
        for table in tables:
            self._births.saved(table)
        return decoded


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with StateFile(tmp_path, [births.SCHEMA]) as state:
        yield Gateway(state)


def data(**values: float) -> list[Metric]:
    """`a1=2.0`: alias 1 is 2.0."""
    return [Metric(alias=int(alias[1:]), value=value) for alias, value in values.items()]


def refused(decoded: Decoded) -> list[Reason]:
    assert not decoded.readings
    return [bad.reason for bad in decoded.refused]


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_retained_message_replaces_nothing_and_asks_when_nothing_is_known(
    gateway: Gateway, restarted: bool
) -> None:
    await gateway.hear("NBIRTH", bd_seq(5))
    await gateway.hear("DBIRTH", named(speed=1, power_in=2))
    if restarted:
        gateway.restart()
    old = await gateway.hear("DBIRTH", named(power_in=1, speed=2), retained=True)
    assert old.readings == [Reading(UNIT, T0, {"power_in": 1.0, "speed": 1.0})]
    assert (old.birth, old.rebirth, old.sessions) == (None, False, [])
    assert (await gateway.hear("NBIRTH", bd_seq(4), retained=True)).birth is None
    for kind in ("DDEATH", "NDEATH"):
        gone = await gateway.hear(kind, bd_seq(5), retained=True)
        assert (gone.death, gone.ignored_death, gone.sessions) == (False, True, [])
    found = await gateway.hear("DDATA", data(a1=2.0))
    assert found.readings == [Reading(UNIT, T0, {"speed": 2.0})]
    assert not (await gateway.hear("NDEATH", bd_seq(4))).death
    # The owner of the aliases is unknown; names are unambiguous.
    assert refused(await gateway.hear("DDATA", data(a1=2.0), retained=True)) == [Reason.NO_BIRTH]
    kept = await gateway.hear("DDATA", [Metric("speed", None, T0, DataType.FLOAT, 3.0)], retained=True)
    assert (kept.readings, kept.rebirth) == ([Reading(UNIT, T0, {"speed": 3.0})], False)

    stranger = await gateway.hear("DBIRTH", named(speed=7), unit="m2", retained=True)
    assert (len(stranger.readings), stranger.birth, stranger.rebirth) == (1, None, True)
    assert (await gateway.hear("DDATA", data(a7=1.0), unit="m2")).rebirth


async def test_a_birth_that_declares_nothing_changes_nothing(gateway: Gateway) -> None:
    await gateway.hear("NBIRTH", bd_seq(5))
    await gateway.hear("DBIRTH", named(speed=1))
    assert refused(await gateway.hear("DBIRTH", [])) == [Reason.BAD_PAYLOAD]
    assert refused(await gateway.hear("DBIRTH", data(a1=9.0))) == [Reason.BAD_PAYLOAD]
    assert refused(await gateway.hear("NBIRTH", [])) == [Reason.BAD_PAYLOAD]
    assert (await gateway.hear("DDATA", data(a1=2.0))).readings == [Reading(UNIT, T0, {"speed": 2.0})]


async def test_an_alias_of_two_metrics_means_neither(gateway: Gateway) -> None:
    twice = [*named(speed=1, vibration=2), *named(power_in=1)]
    assert len((await gateway.hear("DBIRTH", twice)).readings) == 1
    for _ in range(2):
        doubtful = await gateway.hear("DDATA", data(a1=2.0, a2=3.0))
        assert (refused(doubtful), doubtful.rebirth) == ([Reason.NO_BIRTH], False)
        assert "several metrics" in doubtful.refused[0].detail
        found = await gateway.hear("DDATA", data(a2=3.0))
        assert found.readings == [Reading(UNIT, T0, {"vibration": 3.0})]
        gateway.restart()


@pytest.mark.parametrize("restarted", [False, True])
async def test_the_will_of_an_older_connection_takes_nobody_off(gateway: Gateway, restarted: bool) -> None:
    await gateway.hear("NBIRTH", bd_seq(9))
    await gateway.hear("DBIRTH", named(speed=1))
    if restarted:
        gateway.restart()
    old = await gateway.hear("NDEATH", bd_seq(8))
    assert (old.death, old.ignored_death) == (False, True)
    assert (await gateway.hear("DDATA", data(a1=2.0))).readings
    assert (await gateway.hear("NDEATH", bd_seq(9))).death


async def test_a_death_may_name_its_bdseq_by_alias_and_is_refused_without_one(gateway: Gateway) -> None:
    await gateway.hear("NBIRTH", bd_seq(9))
    assert refused(await gateway.hear("NDEATH", [])) == [Reason.BAD_PAYLOAD]
    assert (await gateway.hear("NDEATH", [Metric(alias=0, datatype=DataType.INT64, value=8)])).ignored_death
    assert (await gateway.hear("NDEATH", [Metric(alias=0, datatype=DataType.INT64, value=9)])).death


async def test_the_death_of_a_node_whose_births_give_no_bdseq_counts(gateway: Gateway) -> None:
    await gateway.hear("NBIRTH", [Metric("Node Control/Rebirth", None, T0, DataType.BOOLEAN, False)])
    assert (await gateway.hear("NDEATH", [])).death


@pytest.mark.parametrize("death", ["DDEATH", "NDEATH"])
@pytest.mark.parametrize("restarted", [False, True])
async def test_after_a_death_aliases_mean_nothing_until_the_next_birth(
    gateway: Gateway, death: topics.MessageType, restarted: bool
) -> None:
    await gateway.hear("NBIRTH", bd_seq(9))
    await gateway.hear("DBIRTH", named(speed=1))
    await gateway.hear("DBIRTH", named(speed=1), unit="m2")
    assert (await gateway.hear(death, bd_seq(9))).death
    if restarted:
        gateway.restart()
    late = await gateway.hear("DDATA", data(a1=2.0))
    assert (refused(late), late.rebirth) == ([Reason.NO_BIRTH], True)
    # Its death only, or the whole node's.
    assert bool((await gateway.hear("DDATA", data(a1=2.0), unit="m2")).readings) == (death == "DDEATH")
    # Names mean what they say, but somebody who sends data ought to be born.
    by_name = await gateway.hear("DDATA", [Metric("speed", None, T0, DataType.FLOAT, 3.0)])
    assert (len(by_name.readings), by_name.rebirth) == (1, True)
    # A redelivered message may have been published before the death.
    again = await gateway.hear("DDATA", data(a1=2.0), dup=True)
    assert (again.readings, again.rebirth) == ([Reading(UNIT, T0, {"speed": 2.0})], False)
    await gateway.hear("DBIRTH", named(power_in=1))
    assert (await gateway.hear("DDATA", data(a1=4.0))).readings == [Reading(UNIT, T0, {"power_in": 4.0})]


async def test_a_new_connection_of_a_node_ends_the_one_before_and_a_rebirth_does_not(
    gateway: Gateway,
) -> None:
    await gateway.hear("NBIRTH", bd_seq(9))
    await gateway.hear("DBIRTH", named(speed=1))
    await gateway.hear("NBIRTH", bd_seq(9))
    assert (await gateway.hear("DDATA", data(a1=2.0))).readings
    await gateway.hear("NBIRTH", bd_seq(10))
    assert refused(await gateway.hear("DDATA", data(a1=2.0))) == [Reason.NO_BIRTH]


async def test_data_of_a_node_itself_has_no_aliases_after_its_death(gateway: Gateway) -> None:
    await gateway.hear("NBIRTH", [*bd_seq(9), Metric("Node Info/Load", 1, T0, DataType.FLOAT, 1.0)])
    assert not (await gateway.hear("NDATA", data(a1=2.0))).refused
    await gateway.hear("NDEATH", bd_seq(9))
    late = await gateway.hear("NDATA", data(a1=2.0))
    assert (refused(late), late.rebirth) == ([Reason.NO_BIRTH], True)


async def test_a_message_of_the_past_is_not_decoded_by_meanings_of_today(gateway: Gateway) -> None:
    past_ms = 1_000
    await gateway.hear("DBIRTH", named(speed=1))
    assert (await gateway.hear("DDATA", data(a1=2.0), dup=True, past_ms=past_ms)).readings
    await gateway.hear("DBIRTH", named(power_in=1))
    late = await gateway.hear("DDATA", data(a1=2.0), dup=True, past_ms=past_ms)
    assert refused(late) == [Reason.NO_BIRTH]
    learned = await gateway.hear("DBIRTH", named(vibration=1), dup=True, past_ms=past_ms)
    assert (learned.birth, learned.sessions) == (None, [])
    assert not (await gateway.hear("NDEATH", [], dup=True, past_ms=past_ms)).death
    assert (await gateway.hear("DDATA", data(a1=2.0))).readings == [Reading(UNIT, T0, {"power_in": 2.0})]


async def test_what_was_skipped_and_comes_late_is_no_loss(gateway: Gateway) -> None:
    """tck-id-operational-behavior-host-reordering-start, -success."""

    async def seq(number: int) -> tuple[bool, bool]:
        decoded = await gateway.hear("DDATA", data(a1=1.0), seq=number)
        return decoded.gap, decoded.complete

    await gateway.hear("NBIRTH", bd_seq(1), seq=0)
    await gateway.hear("DBIRTH", named(speed=1), seq=1)
    seen = [await seq(number) for number in (2, 5, 6, 4, 3, 7, 9)]
    assert [gap for gap, _ in seen] == [False, True, False, False, False, False, True]
    assert [complete for _, complete in seen] == [False, False, False, False, True, False, False]


async def test_a_message_that_is_replayed_is_noticed_each_time_and_nothing_else_is_missing(
    gateway: Gateway,
) -> None:
    value = [Metric(name="speed", datatype=DataType.FLOAT, value=1.0)]
    numbers = (1, 1, 2, 2, 3, 4, 105, 5)
    gaps = [(await gateway.hear("DDATA", value, seq=seq)).gap for seq in numbers]
    assert gaps == [False, True, False, True, False, False, True, False]


def test_state_of_any_host_is_nobodys_reading() -> None:
    for host in ("IamHost", "Scada 主机 1", "qilu"):
        assert topics.parse(f"spBv1.0/STATE/{host}") == topics.StateTopic(host)


async def test_a_death_does_not_overtake_data_on_another_connection(gateway: Gateway) -> None:
    """In the profile `strict`: wills come at QoS 1 on both connections, births and data at QoS 0 on one."""
    await gateway.hear("NBIRTH", bd_seq(9), lane=1)
    await gateway.hear("DBIRTH", named(speed=1), lane=1)
    early = await gateway.hear("NDEATH", bd_seq(9), lane=0)
    assert (early.death, early.ignored_death) == (False, False)
    assert (await gateway.hear("DDATA", data(a1=2.0), lane=1)).readings
    assert (await gateway.hear("NDEATH", bd_seq(9), lane=1)).death
