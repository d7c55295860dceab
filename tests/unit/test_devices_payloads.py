from qilu_contract import sparkplug
from qilu_contract.catalogue import CATALOGUE
from qilu_contract.sparkplug import DataType
from qilu_devices import payloads
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
    death = sparkplug.decode(payloads.node_death(17, START_MS))
    assert death.seq is None
    assert [(metric.name, metric.value) for metric in death.metrics] == [("bdSeq", 17)]


def test_a_devices_birth_tells_names_aliases_types_units_values_and_sample_times() -> None:
    equipment = CATALOGUE["boiler"]
    last: list[payloads.Dated] = [
        (START_MS + 5000 * i, signal.nominal) for i, signal in enumerate(equipment.signals)
    ]
    birth = sparkplug.decode(payloads.device_birth(equipment, 40, last, 3))
    assert birth.seq == 3
    assert birth.ts_ms == last[-1][0]
    for i, (signal, metric) in enumerate(zip(equipment.signals, birth.metrics, strict=True)):
        assert (metric.name, metric.alias, metric.ts_ms) == (signal.name, 40 + i, START_MS + 5000 * i)
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
                assert metric.ts_ms is None
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
