"""The kernel of a user's class: what its file says, for all units at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from qilu_contract.catalogue.own_classes import OwnClass, parse_own_class
from qilu_devices.classes.own import OwnUnits
from qilu_devices.noise import Streams, keys_of

KILN = parse_own_class(
    (Path(__file__).parents[2] / "docs" / "examples" / "kiln.yaml").read_text(encoding="utf-8"), "kiln.yaml"
)
MONDAY_10_H = 1_509_328_800_000  # 30 October 2017, 10:00 in Shandong
UNITS = 40
Series = dict[str, NDArray[np.float64]]


def kernel(own: OwnClass, interval_s: float, chosen: list[int] | None = None) -> OwnUnits:
    which = list(range(UNITS)) if chosen is None else chosen
    return OwnUnits(
        own,
        Streams(keys_of(3, [f"u{n}" for n in which])),
        Streams(keys_of(3, [f"e{n // 4}" for n in which])),
        interval_s,
    )


def observe(own: OwnClass, interval_s: int, steps: int) -> Series:
    made, times = kernel(own, float(interval_s)), np.full(UNITS, MONDAY_10_H, dtype=np.int64)
    produced = [made.step(k, times + k * interval_s * 1000) for k in range(steps)]
    return {signal: np.array([step[signal] for step in produced]) for signal in produced[0]}


def test_the_example_works_rests_and_stays_within_its_ranges() -> None:
    series = observe(KILN, 60, 14 * 60)
    for signal in KILN.equipment.signals:
        values = series[signal.name]
        assert ((values >= signal.low) & (values <= signal.high)).all(), signal.name
    working, resting = series["feed"][0] > 0.0, (series["feed"][-200:] == 0.0).all(axis=0)
    cooled = working & resting
    assert cooled.any()
    # First-order: 200 minutes at rest are five times its lag.
    assert (series["burning_zone_temp"][0, cooled] > 900.0).all()
    assert (series["burning_zone_temp"][-1, cooled] < 60.0).all()
    assert (series["drive_power"][-1, cooled] == 0.0).all()
    assert ((series["burner_on"] == 1.0) == (series["feed"] > 0.5)).all()
    assert len(set(series["bricks_lost"][0])) == UNITS  # each unit has its own


def test_counters_add_up_and_followers_follow() -> None:
    series = observe(KILN, 10, 400)
    energy = series["drive_power"][1:].sum(axis=0) * 10.0 / 3600.0
    assert series["energy_kWh"][0] == pytest.approx(0.0)
    assert series["energy_kWh"][-1] == pytest.approx(energy)
    assert (np.diff(series["co2_kg"], axis=0) >= 0.0).all()
    working = series["feed"] > 0.0
    assert series["drive_power"][working] == pytest.approx(60.0 + 2.1 * series["feed"][working])


def test_a_lag_is_of_first_order_and_a_day_has_its_swing() -> None:
    text = """\
name: step
title: Step
signals:
  - {name: sun, unit: kW, range: [-10, 10], resolution: 0.001, interval: 60s,
     value: {daily: {swing: 5, peak: 12h}}}
  - {name: late, unit: kW, range: [-10, 10], resolution: 0.001, interval: 60s,
     value: {follows: [{signal: sun, factor: 1, lag: 1h}]}}
"""
    series = observe(parse_own_class(text, "step.yaml"), 60, 24 * 60)
    sun, late = series["sun"][:, 0], series["late"][:, 0]
    assert sun[120] == sun.max() == 5.0  # noon, two hours after ten
    assert sun.min() == -5.0
    keep = np.exp(-60.0 / 3600.0)
    assert late[1:] == pytest.approx(keep * late[:-1] + (1.0 - keep) * sun[1:])


def test_a_unit_does_not_depend_on_the_units_beside_it() -> None:
    chosen = [17, 3, 38]
    whole, part = kernel(KILN, 10.0), kernel(KILN, 10.0, chosen)
    for k in range(50):
        times = np.full(UNITS, MONDAY_10_H + k * 700_000, dtype=np.int64)
        one, other = whole.step(k, times), part.step(k, times[chosen])
        for signal, values in other.items():
            assert (values == one[signal][chosen]).all(), signal
