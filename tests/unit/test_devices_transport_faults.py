"""Transport faults as a wrapper around the clean simulation: what becomes of each reading, when, and what the
ground truth says about it."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from itertools import chain
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qilu_common.broker import BrokerAddress
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.errors import BadReading, ConfigError, Reason
from qilu_contract.wire import sparkplug
from qilu_contract.wire.clock import MAX_AHEAD_MS
from qilu_devices.digests import combined_digest, unit_digests
from qilu_devices.edge import payloads
from qilu_devices.edge.device import Device
from qilu_devices.edge.edge_node import EdgeNode, NodeConfig
from qilu_devices.edge.flow import Flow
from qilu_devices.edge.messages import NodeMessages
from qilu_devices.fleet import Shard, Unit
from qilu_devices.run.config import RunConfig
from qilu_devices.run.manifest import Manifest, NodeRecord, ScenarioRecord
from qilu_devices.scenario import parse_scenario
from qilu_devices.simulation import Moment, Sample, Simulation, fleet_of
from qilu_devices.transport import episodes
from qilu_devices.transport.disturbance import Disturbance, Sending, Treatment
from qilu_devices.transport.episodes import (
    LARGEST_SHIFT_MS,
    Attack,
    Episode,
    Kind,
    TransportFault,
    TransportPlan,
)

MIX = "classes: {motor: 1, pump: 1, boiler: 1, compressor: 1}\ncities: {'370200': 1, '370700': 1}\n"
SCENARIO = parse_scenario(f"name: plain\nunits: 120\nseed: 5\nfaults: {{rate: 1}}\n{MIX}", "x")
SEED = SCENARIO.seed
START_MS = 1_509_328_812_346  # on no grid
MINUTE_MS = 60_000
UNTIL_MS = START_MS + 12 * MINUTE_MS

PLAN: TransportPlan = {
    kind: TransportFault(5 * MINUTE_MS, MINUTE_MS, *((90_000, 2_000) if kind is Kind.CLOCK_SKEW else ()))
    for kind in Kind
}
TEXT = 'name: plant\nunits: 10\nseed: 3\nclasses: {motor: 1}\ncities: {"370200": 1}\n'


def only(*kinds: Kind) -> TransportPlan:
    return {kind: PLAN[kind] for kind in kinds}


FLEET = fleet_of(SCENARIO)
MOMENTS = list(Simulation(FLEET, SEED, START_MS, SCENARIO.faults).moments(UNTIL_MS))
CLEAN = [sample for moment in MOMENTS for sample in moment.samples]


def of(units: list[Unit]) -> list[Moment]:
    """The clean simulation of some of the fleet."""
    ids = {unit.id for unit in units}
    parts = (Moment(each.ts_ms, [s for s in each.samples if s.unit.id in ids]) for each in MOMENTS)
    return [part for part in parts if part.samples]


def disturbed(
    plan: TransportPlan, units: list[Unit] = FLEET
) -> tuple[list[tuple[int, Sample | Sending]], list[Episode]]:
    """The items that edge nodes get, with their times, and the ground truth."""
    disturbance = Disturbance(units, SEED, START_MS, plan)
    found = [(each.ts_ms, item) for each in of(units) for item in disturbance.through(each)]
    found += [(UNTIL_MS, item) for item in disturbance.rest()]
    assert disturbance.held() == {}
    return found, disturbance.ground_truth()


def struck(sample: Sample, truth: list[Episode]) -> Episode | None:
    """The episode of the one kind in `truth` that a reading lies in; none touches a unit's first one."""
    if sample.ts_ms == START_MS:
        return None
    owners = (sample.unit.id, sample.unit.enterprise.id)
    return next(
        (e for e in truth if (e.unit or e.node) in owners and e.start_ms <= sample.ts_ms < e.end_ms), None
    )


def test_switched_off_everything_passes_as_it_is() -> None:
    disturbance = Disturbance(FLEET, SEED, START_MS, {})
    for moment in MOMENTS:
        assert disturbance.through(moment) is moment.samples
    assert list(disturbance.rest()) == disturbance.ground_truth() == []


