"""The simulated classes beside public data: La Haute Borne (wind), Tennessee Eastman (reactor), SKAB (pump),
AI4I (CNC)."""

from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from qilu_devices.classes import KERNELS
from qilu_devices.classes.cnc import OVERSTRAIN_MIN_NM, TOOL_LIFE_MAX
from qilu_devices.noise import Streams, keys_of

MONDAY_10_H = 1_509_328_800_000  # 30 October 2017, 10:00 in Shandong
Series = dict[str, NDArray[np.float64]]


@cache
def observed(name: str, units: int, interval_s: int, steps: int, skip: int = 0) -> Series:
    """Steps of units that share no enterprise."""
    keys = [Streams(keys_of(11, [f"{prefix}{i}" for i in range(units)])) for prefix in ("unit", "enterprise")]
    kernel = KERNELS[name](keys[0], keys[1], float(interval_s))
    times = np.full(units, MONDAY_10_H, dtype=np.int64)
    produced = [kernel.step(k, times + k * interval_s * 1000) for k in range(steps)][skip:]
    return {signal: np.array([step[signal] for step in produced]) for signal in produced[0]}


def memory(values: NDArray[np.float64], lag: int, *, by_unit: bool = False) -> float:
    centred = values - (values.mean(axis=0) if by_unit else values.mean())
    return float(np.mean(np.mean(centred[lag:] * centred[:-lag], axis=0) / np.mean(centred**2, axis=0)))


@cache
def wind() -> Series:
    """Turbines that start on different days, so that together they cover the whole year."""
    units = 100
    keys = [Streams(keys_of(11, [f"{prefix}{i}" for i in range(units)])) for prefix in ("unit", "enterprise")]
    kernel = KERNELS["wind_turbine"](keys[0], keys[1], 600.0)
    times = MONDAY_10_H + np.arange(units, dtype=np.int64) * 22 * 86_400_000
    produced = [kernel.step(k, times + k * 600_000) for k in range(1500)]
    return {signal: np.array([step[signal] for step in produced]) for signal in produced[0]}


@pytest.mark.parametrize(
    ("signal", "wanted"),
    [("wind_speed", (0.970, 0.888, 0.612, 0.308)), ("active_power", (0.969, 0.888, 0.635, 0.359))],
)
def test_wind_and_power_remember_like_the_measured_farm(signal: str, wanted: tuple[float, ...]) -> None:
    values = wind()[signal]
    centred = values - values.mean()  # not each unit's own: a month is too short for that
    for lag, autocorrelation in zip((1, 6, 36, 144), wanted, strict=True):
        found = np.mean(centred[lag:] * centred[:-lag]) / np.mean(centred**2)
        # Ten days of sixteen cities are few for what lasts a day.
        assert found == pytest.approx(autocorrelation, abs=0.05 if lag < 144 else 0.1), lag


def test_wind_is_weibull_with_the_farms_parameters() -> None:
    speed = wind()["wind_speed"].ravel()
    speed = speed[speed > 0.0]
    k = 2.0
    for _ in range(60):  # maximum likelihood, by damped fixed-point iteration
        weighted = speed**k
        k = 0.5 * k + 0.5 / ((weighted * np.log(speed)).sum() / weighted.sum() - np.log(speed).mean())
    c = np.mean(speed**k) ** (1.0 / k)
    assert k == pytest.approx(2.55, rel=0.1)
    assert c == pytest.approx(6.6, rel=0.1)


@pytest.mark.parametrize(("speed", "median_kw"), [(4.0, 38.0), (8.0, 829.0), (12.0, 1784.0)])
def test_median_power_is_the_measured_curves(speed: float, median_kw: float) -> None:
    near = (np.abs(wind()["wind_speed"] - speed) < 0.1) & (wind()["active_power"] > 0.0)
    assert np.median(wind()["active_power"][near]) == pytest.approx(median_kw, rel=0.1)


