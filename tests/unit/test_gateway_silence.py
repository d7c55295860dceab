"""Edge nodes whose death was never published."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from qilu_gateway.read import births
from qilu_gateway.read.edge_nodes import EdgeNodes
from qilu_gateway.read.silence import ANSWER_S, SILENT_S, Silence
from qilu_gateway.statefile import StateFile

COUNTY = "370202"


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[EdgeNodes]:
    async with StateFile(tmp_path, (births.SCHEMA,)) as state:
        yield EdgeNodes(state)


class Watched:
    def __init__(self, nodes: EdgeNodes) -> None:
        self.up_since_s = 0.0
        self.asked: list[str] = []
        self.died: list[str] = []
        self.silence = Silence(
            nodes,
            lambda: self.up_since_s,
            lambda node: self.asked.append(node[1]),
            lambda _county, name: self.died.append(name),
        )


async def test_a_silent_node_is_asked_once_and_then_given_up(nodes: EdgeNodes) -> None:
    watched = Watched(nodes)
    node = nodes.find(COUNTY, "quiet")
    node.follow(0)
    heard_s = nodes.heard_s[node.number]
    for after_s in (SILENT_S - 1, SILENT_S + 1, SILENT_S + 2):
        watched.silence.check(heard_s + after_s)
    assert (watched.asked, watched.died) == (["quiet"], [])
    for after_s in (3, 4):
        watched.silence.check(heard_s + SILENT_S + ANSWER_S + after_s)
    assert (watched.asked, watched.died) == (["quiet"], ["quiet"])


async def test_an_answer_ends_the_silence(nodes: EdgeNodes) -> None:
    watched = Watched(nodes)
    node = nodes.find(COUNTY, "calm")
    node.follow(0)
    heard_s = nodes.heard_s[node.number]
    watched.silence.check(heard_s + SILENT_S + 1)
    nodes.heard_s[node.number] = heard_s + SILENT_S + 10
    watched.silence.check(heard_s + SILENT_S + ANSWER_S + 20)
    assert (watched.asked, watched.died) == (["calm"], [])


async def test_a_gateway_that_could_not_hear_waits(nodes: EdgeNodes) -> None:
    watched = Watched(nodes)
    node = nodes.find(COUNTY, "unheard")
    node.follow(0)
    heard_s = nodes.heard_s[node.number]
    watched.up_since_s = math.inf
    watched.silence.check(heard_s + 10 * SILENT_S)
    watched.up_since_s = heard_s + 10 * SILENT_S
    watched.silence.check(heard_s + 10 * SILENT_S + 1)
    assert watched.asked == []


async def test_dead_nodes_and_history_are_not_asked(nodes: EdgeNodes) -> None:
    watched = Watched(nodes)
    dead, history = nodes.find(COUNTY, "dead"), nodes.find(births.HISTORY + COUNTY, "past")
    for node in (dead, history):
        node.follow(0)
    heard_s = nodes.heard_s[history.number]
    dead.end_session()
    watched.silence.check(heard_s + SILENT_S + 1)
    assert (watched.asked, watched.died) == ([], [])