def test_the_digest_is_of_the_clean_samples() -> None:
    rough = parse_scenario(SCENARIO.text + "transport: {missing: {every: 1m, for: 30s}}\n", "x")
    assert rough.transport
    same = [
        combined_digest(unit_digests(each, SEED, START_MS, 120, START_MS + MINUTE_MS))
        for each in (SCENARIO, rough)
    ]
    assert same[0] == same[1]


def test_missing_readings_are_never_sent() -> None:
    found, truth = disturbed(only(Kind.MISSING))
    assert [item for _, item in found] == [sample for sample in CLEAN if not struck(sample, truth)]
    assert sum(episode.readings for episode in truth) == len(CLEAN) - len(found) > len(FLEET)


def test_a_lost_unit_dies_once_and_says_nothing_more_until_it_is_back() -> None:
    found, truth = disturbed(only(Kind.OFFLINE))
    assert [item for _, item in found if isinstance(item, Sample)] == [
        sample for sample in CLEAN if not struck(sample, truth)
    ]
    deaths = [item for _, item in found if isinstance(item, Sending)]
    firsts: dict[tuple[str, int], Sample] = {}
    for sample in CLEAN:
        if episode := struck(sample, truth):
            firsts.setdefault((sample.unit.id, episode.start_ms), sample)
    assert deaths == [Sending(each, each.ts_ms, each.ts_ms, Treatment.OFFLINE) for each in firsts.values()]
    assert len(deaths) == len(truth) > len(FLEET)
    assert sum(episode.readings for episode in truth) == len(CLEAN) - len(found) + len(deaths)


def test_late_readings_are_held_to_the_end_of_the_episode_and_are_historical() -> None:
    found, truth = disturbed(only(Kind.LATE))
    late = [(at_ms, item) for at_ms, item in found if isinstance(item, Sending)]
    assert [sample for sample in CLEAN if not struck(sample, truth)] == [
        item for _, item in found if isinstance(item, Sample)
    ]
    held = [sample for sample in CLEAN if struck(sample, truth)]
    assert Counter(id(item.unit) for _, item in late) == Counter(id(sample.unit) for sample in held)
    for at_ms, item in late:
        episode = struck(item.sample, truth)
        assert episode is not None
        assert item.treatment is Treatment.LATE
        assert item.due_ms == episode.end_ms
        assert at_ms >= min(episode.end_ms, UNTIL_MS) > item.made_ms == item.ts_ms
    assert sum(episode.readings for episode in truth) == len(late) > len(FLEET)


def test_out_of_order_readings_are_overtaken_by_the_next_of_their_unit() -> None:
    found, truth = disturbed(only(Kind.OUT_OF_ORDER))
    sent: dict[str, list[int]] = defaultdict(list)
    for _, item in found:
        sent[item.unit.id].append(item.ts_ms)
    swapped = 0
    for unit in FLEET:
        times = [sample.ts_ms for sample in CLEAN if sample.unit is unit]
        assert sorted(sent[unit.id]) == times
        place = {ts_ms: i for i, ts_ms in enumerate(times)}
        for i, ts_ms in enumerate(sent[unit.id]):
            assert abs(place[ts_ms] - i) <= 1  # nothing goes further than past its neighbour
            swapped += place[ts_ms] > i
    assert 0 < 2 * swapped <= sum(episode.readings for episode in truth) + len(truth)


def test_duplicated_readings_are_sent_twice_in_a_row() -> None:
    found, truth = disturbed(only(Kind.DUPLICATED))
    wanted: list[object] = []
    for sample in CLEAN:
        wanted += (
            [sample, Sending(sample, sample.ts_ms, sample.ts_ms, Treatment.COPY)]
            if struck(sample, truth)
            else [sample]
        )
    assert [item for _, item in found] == wanted
    assert sum(episode.readings for episode in truth) == len(found) - len(CLEAN) > len(FLEET)


