"""Rebirth requests: none too many, and everybody's turn comes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from qilu_contract.wire import sparkplug, topics
from qilu_gateway.read.rebirths import JITTER_S, MOST_PER_TICK, TICK_S, Node, Rebirths


async def test_a_storm_of_two_thousand_nodes_is_asked_once_each_and_no_faster_than_the_bound() -> None:
    sent: list[tuple[float, str]] = []

    def publish(topic: str, payload: bytes) -> bool:
        [metric] = sparkplug.decode(payload).metrics
        assert (metric.name, metric.value) == ("Node Control/Rebirth", True)
        sent.append((time.monotonic(), topic))
        return True

    nodes: list[Node] = [("370202", f"370202-e{number:05d}") for number in range(2000)]
    rebirths = Rebirths(publish, lambda: None)
    for _ in range(3):  # each node's messages keep coming
        for node in nodes:
            rebirths.ask(node)
    running = asyncio.create_task(rebirths.run())
    began = time.monotonic()
    while len(sent) < len(nodes):
        assert time.monotonic() - began < 60
        await asyncio.sleep(0.05)
        rebirths.ask(nodes[0])
        rebirths.ask(nodes[-1])
    await asyncio.sleep(3 * TICK_S)
    running.cancel()
    assert sorted(topic for _, topic in sent) == sorted(topics.sparkplug("NCMD", *node) for node in nodes)
    assert sent[-1][0] - sent[0][0] >= (len(nodes) / MOST_PER_TICK - 1) * TICK_S * 0.95


async def test_a_request_that_the_broker_did_not_take_may_be_made_again() -> None:
    tried = 0

    def publish(topic: str, payload: bytes) -> bool:
        nonlocal tried
        tried += 1
        return tried > 1

    sent: list[None] = []
    rebirths = Rebirths(publish, lambda: sent.append(None))
    running = asyncio.create_task(rebirths.run())
    began = time.monotonic()
    while not sent:
        assert time.monotonic() - began < 30
        rebirths.ask(("370202", "370202-e00001"))
        await asyncio.sleep(0.02)
    running.cancel()
    assert tried == 2


@contextlib.asynccontextmanager
async def asking(**settings: Any) -> AsyncIterator[tuple[Rebirths, list[str]]]:
    sent: list[str] = []

    def publish(topic: str, _: bytes) -> bool:
        sent.append(topic)
        return True

    rebirths = Rebirths(publish, lambda: None, **settings)
    running = asyncio.create_task(rebirths.run())
    try:
        yield rebirths, sent
    finally:
        running.cancel()


async def until(condition: Callable[[], object]) -> None:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < 30
        await asyncio.sleep(0.02)


NODE, OTHER = ("370202", "370202-e00001"), ("370202", "370202-e00002")


async def test_what_is_needed_again_shortly_after_a_request_is_asked_for_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("qilu_gateway.read.rebirths.QUIET_S", 1.0)
    async with asking() as (rebirths, sent):
        rebirths.ask(NODE)
        await until(lambda: len(sent) == 1)
        rebirths.ask(NODE)
        await until(lambda: len(sent) == 2)


async def test_a_node_that_answers_may_be_asked_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qilu_gateway.read.rebirths.ANSWERED_S", 0.5)
    async with asking() as (rebirths, sent):
        rebirths.ask(NODE)
        await until(lambda: len(sent) == 1)
        rebirths.ask(NODE)  # more of what the request was for
        rebirths.born(NODE)
        rebirths.ask(OTHER)
        await until(lambda: len(sent) == 2)
        assert sent[1] == topics.sparkplug("NCMD", *OTHER)
        rebirths.ask(NODE)  # something new
        await until(lambda: len(sent) == 3)


async def test_a_node_is_asked_when_what_was_skipped_does_not_come_in_time() -> None:
    """tck-id-operational-behavior-host-reordering-param, -rebirth, -success."""
    lost: list[Node] = []
    async with asking(reorder_timeout_s=0.3, lost=lost.append) as (rebirths, sent):
        rebirths.skipped(NODE)
        rebirths.complete(NODE)
        rebirths.skipped(OTHER)
        await until(lambda: sent)
        await asyncio.sleep(JITTER_S + 3 * TICK_S)
        assert sent == [topics.sparkplug("NCMD", *OTHER)]
        assert lost == [OTHER]  # a security event
