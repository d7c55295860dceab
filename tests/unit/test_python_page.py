"""docs/python.md: its code runs unchanged, and the packages' public names are those that it shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest
import qilu_devices
import qilu_gateway
from qilu_contract.catalogue.classes import CATALOGUE

PAGE = (Path(__file__).parents[2] / "docs" / "python.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_each_block_of_the_page_runs(number: int, tmp_path: Path) -> None:
    environment = os.environ | {"QILU_API_KEY": "k" * 24, "QILU_BROKER": "mqtt://127.0.0.1:1"}
    done = subprocess.run(
        [sys.executable, "-c", BLOCKS[number]], cwd=tmp_path, env=environment,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(r"\d readings (of|stored)", done.stdout)
    assert ("2022-05-31 16:00" in done.stdout) == ("pandas" in BLOCKS[number])  # a table by hour


def test_a_day_becomes_a_data_frame() -> None:
    day = qilu_devices.simulate("motor", start="2022-06-01T00:00:00+08:00", duration="2h", seed=7)
    frame = pandas.DataFrame(day).set_index("time")
    hours = frame.resample("1h").mean(numeric_only=True)
    assert list(hours.columns) == [signal.name for signal in CATALOGUE["motor"].signals]
    first = day["time"] < np.datetime64("2022-05-31T17:00")
    assert hours["power_in"].iloc[0] == pytest.approx(np.nanmean(day["power_in"][first]))


def test_a_day_is_columns_of_equal_length_in_order_and_the_same_each_time() -> None:
    arguments = {"start": "2022-06-01T00:00:00+08:00", "duration": "1h", "units": 3, "seed": 5}
    for class_name in ("motor", "boiler"):
        hour = qilu_devices.simulate(class_name, **arguments)  # type: ignore[arg-type]
        assert list(hour) == ["unit", "time", *(signal.name for signal in CATALOGUE[class_name].signals)]
        assert len({len(column) for column in hour.values()}) == 1
        assert len(set(hour["unit"])) == 3
        assert (np.diff(hour["time"]) >= np.timedelta64(0)).all()
        assert hour["time"][0] == np.datetime64("2022-05-31T16:00")
        for signal in CATALOGUE[class_name].signals:
            values = hour[signal.name][~np.isnan(hour[signal.name])]
            assert len(values)
            assert ((values >= signal.low) & (values <= signal.high)).all()
        again = qilu_devices.simulate(class_name, **arguments)  # type: ignore[arg-type]
        assert all(
            np.array_equal(again[name], hour[name], equal_nan=name not in ("unit", "time")) for name in hour
        )


def test_arguments_that_cannot_be_used_raise() -> None:
    for class_name, start, duration in (
        ("kiln", "2022-06-01T00:00:00+08:00", "1h"),
        ("motor", "2022-06-01", "1h"),
        ("motor", "yesterday", "1h"),
        ("motor", "2022-06-01T00:00:00+08:00", "long"),
    ):
        with pytest.raises(ValueError):
            qilu_devices.simulate(class_name, start=start, duration=duration)


@pytest.mark.parametrize("package", [qilu_devices, qilu_gateway])
def test_every_public_name_is_there_and_on_the_page(package: object) -> None:
    for name in package.__all__:  # type: ignore[attr-defined]
        assert getattr(package, name).__name__ == name


def test_importing_the_simulator_is_light() -> None:
    code = "import sys, qilu_devices; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numpy", "yaml", "msgspec"} & set(loaded.stdout.split())
