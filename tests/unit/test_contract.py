"""The contract between the parts: topics, payloads, catalogue, places, storage."""

from __future__ import annotations

import importlib
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qilu_common.broker import SERVICE_USERS, BrokerAddress, is_service
from qilu_common.secrets import secret
from qilu_contract.catalogue.classes import CATALOGUE, EVENTS
from qilu_contract.catalogue.places import CITIES, COUNTIES, INDUSTRIES, city_of
from qilu_contract.catalogue.targets import TARGETS
from qilu_contract.errors import BadReading, ConfigError, Reason
from qilu_contract.storage import MEASUREMENTS, Point, line_protocol
from qilu_contract.wire import json_payload, sparkplug, topics
from qilu_contract.wire.clock import MAX_AHEAD_MS, JudgingClock, RunClock, decode, wall_ms
from qilu_contract.wire.ids import is_id, unit_id
from qilu_contract.wire.sparkplug import DataType, Metric, Payload

ROOT = Path(__file__).parents[2]


def test_the_standard_librarys_platform_is_not_shadowed() -> None:
    assert not (ROOT / "platform" / "__init__.py").exists()
    assert importlib.import_module("platform").python_version()


# --- topics

ids = st.from_regex(r"[a-z0-9-]{1,32}", fullmatch=True)


@given(ids, ids, ids)
def test_topics_read_back_what_was_built(county: str, enterprise: str, unit: str) -> None:
    built = topics.sparkplug("DDATA", county, enterprise, unit)
    assert topics.parse(built) == topics.SparkplugTopic(county, "DDATA", enterprise, unit)
    assert topics.parse(topics.sparkplug("NBIRTH", county, enterprise)) == topics.SparkplugTopic(
        county, "NBIRTH", enterprise, None
    )
    assert topics.parse(topics.telemetry(county, enterprise, unit)) == topics.DoorTopic(
        topics.JSON, county, enterprise, unit
    )
    assert topics.parse(topics.state(enterprise)) == topics.StateTopic(enterprise)


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "spBv1.0",
        "spBv1.0/370202/NDATA",
        "spBv1.0/370202/NDATA/e1/unit",  # node messages name no device
        "spBv1.0/370202/DDATA/e1",  # device messages do
        "spBv1.0/370202/WHAT/e1",
        "spBv1.0/370202/NDATA/E1",
        "spAv1.0/370202/NDATA/e1",
        "qilu/v1/370202/e1/u1",
        "qilu/v1/370202/e1/u1/telemetry/more",
        "qilu/v1/370202/e 1/u1/telemetry",
        "qilu/v1/370202//u1/telemetry",
        f"qilu/v1/370202/e1/{'u' * 33}/telemetry",
        "qilu/v1/370202/e1/u1\n/telemetry",
    ],
)
def test_a_topic_outside_the_grammar_is_refused(topic: str) -> None:
    with pytest.raises(BadReading) as caught:
        topics.parse(topic)
    assert caught.value.reason is Reason.BAD_TOPIC


@given(st.text())
def test_any_text_as_a_topic_is_parsed_or_refused(text: str) -> None:
    try:
        topics.parse(text)
    except BadReading as error:
        assert error.reason is Reason.BAD_TOPIC


# --- Sparkplug

aliases = st.integers(0, 2**63)
times = st.none() | aliases
finite32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
int32, int64 = st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63), 2**63 - 1)
typed_values = st.one_of(
    st.tuples(st.just(DataType.FLOAT), finite32 | st.none()),
    st.tuples(st.just(DataType.INT32), st.integers(-(2**31), 2**31 - 1)),
    st.tuples(st.just(DataType.INT64), st.integers(-(2**63), 2**63 - 1)),
    st.tuples(st.just(DataType.BOOLEAN), st.booleans()),
    st.tuples(st.just(DataType.STRING), st.text()),
)
properties = st.dictionaries(st.text(), st.text())
metrics = st.builds(
    lambda name, alias, ts_ms, typed, properties, historical: Metric(
        name, alias, ts_ms, *typed, properties, historical
    ),
    *(st.none() | st.text(), st.none() | aliases, times, typed_values, properties, st.booleans()),
)


