"""Rebirth requests: none too many, and everybody's turn comes."""

from __future__ import annotations

import asyncio
import time

from qilu_contract import sparkplug, topics
from qilu_gateway.rebirths import MOST_PER_TICK, TICK_S, Node, Rebirths


async def test_a_storm_of_two_thousand_nodes_is_asked_once_each_and_no_faster_than_the_bound() -> None:
    sent: list[tuple[float, str]] = []

    async def publish(topic: str, payload: bytes) -> bool:
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

    async def publish(topic: str, payload: bytes) -> bool:
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
