"""The embedded stack's Mosquitto, apart from the stack."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import pytest
from qilu.brokers import sole_broker
from qilu_contract.broker import MAX_PACKET_BYTES
from qilu_contract.errors import ConfigError

from qilu import brokers

ROOT = Path(__file__).parents[2]


async def test_a_stack_waits_for_the_broker_of_one_that_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sole_broker(tmp_path) as lock:
        orphan = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "input()", pass_fds=(lock,), stdin=asyncio.subprocess.PIPE
        )
    try:
        monkeypatch.setattr(brokers, "STOP_S", 0.0)
        with pytest.raises(ConfigError, match="still runs"):
            async with sole_broker(tmp_path):
                pass
        monkeypatch.undo()
    finally:
        await orphan.communicate(b"\n")
    async with sole_broker(tmp_path):
        pass


def test_both_stacks_set_mosquitto_alike() -> None:
    def settings(text: str) -> dict[str, str]:
        lines = [line.split(" ", 1) for line in text.splitlines() if line and not line.startswith("#")]
        # Where things are, and in which order a listener's lines come, is each one's own business.
        own = re.compile("listener|.*file|plugin|persistence_location|log_dest|log_type")
        return {name: value for name, value in lines if not own.fullmatch(name)}

    embedded = brokers._MOSQUITTO_CONF + brokers._MOSQUITTO_NODES
    compose = settings((ROOT / "compose" / "mosquitto.conf").read_text(encoding="utf-8"))
    assert settings(embedded.replace("{max_packet}", str(MAX_PACKET_BYTES))) == compose
    assert compose["max_packet_size"] == str(MAX_PACKET_BYTES)
