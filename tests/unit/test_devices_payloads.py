from pathlib import Path

from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.wire import sparkplug
from qilu_contract.wire.commands import Answer
from qilu_contract.wire.sparkplug import DataType
from qilu_devices.edge import payloads
from qilu_devices.edge.sessions import Sessions
from qilu_devices.fleet import Unit
from qilu_devices.scenario import load_scenario
from qilu_devices.simulation import Simulation, fleet_of

START_MS = 1_509_328_800_000
SCENARIO = load_scenario()


def some_of_each_class() -> list[Unit]:
    of_class: dict[str, list[Unit]] = {}
    for unit in fleet_of(SCENARIO, units=150):
        of_class.setdefault(unit.class_name, []).append(unit)
    assert set(of_class) == set(CATALOGUE)
    return [unit for units in of_class.values() for unit in units[:2]]


def test_a_nodes_birth_and_death_carry_the_same_bdseq() -> None:
    birth = sparkplug.decode(payloads.node_birth(17, START_MS, 0))
    assert (birth.ts_ms, birth.seq) == (START_MS, 0)
    named = {metric.name: metric for metric in birth.metrics}
    assert named["bdSeq"].value == 17
    assert named["bdSeq"].datatype == DataType.INT64
    assert named["Node Control/Rebirth"].value is False
    assert {metric.ts_ms for metric in birth.metrics} == {START_MS}
    death = sparkplug.decode(payloads.node_death(17, START_MS))
    assert death.seq is None
    assert [(metric.name, metric.value) for metric in death.metrics] == [("bdSeq", 17)]


def test_a_devices_birth_tells_names_aliases_types_units_values_and_sample_times() -> None:
    equipment = CATALOGUE["boiler"]
    count = len(equipment.signals)
    last: list[payloads.Dated] = [  # the first signal was sampled last
        (START_MS + 5000 * (count - i), signal.nominal) for i, signal in enumerate(equipment.signals)
    ]
    birth = sparkplug.decode(payloads.device_birth(equipment, 40, last, 3))
    assert birth.seq == 3
    assert birth.ts_ms == last[0][0]
    times = [metric.ts_ms or 0 for metric in birth.metrics]
    assert times == sorted(times)
    metrics = sorted(birth.metrics, key=lambda metric: metric.alias or 0)
    for i, (signal, metric) in enumerate(zip(equipment.signals, metrics, strict=True)):
        assert (metric.name, metric.alias, metric.ts_ms) == (signal.name, 40 + i, last[i][0])
        assert metric.datatype == (DataType.DOUBLE if signal.is_wide else DataType.FLOAT)
        assert metric.properties == {"engUnit": signal.unit}
        assert isinstance(metric.value, float)
        assert signal.round(metric.value) == signal.nominal


def test_data_by_alias_gives_every_sampled_value_back_once_rounded() -> None:
    units = some_of_each_class()
    for moment in Simulation(units, SCENARIO.seed, START_MS).moments(START_MS + 120_000):
        for sample in moment.samples:
            decoded = sparkplug.decode(payloads.data(sample, 100, 200, is_historical=False))
            assert (decoded.ts_ms, decoded.seq) == (sample.ts_ms, 200)
            signals = CATALOGUE[sample.unit.class_name].signals
            values = {}
            for metric in decoded.metrics:
                assert metric.name is None
                assert metric.ts_ms == sample.ts_ms
                assert metric.datatype == DataType.UNKNOWN
                assert not metric.is_historical
                assert metric.alias is not None
                assert isinstance(metric.value, float)
                signal = signals[metric.alias - 100]
                values[signal.name] = signal.round(metric.value)
            assert values == sample.named()


def test_readings_that_waited_are_marked_historical() -> None:
    units = fleet_of(SCENARIO, units=1)
    moment = next(Simulation(units, SCENARIO.seed, START_MS).moments(None))
    decoded = sparkplug.decode(payloads.data(moment.samples[0], 0, 1, is_historical=True))
    assert all(metric.is_historical for metric in decoded.metrics)


def test_the_fast_layout_gives_the_same_bytes_as_the_contracts_encoder() -> None:
    units = some_of_each_class()
    for moment in Simulation(units, SCENARIO.seed, START_MS).moments(START_MS + 70_000):
        for sample in moment.samples:
            for alias, seq, historical in ((0, 0, False), (120, 127, True), (16_380, 255, False)):
                equipment = CATALOGUE[sample.unit.class_name]
                layout = payloads.DataLayout(equipment, sample.shape, alias, historical)
                assert layout.encode(sample, seq) == payloads.data(sample, alias, seq, historical)
                early = sample._replace(ts_ms=60_000)  # takes fewer bytes
                assert layout.encode(early, seq) == payloads.data(early, alias, seq, historical)


def test_an_answer_to_a_command_has_the_time_on_each_metric_and_no_datatypes() -> None:
    answer = Answer("a1", "370202-motor-0000001", "stop", True, "", START_MS)
    metrics = sparkplug.decode(payloads.answer(answer, 7)).metrics
    assert {(metric.ts_ms, metric.datatype) for metric in metrics} == {(START_MS, DataType.UNKNOWN)}


def test_sessions_go_on_where_an_earlier_process_was_killed(tmp_path: Path) -> None:
    first = Sessions(tmp_path, ["a", "b"])
    assert [first.next("a") for _ in range(300)] == [number % 256 for number in range(300)]
    assert first.next("b") == 0
    second = Sessions(tmp_path, ["b", "c"])  # the first one was not closed
    assert [second.next("b"), second.next("c")] == [1, 0]
    third = Sessions(tmp_path, ["a"])
    assert third.next("a") == 300 % 256