@given(st.builds(Payload, ts_ms=times, seq=st.integers(0, 255), metrics=st.lists(metrics)))
def test_sparkplug_payloads_read_back_what_was_encoded(payload: Payload) -> None:
    assert sparkplug.decode(sparkplug.encode(payload)) == payload


def test_births_carry_engineering_units_and_a_data_metric_its_alias_and_value_alone() -> None:
    birth = Metric("power_in", 7, 1_000, DataType.FLOAT, 11.5, {"engUnit": "kW"})
    assert sparkplug.decode(sparkplug.encode(Payload(1_000, 0, [birth]))).metrics == [birth]
    data = sparkplug.decode(sparkplug.encode(Payload(1_000, 1, [Metric(alias=7, value=11.5)]))).metrics[0]
    assert (data.name, data.alias, data.datatype, data.value) == (None, 7, 0, 11.5)


@pytest.mark.parametrize("value", [3, -3, -(2**31)])
def test_integers_without_a_datatype_are_mended_by_the_births(value: int) -> None:
    sent = sparkplug.encode(Payload(1, 1, [Metric(alias=1, datatype=DataType.INT32, value=value)]))
    bare = sparkplug.decode(sent)  # with the datatype: signed at once
    assert bare.metrics[0].value == value
    assert sparkplug.integer(value % 2**32, DataType.INT32) == value


@given(st.binary(max_size=200))
def test_any_bytes_are_a_payload_or_refused(body: bytes) -> None:
    try:
        sparkplug.decode(body)
    except BadReading as error:
        assert error.reason is Reason.BAD_PAYLOAD


def test_a_value_that_does_not_fit_its_type_is_refused_when_encoding() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        sparkplug.encode(Payload(1, 1, [Metric("a", 1, None, DataType.FLOAT, "warm")]))


def test_the_generated_protobuf_module_belongs_to_the_proto(tmp_path: Path) -> None:
    source = ROOT / "contract"
    out = [f"-I{source}", f"--python_out={tmp_path}", f"--pyi_out={tmp_path}"]
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", *out, "qilu_contract/sparkplug_b.proto"], check=True
    )
    for name in ("sparkplug_b_pb2.py", "sparkplug_b_pb2.pyi"):
        made = (tmp_path / "qilu_contract" / name).read_text()
        assert made == (source / "qilu_contract" / name).read_text()


# --- JSON (what is accepted: test_json_door.py)


@given(st.binary(max_size=100))
def test_any_bytes_are_json_or_refused(body: bytes) -> None:
    try:
        json_payload.decode("u", body)
    except BadReading:
        pass


# --- catalogue and places


def test_every_signal_stands_within_its_bounds_and_says_where_it_comes_from() -> None:
    first = {"blast_furnace", "wind_turbine", "motor", "boiler", "compressor", "cnc", "robot", "reactor"}
    assert first | {"pump", "loom", "pasteuriser", "oven"} == CATALOGUE.keys()
    for class_ in CATALOGUE.values():
        assert len({signal.name for signal in class_.signals}) == len(class_.signals)
        for signal in class_.signals:
            assert signal.low <= signal.nominal <= signal.high, signal
            assert signal.mark in "SCNA"
            assert signal.source
            assert signal.interval_s % class_.base_interval_s == 0
            assert signal.per_event in EVENTS
            assert math.log10(signal.resolution) == pytest.approx(round(math.log10(signal.resolution)))


def test_every_class_has_three_faults_at_least_and_meters() -> None:
    for class_ in CATALOGUE.values():
        assert len({fault.name for fault in class_.faults}) == len(class_.faults) >= 3
        for fault in class_.faults:
            assert fault.signature
            assert fault.source
            assert fault.mark in "SCNA"
            assert fault.mean_hours_between > fault.develop_h + fault.repair_h
            assert fault.repair_h > 0.0
            assert class_.fault(fault.name) is fault
        for name, unit in (("energy_kWh", "kWh"), ("co2_kg", "kg")):
            assert class_.signal(name).unit == unit
            assert class_.signal(name).is_wide


