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
import pytest

SOAK = os.environ.get("QILU_SOAK") == "1"
SEEDS, MESSAGES = (range(1, 27), 40_000) if SOAK else (range(1, 2), 5_000)
ONE_WAY = Path(message_fuzz.__file__).with_name("one_way.py")
PATIENCE_S = 1800.0


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