def test_a_skewed_clock_shifts_all_of_its_nodes_timestamps_and_nothing_else() -> None:
    found, truth = disturbed(only(Kind.CLOCK_SKEW))
    drifted = 0
    for (_, item), sample in zip(found, CLEAN, strict=True):
        episode = struck(sample, truth)
        if episode is None:
            assert item == sample
            continue
        assert isinstance(item, Sending)
        assert episode.unit is None
        assert episode.shift_ms is not None
        assert item.sample == sample._replace(ts_ms=item.ts_ms)
        assert item.made_ms == sample.ts_ms
        shift_ms = item.ts_ms - sample.ts_ms
        assert abs(episode.shift_ms) + 100 >= 45_000
        assert abs(shift_ms) <= PLAN[Kind.CLOCK_SKEW].largest_shift_ms
        away = abs(shift_ms) - abs(episode.shift_ms)
        assert away == (sample.ts_ms - episode.start_ms) * 2_000 // 1_000_000 // 100 * 100
        drifted += away > 0
    assert drifted > 0
    assert {episode.node for episode in truth} == {unit.enterprise.id for unit in FLEET}


@settings(max_examples=25)
@given(
    every=st.integers(60, 300),
    part=st.floats(0.05, 1.0),
    by=st.integers(1000, 180_000),
    drift=st.integers(0, 10_000),
    start_ms=st.integers(START_MS, START_MS + 10_000),
)
def test_no_two_readings_of_a_unit_ever_have_one_timestamp(
    every: int, part: float, by: int, drift: int, start_ms: int
) -> None:
    fault = TransportFault(every * 1000, max(1, int(every * 1000 * part)), by, drift)
    units = FLEET[:4]
    disturbance = Disturbance(units, SEED, start_ms, {Kind.CLOCK_SKEW: fault})
    seen: set[tuple[str, int]] = set()
    for moment in Simulation(units, SEED, start_ms).moments(start_ms + 10 * MINUTE_MS):
        for item in chain.from_iterable(map(disturbance.judge, moment.samples)):
            assert (item.unit.id, item.ts_ms) not in seen
            seen.add((item.unit.id, item.ts_ms))
            assert abs(item.ts_ms - moment.ts_ms) <= fault.largest_shift_ms


def test_a_skewed_reading_never_takes_the_first_ones_place() -> None:
    unit = FLEET[0]
    fault = TransportFault(MINUTE_MS, MINUTE_MS, 60_000)
    sample = next(sample for sample in CLEAN if sample.unit is unit and sample.ts_ms > START_MS)
    [probe] = Disturbance([unit], SEED, START_MS, {Kind.CLOCK_SKEW: fault}).judge(sample)
    assert probe.ts_ms != sample.ts_ms
    # A run that begins just where that reading is shifted to.
    [moved] = Disturbance([unit], SEED, probe.ts_ms, {Kind.CLOCK_SKEW: fault}).judge(sample)
    assert moved.ts_ms == probe.ts_ms + 1


def test_a_stuck_sensor_repeats_its_episodes_first_value() -> None:
    found, truth = disturbed(only(Kind.STUCK_SENSOR))
    first: dict[int, float] = {}
    changed = 0
    for (_, item), sample in zip(found, CLEAN, strict=True):
        assert isinstance(item, Sample)
        episode = struck(sample, truth)
        values = sample.named()
        if episode is not None:
            assert episode.signal is not None
            assert episode.unit == sample.unit.id
            values[episode.signal] = first.setdefault(id(episode), values[episode.signal])
            changed += values != sample.named()
        assert item.named() == values
        assert item._replace(values=sample.values) == sample
    assert changed > len(FLEET)
    assert len({episode.signal for episode in truth}) > 5


def test_a_wrong_type_is_sent_in_one_signal_that_the_truth_names() -> None:
    found, truth = disturbed(only(Kind.WRONG_TYPE))
    count = 0
    for (_, item), sample in zip(found, CLEAN, strict=True):
        episode = struck(sample, truth)
        if episode is None:
            assert item == sample
            continue
        assert item == Sending(sample, sample.ts_ms, sample.ts_ms, Treatment.WRONG_TYPE, episode.signal)
        body = sparkplug.decode(payloads.data(sample, 10, 3, False, as_text=episode.signal))
        texts = [metric for metric in body.metrics if isinstance(metric.value, str)]
        [position] = [i for i, name in enumerate(sample.shape.names) if name == episode.signal]
        assert [metric.alias for metric in texts] == [10 + sample.shape.positions[position]]
        assert len(body.metrics) == len(sample.values)
        count += 1
    assert count == sum(episode.readings for episode in truth) > len(FLEET)