@given(
    st.floats(-1e6, 1e6),
    st.sampled_from([signal for class_ in CATALOGUE.values() for signal in class_.signals]),
)
def test_rounding_one_value_is_rounding_many(value: float, signal: object) -> None:
    one = signal.round(value)  # type: ignore[attr-defined]
    assert one == signal.round_all(np.array([value]))[0]  # type: ignore[attr-defined]
    assert signal.round(one) == one  # type: ignore[attr-defined]
    # float32 has 24 bits: above that many steps of the resolution it cannot tell them apart.
    told_apart = abs(value) / signal.resolution < 2**23  # type: ignore[attr-defined]
    assert signal.round(float(np.float32(one))) == one or not told_apart  # type: ignore[attr-defined]


def test_136_counties_in_16_cities_and_every_unit_id_is_an_id() -> None:
    assert len(CITIES) == 16
    assert sum(county.kind != "zone" for county in COUNTIES.values()) == 136
    assert {county.city for county in COUNTIES.values()} == CITIES.keys()
    assert all(city_of(county.code) == county.city for county in COUNTIES.values())
    assert all(is_id(unit_id("370202", name, 9_999_999)) for name in CATALOGUE)
    assert {target.target for target in TARGETS.values()} == {300_000, 10_000_000, 500, 30}
    assert "C31" in INDUSTRIES


# --- storage


def test_a_tag_and_a_field_never_share_a_name() -> None:
    for measurement in MEASUREMENTS.values():
        assert not set(measurement.tags) & measurement.fields.keys()
        assert measurement.counted_by in measurement.fields


def test_line_protocol() -> None:
    point = Point("programme", ("city", "a b,c=d"), 1_500, {"units_registered": 3})
    pipeline = Point("pipeline", ("qilu",), 2_000, {"accepted": 1, "lag_ms": 2})
    assert line_protocol([point, pipeline]) == (
        b"programme,scope=city,code=a\\ b\\,c\\=d units_registered=3i 1500\n"
        b"pipeline,gateway=qilu accepted=1i,lag_ms=2.0 2000"
    )


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from([signal.name for signal in CATALOGUE["motor"].signals]),
            st.floats(allow_nan=False, allow_infinity=False),
            min_size=1,
        )
    )
)
def test_lines_hold_each_float_exactly(all_fields: list[dict[str, float]]) -> None:
    tags = ("3702", "370202", "C34", "e", "u")
    points = [Point("motor", tags, ts_ms, fields) for ts_ms, fields in enumerate(all_fields)]
    lines = line_protocol(points).decode().splitlines()
    assert len(lines) == len(points)
    for line, point in zip(lines, points, strict=True):
        _, body, ts = line.split(" ")
        found = dict(pair.split("=") for pair in body.split(","))
        assert {name: float(text) for name, text in found.items()} == point.fields
        assert int(ts) == point.ts_ms


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "1,x=2", None, [1.0], {"a": 1.0}])
def test_no_line_holds_what_is_no_value(value: Any) -> None:
    good = Point("motor", ("3702", "370202", "C34", "e", "u"), 1, {"power_in": 1.0})
    with pytest.raises((ValueError, TypeError)):
        line_protocol([good, good._replace(fields={"power_in": value})])


# --- addresses, clock and secrets


@pytest.mark.parametrize("url", ["http://x", "mqtt://", "mqtt://x:port", "localhost:1883"])
def test_a_broker_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="broker"):
        BrokerAddress.from_url(url)


