"""Values of a server put together to readings."""

from __future__ import annotations

from qilu_contract.catalogue.classes import CATALOGUE
from qilu_devices.doors.collector import Collector
from qilu_devices.fleet import Enterprise, Unit
from qilu_devices.simulation import Sample, shape_of

MOTOR = CATALOGUE["motor"]
ALL = range(len(MOTOR.signals))
UNIT = Unit("m1", "motor", Enterprise("e1", 0, "e1", "370202", ""))


def emitted(values: list[tuple[int, int, float]]) -> list[Sample]:
    """Readings after these values: position, time, value. Each arrives a second after the one before."""
    found: list[Sample] = []
    collector = Collector([UNIT], found.append)
    for arrived_s, (position, ts_ms, value) in enumerate(values):
        collector.take("m1", position, ts_ms, value, float(arrived_s))
    collector.flush(float("inf"))
    return found


def as_dict(samples: list[Sample]) -> list[tuple[int, dict[int, float]]]:
    return [(each.ts_ms, dict(zip(each.shape.positions, each.values, strict=True))) for each in samples]


def test_values_of_one_time_are_one_reading_and_a_repetition_is_none() -> None:
    first = [(i, 1000, 1.0) for i in ALL]
    assert as_dict(emitted([*first, (0, 2000, 2.0), (1, 2000, 3.0), *first, (0, 2000, 9.0)])) == [
        (1000, dict.fromkeys(ALL, 1.0)),
        (2000, {0: 2.0, 1: 3.0}),
    ]


def test_a_second_sample_that_arrives_before_the_first_is_emitted_takes_nothing_from_it() -> None:
    values = [*((i, 1000, 1.0) for i in ALL), (0, 1100, 2.0)]
    assert as_dict(emitted(values)) == [(1000, dict.fromkeys(ALL, 1.0)), (1100, {0: 2.0})]


def test_nothing_is_emitted_before_every_signal_has_a_value_and_then_each_once() -> None:
    rest = [(i, 500, 1.0) for i in ALL if i > 1]
    assert emitted([*rest, (0, 1000, 1.0), (0, 2000, 2.0)]) == []
    assert as_dict(emitted([*rest, (0, 1000, 1.0), (0, 2000, 2.0), (1, 2500, 4.0), (0, 3000, 5.0)])) == [
        (500, dict.fromkeys((i for i in ALL if i > 1), 1.0)),
        (2000, {0: 2.0}),
        (2500, {1: 4.0}),
        (3000, {0: 5.0}),
    ]


def test_several_readings_in_one_notification_signal_after_signal_lose_nothing_at_the_start() -> None:
    slow = len(ALL) - 1
    fast = [(i, ts_ms, ts_ms / 1000) for i in ALL if i != slow for ts_ms in (1000, 2000, 3000)]
    assert as_dict(emitted([*fast, (slow, 1000, 1.0)])) == [
        (1000, dict.fromkeys(ALL, 1.0)),
        (2000, {i: 2.0 for i in ALL if i != slow}),
        (3000, {i: 3.0 for i in ALL if i != slow}),
    ]


def test_after_a_restart_nothing_is_emitted_twice_and_nothing_is_dropped() -> None:
    shape = shape_of(MOTOR, tuple(ALL))
    found: list[Sample] = []
    collector = Collector([UNIT], found.append)
    collector.restore(Sample(UNIT, 1000, shape, (1.0,) * len(ALL)))
    for position, ts_ms in [*((i, 1000) for i in ALL), (0, 2000), (0, 3000)]:
        collector.take("m1", position, ts_ms, 2.0, 0.0)
    collector.flush(float("inf"))
    assert as_dict(found) == [(2000, {0: 2.0}), (3000, {0: 2.0})]


def test_a_reading_waits_until_its_values_have_had_time_to_arrive() -> None:
    found: list[Sample] = []
    collector = Collector([UNIT], found.append)
    for i in ALL:
        collector.take("m1", i, 1000, 1.0, 10.0)
    collector.flush(10.0)
    assert found == []
    collector.flush(10.1)
    assert len(found) == 1