def test_garbage_comes_before_readings_and_harms_none() -> None:
    found, truth = disturbed(only(Kind.GARBAGE_PAYLOAD))
    bodies = set()
    garbage = [item for _, item in found if isinstance(item, Sending)]
    assert [item for _, item in found if isinstance(item, Sample)] == CLEAN
    for sending in garbage:
        assert sending.treatment is Treatment.GARBAGE
        body = payloads.garbage(sending.sample)
        with pytest.raises(BadReading):
            sparkplug.decode(body)
        bodies.add(body)
    assert len(bodies) == len(garbage) == sum(episode.readings for episode in truth) > len(FLEET)
    assert all(episode.unit is None for episode in truth)


def test_a_storm_takes_its_share_of_nodes_at_one_time_and_each_once() -> None:
    fault = TransportFault(MINUTE_MS, MINUTE_MS // 2, share=0.5)
    found, truth = disturbed({Kind.RECONNECT_STORM: fault})
    sendings = [(at_ms, item) for at_ms, item in found if isinstance(item, Sending)]
    lost = Counter((item.unit.enterprise.id, at_ms // fault.every_ms) for at_ms, item in sendings)
    assert set(lost.values()) == {1}
    assert len(lost) == len(truth) == sum(episode.readings for episode in truth)
    by_start = defaultdict(set)
    for episode in truth:
        by_start[episode.start_ms].add(episode.node)
    nodes = {unit.enterprise.id for unit in FLEET}
    assert 10 <= len(by_start) <= 13
    assert len(set(map(frozenset, by_start.values()))) > 1
    assert 0.3 < len(truth) / (len(nodes) * len(by_start)) < 0.7
    assert [item for _, item in found if isinstance(item, Sample)] == CLEAN
    for at_ms, item in sendings:
        assert struck(item.sample, truth) is not None
        assert at_ms == item.made_ms


def test_attackers_are_the_same_nodes_for_the_whole_run_and_do_what_the_truth_says() -> None:
    _, some = disturbed({Kind.ATTACK: replace(PLAN[Kind.ATTACK], share=0.34)})
    nodes = {unit.enterprise.id for unit in FLEET}
    by_window: dict[int, set[str]] = defaultdict(set)
    for episode in some:
        by_window[episode.start_ms // (5 * MINUTE_MS)].add(episode.node)
    assert 0 < len(set().union(*by_window.values())) < len(nodes)
    assert by_window[START_MS // (5 * MINUTE_MS) + 1] == set().union(*by_window.values())  # a whole window

    found, truth = disturbed(only(Kind.ATTACK))
    assert {episode.method for episode in truth} == set(Attack)
    owners = {unit.id: unit for unit in FLEET}
    for _, item in found:
        if isinstance(item, Sending) and item.treatment is Treatment.SPOOFED:
            assert item.target is not None
            target = owners[item.target].enterprise
            alone = not any(
                each.enterprise.county == item.unit.enterprise.county
                and each.enterprise != item.unit.enterprise
                for each in FLEET
            )
            assert (target == item.unit.enterprise) is alone
            assert target.county == item.unit.enterprise.county
    clean = {(sample.unit.id, sample.ts_ms): sample for sample in CLEAN}
    injected = [e for e in truth if e.method is Attack.INJECT]
    left = [item for _, item in found if isinstance(item, Sample) and item != clean[item.unit.id, item.ts_ms]]
    assert len(left) == sum(e.readings for e in injected) > 0
    outside = 0
    for sample in left:
        signal = CATALOGUE[sample.unit.class_name].base_signal
        before = clean[sample.unit.id, sample.ts_ms].named()
        value = sample.named()[signal.name]
        assert {**before, signal.name: value} == sample.named()
        outside += not signal.low <= value <= signal.high
        # The wire carries the value to its last digit.
        sent = sparkplug.decode(payloads.data(sample, 0, 0, False)).metrics
        place = sample.shape.names.index(signal.name)
        assert signal.round(float(str(sent[place].value))) == value
    assert outside > 0


def test_an_attack_runs_against_this_machine_only() -> None:
    text = TEXT + "transport:\n  attack: {every: 5m, for: 1m}\n"
    for host in ("127.0.0.1", "localhost", "[::1]"):
        RunConfig(f"mqtt://{host}:1883", parse_scenario(text, "x")).brokers()
    for host in ("192.0.2.7", "broker.example", "127.0.0.1,192.0.2.7"):
        with pytest.raises(ConfigError, match="loopback"):
            RunConfig(f"mqtt://{host}", parse_scenario(text, "x")).brokers()


def test_a_replayed_message_has_its_number_again_and_a_forged_one_another() -> None:
    unit = FLEET[0]
    messages = NodeMessages(unit.enterprise.county, unit.enterprise.id, False)
    device = Device(unit, 0, "topic")
    sample = next(each for each in CLEAN if each.unit is unit and each.ts_ms > START_MS)

    def of(treatment: Treatment | None) -> int | None:
        if treatment is None:
            return sparkplug.decode(messages.reading(device, sample, False)[1]).seq
        sending = Sending(sample, sample.ts_ms, sample.ts_ms, treatment, target="somebody-elses")
        return sparkplug.decode(messages.disturbed(device, sending, False)[1]).seq

    treatments = (None, Treatment.REPLAYED, None, Treatment.FORGED, Treatment.SPOOFED, None)
    assert [of(each) for each in treatments] == [1, 1, 2, 103, 3, 4]
    [topic, _] = messages.disturbed(
        device, Sending(sample, 1, 1, Treatment.SPOOFED, target="somebody-elses"), False
    )
    assert topic == f"spBv1.0/{unit.enterprise.county}/DDATA/{unit.enterprise.id}/somebody-elses"


def test_all_at_once_each_reading_has_one_fate() -> None:
    found, truth = disturbed(PLAN)
    readings = {kind: sum(e.readings for e in truth if e.kind is kind) for kind in Kind}
    assert all(readings.values())
    treatments = Counter(item.treatment if isinstance(item, Sending) else None for _, item in found)
    assert treatments[Treatment.WRONG_TYPE] == readings[Kind.WRONG_TYPE]
    attacks = Counter({method: sum(e.readings for e in truth if e.method is method) for method in Attack})
    assert all(attacks.values())
    assert treatments[Treatment.GARBAGE] == readings[Kind.GARBAGE_PAYLOAD] + attacks[Attack.FLOOD]
    assert treatments[Treatment.SPOOFED] == attacks[Attack.SPOOF]
    assert treatments[Treatment.REPLAYED] == attacks[Attack.REPLAY]
    assert treatments[Treatment.FORGED] == attacks[Attack.FORGE]
    assert treatments[Treatment.DISCONNECT] == readings[Kind.RECONNECT_STORM]
    assert treatments[Treatment.COPY] == readings[Kind.DUPLICATED]
    assert treatments[Treatment.LATE] == readings[Kind.LATE]
    assert 0 < treatments[Treatment.OFFLINE] < readings[Kind.OFFLINE]
    added = [Treatment.GARBAGE, Treatment.DISCONNECT, Treatment.COPY, Treatment.OFFLINE]
    added += [Treatment.SPOOFED, Treatment.REPLAYED, Treatment.FORGED]
    passed = treatments.total() - sum(treatments[each] for each in added)
    assert passed == len(CLEAN) - readings[Kind.MISSING] - readings[Kind.OFFLINE]


@pytest.mark.parametrize("count", [2, 7])
def test_shards_have_the_faults_of_the_whole_fleet(count: int) -> None:
    def by_node(found: list[tuple[int, Sample | Sending]]) -> dict[str, list[Sample | Sending]]:
        nodes = defaultdict(list)
        for _, item in found:
            known = item._replace(target=None) if isinstance(item, Sending) else item
            nodes[item.unit.enterprise.id].append(known)  # who is spoofed depends on who else is there
        return nodes

    whole, truth = disturbed(PLAN)
    nodes: dict[str, list[Sample | Sending]] = {}
    of_shards: list[Episode] = []
    for index in range(1, count + 1):
        part, part_truth = disturbed(PLAN, [unit for unit in FLEET if Shard(index, count).holds(unit)])
        nodes |= by_node(part)
        of_shards += part_truth
    assert nodes == by_node(whole)  # each node is given the same in the same order
    assert sorted(of_shards, key=repr) == sorted(truth, key=repr)


def test_a_units_faults_do_not_change_when_the_fleet_is_smaller_or_the_run_begins_later() -> None:
    def fates(units: list[Unit], start_ms: int) -> list[tuple[str, int, list[tuple[Treatment | None, int]]]]:
        disturbance = Disturbance(units, SEED, start_ms, PLAN)
        found = []
        for moment in of(units):
            for sample in moment.samples:
                fate = [
                    (item.treatment if isinstance(item, Sending) else None, item.ts_ms)
                    for item in disturbance.judge(sample)
                    if not (
                        isinstance(item, Sending) and item.treatment is Treatment.DISCONNECT
                    )  # one of its node
                ]
                if moment.ts_ms > START_MS + 6 * MINUTE_MS and sample.unit.id in few:
                    found.append((sample.unit.id, sample.ts_ms, fate))
        return found

    few = {unit.id for unit in FLEET[:30]}
    one = fates(FLEET, START_MS)
    assert fates(FLEET[:30], START_MS) == one
    assert fates(FLEET, START_MS + MINUTE_MS) == one
    assert len({treatment for _, _, fate in one for treatment, _ in fate}) > 5


def test_another_seed_has_other_faults() -> None:
    def truth(seed: int) -> list[Episode]:
        disturbance = Disturbance(FLEET, seed, START_MS, only(Kind.MISSING))
        for sample in CLEAN:
            disturbance.judge(sample)
        return disturbance.ground_truth()

    assert [e.start_ms for e in truth(1)] != [e.start_ms for e in truth(2)]
    assert truth(1) == truth(1)


def test_what_is_held_is_known_by_its_oldest_reading() -> None:
    disturbance = Disturbance(FLEET, SEED, START_MS, only(Kind.LATE, Kind.OUT_OF_ORDER))
    waiting: dict[tuple[str, int], str] = {}
    most = 0
    for moment in MOMENTS:
        made = {(sample.unit.id, sample.ts_ms): sample.unit.enterprise.id for sample in moment.samples}
        waiting |= made
        for item in disturbance.through(moment):
            del waiting[item.unit.id, item.ts_ms]
        oldest: dict[str, int] = {}
        for (_, ts_ms), node in waiting.items():
            oldest[node] = min(ts_ms, oldest.get(node, ts_ms))
        assert disturbance.held() == oldest
        most = max(most, len(oldest))
    assert most > 1


def test_the_ground_truth_is_a_parquet_file(tmp_path: Path) -> None:
    _, truth = disturbed(PLAN)
    file = episodes.save(truth, tmp_path / "state")
    assert [path.name for path in file.parent.iterdir()] == ["transport.parquet"]
    rows = duckdb.sql(
        'SELECT kind, unit, node, epoch_ms(start), epoch_ms("end"), readings, signal, shift_ms, drift_ppm, '
        f"method FROM '{file}'"
    ).fetchall()
    names = ("kind", "unit", "node", "start_ms", "end_ms", "readings", "signal", "shift_ms", "drift_ppm")
    names += ("method",)
    assert rows == [tuple(getattr(episode, name) for name in names) for episode in truth]
    assert {row[0] for row in rows} == set(Kind)
    assert episodes.save([], tmp_path).exists()
    with pytest.raises(ConfigError, match="cannot be written"):
        episodes.save(truth, file)


def manifest(acked_through_ms: int, *, finished: bool = True) -> Manifest:
    """A run of all faults, of which each node acknowledged so much."""
    more = {Kind.CLOCK_SKEW: ", by: 90s, drift_ppm: 2000", Kind.RECONNECT_STORM: ", share: 1"}
    lines = "".join(f"  {kind}: {{every: 5m, for: 1m{more.get(kind, '')}}}\n" for kind in Kind)
    text = f"{SCENARIO.text}transport:\n{lines}"
    rough = parse_scenario(text, "x")
    assert rough.transport == PLAN
    record = ScenarioRecord(rough.name, rough.sha256, text)
    nodes = {unit.enterprise.id: NodeRecord(acked_through_ms, 1, 1, 0) for unit in FLEET}
    beyond_ms = PLAN[Kind.CLOCK_SKEW].largest_shift_ms
    return Manifest(record, SEED, START_MS, 120, "1/1", None, UNTIL_MS, finished, nodes, beyond_ms)


def test_a_manifest_tells_what_faults_leave_in_the_order_of_the_timestamps() -> None:
    run = manifest(UNTIL_MS)
    disturbance = Disturbance(FLEET, SEED, START_MS, PLAN)
    sent = [item for sample in CLEAN for item in disturbance.judge(sample)]
    kept = [
        item.sample if isinstance(item, Sending) else item
        for item in sent
        if isinstance(item, Sample) or (item.counts and item.refused is None)
    ]
    refused: Counter[Reason] = Counter()
    readings = list(run.readings(refused))
    assert [reading.ts_ms for reading in readings] == sorted(sample.ts_ms for sample in kept)
    assert {(r.unit, r.ts_ms): r.values for r in readings} == {(s.unit.id, s.ts_ms): s.named() for s in kept}
    assert len(readings) == len(kept)
    truth = run.transport_truth()
    assert truth == disturbance.ground_truth()
    assert refused == {
        Reason.WRONG_TYPE: sum(e.readings for e in truth if e.kind is Kind.WRONG_TYPE),
        Reason.BAD_PAYLOAD: sum(
            e.readings for e in truth if e.kind is Kind.GARBAGE_PAYLOAD or e.method is Attack.FLOOD
        ),
        Reason.WRONG_OWNER: sum(e.readings for e in truth if e.method is Attack.SPOOF),
    }


def test_what_was_not_acknowledged_is_not_expected_whatever_its_clock_said() -> None:
    half_ms = START_MS + 5 * MINUTE_MS
    disturbance = Disturbance(FLEET, SEED, START_MS, only(Kind.CLOCK_SKEW))
    shifted = [(sample.ts_ms, item) for sample in CLEAN for item in disturbance.judge(sample)]
    later = {(item.unit.id, item.ts_ms) for made_ms, item in shifted if made_ms > half_ms}
    part = {(reading.unit, reading.ts_ms) for reading in manifest(half_ms).readings()}
    assert min(ts_ms for _, ts_ms in later) < half_ms < max(ts_ms for _, ts_ms in part)
    assert not part & later


def node_of(units: list[Unit], capacity: int) -> EdgeNode:
    owner = units[0].enterprise
    broker = BrokerAddress.from_url("mqtt://127.0.0.1:1")
    return EdgeNode(owner, units, NodeConfig(broker, capacity), Flow(), lambda: None)


def test_an_edge_node_knows_what_waits_by_when_it_was_made() -> None:
    mine = [unit for unit in FLEET if unit.enterprise == FLEET[0].enterprise]
    first, *others = [sample for sample in CLEAN if sample.unit is mine[0]]
    node = node_of([mine[0]], 3)
    node.offer(first)
    assert node.acked_through_ms == first.ts_ms - 1
    node.offer(others[2])
    node.offer(Sending(others[0], others[0].ts_ms, others[0].ts_ms, Treatment.OVERTAKEN))
    node.offer(Sending(others[0], others[0].ts_ms, others[0].ts_ms, Treatment.COPY))
    assert (node.backlog.made, node.pending, node.backlog.made_until_ms) == (3, 3, others[2].ts_ms)
    # Only the earliest sample counts, wherever it is in the queue.
    node.backlog.devices[first.unit.id].firsts = {}
    assert node.acked_through_ms == others[0].ts_ms - 1
    # A full buffer drops readings; a copy that goes is no reading lost.
    for sample in others[3:6]:
        node.offer(
            Sending(
                sample._replace(ts_ms=sample.ts_ms - 90_000), sample.ts_ms, sample.ts_ms, Treatment.SHIFTED
            )
        )
    assert (node.backlog.made, node.backlog.dropped, node.pending) == (6, 2, 4)
    assert node.backlog.made_until_ms == others[5].ts_ms
    assert node.acked_through_ms == others[3].ts_ms - 1


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("transport: 1\n", 6, "'transport' must be lines of 'key: value'"),
        (
            "transport:\n  mising: {every: 1h, for: 1m}\n",
            7,
            "'transport' has no 'mising': use one of reconnect_storm",
        ),
        ("transport:\n  missing: yes\n", 7, "'missing' must be lines"),
        ("transport:\n  missing: {every: 1h}\n", 7, "'missing' needs 'for': every, for"),
        ("transport:\n  missing:\n    for: 1m\n", 8, "'missing' needs 'every'"),
        ("transport:\n  missing:\n    every: 1h\n    for: soon\n", 9, "'for' must be a duration like 90s"),
        ("transport:\n  missing: {every: 1h, for: 2h}\n", 7, "'for' must be more than 0, and no longer than"),
        ("transport:\n  missing: {every: 1h, for: 0s}\n", 7, "'for' must be more than 0"),
        ("transport:\n  late: {every: 59s, for: 1s}\n", 7, "'every' must be 60s or more"),
        ("transport:\n  late: {every: 1h, for: 1m, by: 1m}\n", 7, "'late' has no 'by'"),
        ("transport:\n  clock_skew: {every: 1h, for: 1m}\n", 7, "'clock_skew' needs 'by': every, for, by"),
        ("transport:\n  clock_skew: {every: 1h, for: 1m, by: 0s}\n", 7, "'by' must be 1s or more"),
        ("transport:\n  clock_skew: {every: 1h, for: 1m, by: 4m}\n", 7, "less than 240s"),
        (
            "transport:\n  clock_skew: {every: 2h, for: 2h, by: 3m, drift_ppm: 10000}\n",
            7,
            "'by' must be 1s or more, and with its drift less than 240s",
        ),
        ("transport:\n  clock_skew: {every: 1h, for: 1m, by: 1m, drift_ppm: -1}\n", 7, "whole number from 0"),
        ("transport:\n  reconnect_storm: {every: 1h, for: 1m}\n", 7, "'reconnect_storm' needs 'share'"),
        ("transport:\n  reconnect_storm: {every: 1h, for: 1m, share: 2}\n", 7, "from 0 to 1"),
        ("transport:\n  late: {every: 1h, for: 1m}\n  late: {every: 1h, for: 1m}\n", 8, "given twice"),
    ],
)
def test_a_mistaken_transport_fault_is_told_with_its_line(text: str, line: int, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_scenario(TEXT + text, "plant.yaml")
    assert str(caught.value).startswith(f"plant.yaml, line {line}: ")
    assert says in str(caught.value)


def test_the_documented_scenario_has_all_faults_and_its_defaults_none() -> None:
    page = (Path(__file__).parents[2] / "docs" / "transport-faults.md").read_text()
    example = page.split("```yaml\n", 1)[1].split("```", 1)[0]
    assert set(parse_scenario(example, "docs").transport) == set(Kind)
    assert SCENARIO.transport == parse_scenario(TEXT, "x").transport == {}


def test_signals_that_are_struck_are_in_every_reading() -> None:
    _, truth = disturbed(only(Kind.STUCK_SENSOR, Kind.WRONG_TYPE))
    classes = {unit.id: CATALOGUE[unit.class_name] for unit in FLEET}
    for episode in truth:
        assert episode.unit is not None
        assert episode.signal is not None
        equipment = classes[episode.unit]
        assert equipment.signal(episode.signal).interval_s == equipment.base_interval_s


def test_no_shift_is_larger_than_what_receivers_believe() -> None:
    assert LARGEST_SHIFT_MS < MAX_AHEAD_MS // 2
