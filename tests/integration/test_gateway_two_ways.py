"""Messages by column and messages one by one come to the same: two gateways are given what a random province
of odd and broken equipment publishes, delivered twice, out of order, across births, deaths, restarts, a store
that is unavailable or refuses; one of them decodes every message alone. Points, dead letters, problems,
first readings, counters and answers to marks are compared as text. A real DuckDB each; the broker is
scripted, so that both get exactly the same. Thousands of messages with all tests, more than a million with
QILU_SOAK=1.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import message_fuzz
import one_way
import pytest
from birth_metrics import bd_seq, named
from gateway_world import FakePlatform, Publisher, eventually, letters, online
from qilu_contract.errors import Reason
from qilu_contract.wire import sparkplug, topics
from qilu_contract.wire.sparkplug import Metric, Payload
from qilu_gateway.read.columnar import Reader
from qilu_gateway.settings import Settings

SOAK = os.environ.get("QILU_SOAK") == "1"
SEEDS, MESSAGES = (range(1, 27), 40_000) if SOAK else (range(1, 2), 5_000)
ONE_WAY = Path(message_fuzz.__file__).with_name("one_way.py")
PATIENCE_S = 1800.0


@pytest.mark.parametrize("way", ["columns", "plain"])
async def test_data_of_a_retired_unit_is_of_an_unknown_unit_whatever_its_birth(
    settings: Settings,
    platform: FakePlatform,
    publisher: Publisher,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> None:
    """In a living and a dead birth, before a new one and after it; before the platform has answered and
    after."""
    if way == "plain":
        monkeypatch.setattr(Reader, "read", one_way.read_nothing)

    def send(type_: topics.MessageType, *metrics: Metric) -> None:
        unit = "m1" if type_.startswith("D") else None
        topic = topics.sparkplug(type_, "370202", "370202-e00001", unit)
        publisher.send(topic, sparkplug.encode(Payload(message_fuzz.T0, 1, metrics)))

    data = [Metric(alias=1, ts_ms=message_fuzz.T0 + n, value=1.0) for n in range(3)]
    platform.register("m1")
    async with online(settings) as gateway:
        send("NBIRTH", *bd_seq(1))
        send("DBIRTH", *named(speed=1))
        send("DDATA", *data)
        await eventually(lambda: gateway.counters.stored == 4, "stored")
    del platform.units["m1"]
    async with online(settings) as gateway:
        platform.stop()
        for types in (["DDATA", "DDEATH", "DDATA"], ["DBIRTH", "DDATA"]):
            expected = gateway.counters.messages + len(types)
            for type_ in types:
                send(type_, *(data if type_ == "DDATA" else named(speed=1)))  # type: ignore[arg-type]
            await eventually(lambda n=expected: gateway.counters.messages == n, "received")
        platform.start()
        await eventually(lambda: gateway.counters.dead_lettered == 3 + 3 + 1 + 3, "refused")
        send("DDEATH")
        send("DDATA", *data)
        await eventually(lambda: gateway.counters.dead_lettered == 10 + 3, "refused at once")
    assert letters(settings) == {Reason.UNKNOWN_UNIT: 13}


@pytest.mark.parametrize("seed", SEEDS)
def test_by_column_and_one_by_one_all_comes_to_the_same(seed: int, tmp_path: Path) -> None:
    classes = tmp_path / "classes"
    classes.mkdir()
    for number, text in enumerate(message_fuzz.CLASSES.split("---\n")):
        (classes / f"{number}.yaml").write_text(text)
    environment = os.environ | {"QILU_CLASSES": str(classes), "PYTHONPATH": str(ONE_WAY.parent)}
    ways = {}
    for name, more in (("columns", []), ("plain", ["plain"])):
        folder = tmp_path / name
        folder.mkdir()
        words = [sys.executable, str(ONE_WAY), str(seed), str(MESSAGES), str(folder), *more]
        with (folder / "log").open("wb") as log:
            ways[name] = folder, subprocess.Popen(words, env=environment, stdout=log, stderr=log)
    lines = {}
    for name, (folder, process) in ways.items():
        assert process.wait(PATIENCE_S) == 0, f"{name}: {(folder / 'log').read_text()[-3000:]}"
        lines[name] = (folder / "lines").read_text().splitlines()
    columns, plain = Counter(lines["columns"]), Counter(lines["plain"])
    differences = [f"columns: {line}" for line in columns - plain]
    differences += [f"plain:   {line}" for line in plain - columns]
    assert not differences, f"{len(differences)} lines differ\n" + "\n".join(sorted(differences)[:20])
    # And there was much output.
    kinds = Counter(line.split(" ", 1)[0] for line in plain)
    assert kinds["point"] > MESSAGES / 3
    assert len({line.split("'")[1] for line in plain if line.startswith("letter")}) >= 10
    assert kinds["problem"] > 100
    assert kinds["signal"] > 20
    assert sum("point generic" in line for line in plain) > 100
    assert sum("point fuzz_press" in line and "'load'" in line for line in plain) > 20  # in a DataSet
    assert sum("point fuzz_press" in line and "'level'" in line for line in plain) > 20  # in a Template
    assert kinds["first"] > 80  # of 120 units
