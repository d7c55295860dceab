"""The platform's parts that need no server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Gauge
from pydantic import ValidationError
from qilu_contract.errors import ConfigError
from qilu_platform.counting.ledger import EFFECTS, Event, correction
from qilu_platform.database.engine import open_engine
from qilu_platform.event_queue import MAX_WAITING
from qilu_platform.hub import MAX_STREAMS, Hub
from qilu_platform.imports.parsing import numbered_rows, parse
from qilu_platform.settings import Settings

ROOT = Path(__file__).parents[2]


def test_every_event_has_effects_and_onboarding_is_never_taken_back() -> None:
    counters = {name for event in Event for name in EFFECTS[event]}
    assert set(EFFECTS) == set(Event) | set(map(correction, counters))
    for effects in EFFECTS.values():
        assert all(step > 0 for name, step in effects.items() if not name.endswith("_current"))


@pytest.mark.parametrize("url", ["mysql://host/name", "sqlite://", "sqlite:///:memory:", "nonsense"])
def test_a_database_that_cannot_hold_the_registry_is_refused_in_a_sentence(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^--db .*use sqlite:///path or postgresql://"):
        open_engine(url)


def test_settings_take_secrets_from_files_and_do_not_show_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "key"
    file.write_text("a-long-enough-secret-key\n")
    monkeypatch.delenv("QILU_INGEST_KEY", raising=False)
    monkeypatch.setenv("QILU_INGEST_KEY_FILE", str(file))
    settings = Settings()
    assert settings.ingest_key is not None
    assert settings.ingest_key.get_secret_value() == "a-long-enough-secret-key"
    assert "a-long-enough" not in repr(settings)


def test_the_certificate_authority_lies_beside_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QILU_PLATFORM_CA", raising=False)
    assert Settings(db_url="sqlite:///some/where/registry.sqlite").ca_folder == Path("some/where/ca")
    assert Settings(db_url="postgresql://host/name").ca_folder == Path("var/ca")
    monkeypatch.setenv("QILU_PLATFORM_CA", "elsewhere")
    assert Settings(db_url="sqlite:///some/where/registry.sqlite").ca_folder == Path("elsewhere")


def test_a_port_that_is_none_is_refused() -> None:
    with pytest.raises(ValidationError):
        Settings(port=70_000)


def test_bulk_lines_keep_their_numbers_and_name_what_is_wrong() -> None:
    body = b"\n".join(
        [
            b'{"id": "p-1", "name": "One"}',
            b"",
            b'{"id": "p-2"}',
            b"{not json",
            b'{"name": "No id"}',
            b'{"id": "P 4", "name": "Four"}',
            b'{"id": "p-5", "name": "Five", "colour": "red"}',
            b"\xff",
        ]
    )
    block = parse("providers", None, body, 1)
    assert numbered_rows(block.numbers, block.columns) == [(1, {"id": "p-1", "name": "One"})]
    assert [error.line for error in block.errors] == [3, 4, 5, 6, 7, 8]
    for error, word in zip(block.errors, ["name", "JSON", "id", "id", "colour", "JSON"], strict=True):
        assert word in error.detail


def make_hub() -> Hub:
    return Hub(Gauge("clients", "clients", registry=CollectorRegistry()))


async def test_a_client_gets_the_latest_event_at_once_and_then_only_changes() -> None:
    hub = make_hub()
    hub.publish("programme", {"as_of_ms": 1, "units": 5})
    async with asyncio.timeout(10):
        stream = aiter(hub.stream("198.51.100.1"))
        assert (await anext(stream)).startswith(b"retry:")
        assert await anext(stream) == b'event: programme\ndata: {"as_of_ms":1,"units":5}\n\n'
        hub.publish("programme", {"as_of_ms": 2, "units": 5})
        hub.publish("programme", {"as_of_ms": 3, "units": 6})
        assert await anext(stream) == b'event: programme\ndata: {"as_of_ms":3,"units":6}\n\n'
        hub.close()
        assert [part async for part in stream] == []


async def test_a_slow_client_loses_its_oldest_events_and_nobody_waits_for_it() -> None:
    hub = make_hub()
    async with asyncio.timeout(10):
        stream = aiter(hub.stream("198.51.100.1"))
        await anext(stream)
        for number in range(3 * MAX_WAITING):
            hub.publish("programme", {"units": number})
        seen = [await anext(stream) for _ in range(MAX_WAITING)]
        assert seen[-1] == b'event: programme\ndata: {"units":%d}\n\n' % (3 * MAX_WAITING - 1)
        assert seen[0] == b'event: programme\ndata: {"units":%d}\n\n' % (2 * MAX_WAITING)
        hub.close()
        assert [part async for part in stream] == []


async def test_a_client_with_too_many_streams_loses_its_own_and_nobody_elses() -> None:
    hub = make_hub()
    async with asyncio.timeout(10):
        page = aiter(hub.stream("198.51.100.1"))
        await anext(page)
        flood = [aiter(hub.stream("203.0.113.9")) for _ in range(MAX_STREAMS + 100)]
        for stream in flood:
            await anext(stream)
        hub.publish("programme", {"units": 1})
        assert (await anext(page)).startswith(b"event: programme")
        assert [part async for part in flood[0]] == [b"retry: 30000\n\n"]
        assert (await anext(flood[-1])).startswith(b"event: programme")
        # From many addresses: those with one stream keep it.
        crowd = [aiter(hub.stream(f"10.0.{n // 200}.{n % 200}")) for n in range(MAX_STREAMS - 10)]
        for stream in crowd:
            await anext(stream)
        hub.publish("programme", {"units": 2})
        assert b'"units":2' in await anext(page)
        hub.close()
        for stream in (page, *flood, *crowd):
            await stream.aclose()