def test_tls_is_prepared_by_files_and_what_they_lack_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("QILU_MQTT_CERTIFICATE_FILE", raising=False)
    monkeypatch.delenv("QILU_MQTT_KEY_FILE", raising=False)
    monkeypatch.delenv("QILU_MQTT_CA_FILE", raising=False)
    address = BrokerAddress.from_url("mqtts://host")
    assert BrokerAddress.from_url("mqtt://host").tls_context() is None
    public = address.tls_context()
    assert public is not None
    assert public.check_hostname
    assert public is address.tls_context()
    monkeypatch.setenv("QILU_MQTT_KEY_FILE", str(tmp_path / "node.key"))
    with pytest.raises(ConfigError, match="give both"):
        address.tls_context()
    monkeypatch.setenv("QILU_MQTT_CERTIFICATE_FILE", str(tmp_path / "node.crt"))
    with pytest.raises(ConfigError, match=r"QILU_MQTT_CERTIFICATE_FILE.*node.crt.*No such file"):
        address.tls_context()
    (tmp_path / "ca.crt").write_text("nonsense")
    monkeypatch.setenv("QILU_MQTT_CA_FILE", str(tmp_path / "ca.crt"))
    with pytest.raises(ConfigError, match=r"QILU_MQTT_CA_FILE.*ca.crt"):
        address.tls_context()


def test_no_edge_node_may_have_a_services_name() -> None:
    assert all(is_service(name) for name in (*SERVICE_USERS, "qilu-gateway-qilu"))
    assert not any(is_service(name) for name in ("my-works", "370202-e00007", "gateways"))


def test_broker_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QILU_MQTT_USER", raising=False)
    monkeypatch.delenv("QILU_MQTT_PASSWORD", raising=False)
    plain, tls = BrokerAddress.from_url("mqtt://u%40x:p%3A@host"), BrokerAddress.from_url("mqtts://host:1")
    assert (plain.host, plain.port, plain.user, plain.password, plain.tls) == (
        "host",
        1883,
        "u@x",
        "p:",
        False,
    )
    assert (tls.port, tls.tls, tls.user) == (1, True, None)


def test_ages_are_judged_by_the_later_of_wall_and_run_clock() -> None:
    clock = JudgingClock()
    before = wall_ms()
    assert before <= clock.now_ms() <= wall_ms()
    clock.hear(decode(RunClock(now=before + 10**9, speed=0.0).encode()))
    assert clock.now_ms() == before + 10**9
    clock.hear(RunClock(now=5, speed=1.0))
    assert clock.now_ms() >= before


@pytest.mark.parametrize("speed", [1.0, 60.0, 30 * 86_400.0])
def test_a_run_whose_announcer_is_silent_goes_on_for_ten_minutes_of_its_time_at_most(speed: float) -> None:
    clock, now = JudgingClock(), wall_ms()
    announced = now + 10 * 86_400_000
    clock.hear(RunClock(announced, speed), now - 86_400_000)  # a day ago, or by an earlier process
    assert clock.now_ms() == announced + MAX_AHEAD_MS
    clock.hear(RunClock(announced, speed), now + 86_400_000)  # the wall's clock was set back
    assert clock.now_ms() == announced


def test_a_readings_age_is_told_by_the_clock_that_its_sender_has() -> None:
    clock, now = JudgingClock(), wall_ms()
    day = 86_400_000
    assert abs(clock.age_ms(now - 5_000) - 5_000) < 5_000
    for run in (now - 500 * day, now + 500 * day):
        clock.hear(RunClock(run, 0.0))
        assert clock.age_ms(run - 3_000) == 3_000
        assert abs(clock.age_ms(now - 5_000) - 5_000) < 5_000
    assert clock.age_ms(now + 600 * day) == 0


def test_a_secret_comes_from_the_variable_or_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("QILU_TRIAL", raising=False)
    assert secret("QILU_TRIAL") is None
    (tmp_path / "key").write_text("s3cret\n")
    monkeypatch.setenv("QILU_TRIAL_FILE", str(tmp_path / "key"))
    assert secret("QILU_TRIAL") == "s3cret"
    monkeypatch.setenv("QILU_TRIAL", "other")
    with pytest.raises(ConfigError, match="both set"):
        secret("QILU_TRIAL")
    monkeypatch.delenv("QILU_TRIAL")
    monkeypatch.setenv("QILU_TRIAL_FILE", str(tmp_path / "missing"))
    with pytest.raises(ConfigError, match="cannot be read"):
        secret("QILU_TRIAL")