@pytest.mark.parametrize(
    ("signal", "mean", "deviation"),
    [("reactor_temp", 120.40, 0.019), ("reactor_pressure", 2705.0, 5.3), ("reactor_level", 75.0, 0.5)],
)
def test_a_reactor_has_the_base_cases_means_and_deviations(
    signal: str, mean: float, deviation: float
) -> None:
    values = observed("reactor", 100, 180, 800)[signal]
    assert values.mean() == pytest.approx(mean, abs=0.2 * deviation)
    assert values.std() == pytest.approx(deviation, rel=0.2)


@pytest.mark.parametrize(
    ("signal", "wanted"),
    [("body_temp", 0.938), ("vibration", 0.927), ("current", 0.074), ("fluid_temp", 1.0)],
)
def test_a_pump_remembers_from_second_to_second_like_the_rig(signal: str, wanted: float) -> None:
    values = observed("pump", 100, 1, 1200)[signal]
    assert memory(values, 1, by_unit=True) == pytest.approx(wanted, abs=0.1)


def cnc() -> tuple[Series, NDArray[np.bool_]]:
    series = observed("cnc", 500, 10, 360 * 6)
    return series, series["spindle_speed"] > 0.0


def test_cnc_speed_and_torque_are_distributed_like_the_data() -> None:
    series, running = cnc()
    speed, torque = series["spindle_speed"][running], series["torque"][running]
    assert (speed.mean(), speed.std()) == pytest.approx((1539.0, 179.0), rel=0.1)
    assert (torque.mean(), torque.std()) == pytest.approx((40.0, 10.0), rel=0.05)
    assert series["spindle_power"][running].mean() == pytest.approx(6280.0, rel=0.05)
    assert speed.min() >= 1168.0
    assert 2000.0 < speed.max() <= 2886.0
    assert series["air_temp"].std() == pytest.approx(2.0, rel=0.1)
    quality = series["quality"]
    assert [np.mean(quality == q) for q in (0, 1, 2)] == pytest.approx(
        [0.44, 0.33, 0.19], abs=0.07
    )  # of time


def test_cnc_failures_are_as_many_as_in_the_data() -> None:
    series, running = cnc()
    failure = series["failure"][running].astype(np.int64)
    assert np.mean(failure > 0) == pytest.approx(0.034, abs=0.006)
    for bit, share in ((1, 0.0046), (2, 0.0115), (4, 0.0095), (8, 0.0098), (16, 0.0019)):
        assert np.mean(failure & bit > 0) == pytest.approx(share, abs=0.004), bit


def test_the_failure_rules_hold_for_every_sample() -> None:
    series, running = cnc()
    failure = series["failure"].astype(np.int64)
    heat = (series["process_temp"] - series["air_temp"] < 8.6) & (series["spindle_speed"] < 1380.0)
    power = series["torque"] * series["spindle_speed"] * (np.pi / 30.0)
    assert power == pytest.approx(series["spindle_power"])
    wrong_power = (series["spindle_power"] < 3500.0) | (series["spindle_power"] > 9000.0)
    limit = OVERSTRAIN_MIN_NM[series["quality"].astype(np.int64)]
    strained = series["tool_wear"] * series["torque"] > limit
    for bit, rule in ((2, heat), (4, wrong_power), (8, strained)):
        assert (((failure & bit) > 0) == (running & rule)).all(), bit
    assert (failure[~running] == 0).all()


def test_tools_wear_by_the_part_and_end_between_200_and_240_minutes() -> None:
    series, _ = cnc()
    wear, quality, parts = series["tool_wear"], series["quality"], series["parts"]
    assert (wear <= TOOL_LIFE_MAX).all()
    change = np.diff(wear, axis=0)
    new_part = np.diff(parts, axis=0) > 0
    assert (change[~new_part] == 0.0).all()
    minutes = np.array([2.0, 3.0, 5.0])[quality[:-1].astype(np.int64)]  # of the part that ended
    replaced = change < 0.0
    assert (change[new_part & ~replaced] == minutes[new_part & ~replaced]).all()
    at_end = wear[:-1][replaced] + minutes[replaced]
    assert replaced.any()
    assert ((at_end >= 200.0) & (at_end < 245.0)).all()
    worn_out = series["failure"].astype(np.int64) & 1 > 0
    assert (wear[worn_out] >= 195.0).all()
