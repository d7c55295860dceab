"""Meaning of values: integers by their types, compressed payloads, quality, values that are not numbers, and
the types that a class declares."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from empty_state import EmptyState
from hypothesis import given
from hypothesis import strategies as st
from qilu_contract import sparkplug_b_pb2 as pb
from qilu_contract.catalogue.classes import Signal
from qilu_contract.errors import BadReading, Reason, Remark
from qilu_contract.readings import MIN_TIME_MS, Reading
from qilu_contract.wire import sparkplug, topics
from qilu_contract.wire.sparkplug import COMPRESSED, DataType, Metric, Payload, Unreadable
from qilu_gateway.read.births import Births
from qilu_gateway.read.checking import SIGNALS, check, check_units
from qilu_gateway.read.decoded import Decoded
from qilu_gateway.read.decoding import Decoder
from qilu_gateway.read.structures import flatten_all

NODE = ("370202", "370202-e00001")
UNIT = "370202-motor-0000001"
T0 = 1_700_000_000_000
NOW = T0 + 10**9
BITS = {DataType.INT8: 8, DataType.INT16: 16, DataType.INT32: 32, DataType.INT64: 64}


@pytest.fixture
def decoder() -> Decoder:
    return Decoder(Births(EmptyState()), 64 * 1024)  # type: ignore[arg-type]


def send(decoder: Decoder, type_: topics.MessageType, message: pb.Payload | bytes) -> Decoded:
    body = message if isinstance(message, bytes) else message.SerializeToString()
    device = UNIT if type_.startswith("D") else None
    return decoder.decode(topics.sparkplug(type_, *NODE, device), body, dup=False)


def flattened(decoded: Decoded) -> list[Reading]:
    found = flatten_all("motor", decoded.readings, lambda *_: None)
    return [each for each in found if isinstance(each, Reading)]


def payload(*metrics: dict[str, Any]) -> pb.Payload:
    return pb.Payload(timestamp=T0, seq=1, metrics=[pb.Metric(**metric) for metric in metrics])


def encodings(value: int, datatype: DataType) -> Iterator[tuple[str, int]]:
    """Every way in which encoders send a signed integer: field and number."""
    for bits, field in (
        (BITS[datatype], "int_value"),
        (32, "int_value"),
        (32, "long_value"),
        (64, "long_value"),
    ):
        if bits >= BITS[datatype] and bits <= (32 if field == "int_value" else 64):
            yield field, value % (1 << bits)


@pytest.mark.parametrize("addressed", ["name", "alias", "both", "alias and an empty name"])
@pytest.mark.parametrize("typed", [True, False])
@pytest.mark.parametrize("datatype", BITS)
def test_signed_integers_are_the_numbers_that_were_meant(
    decoder: Decoder, datatype: DataType, typed: bool, addressed: str
) -> None:
    edge = 1 << (BITS[datatype] - 1)
    named = {"name": "speed"} if addressed != "alias" else {}
    aliased = {"alias": 7} if addressed != "name" else {}
    born = {"datatype": datatype, "int_value": 1}
    assert send(decoder, "DBIRTH", payload({"name": "speed", **aliased, **born})).readings
    if addressed == "alias and an empty name":
        named = {"name": ""}
    for value in (-1, -42, -edge, 0, 1, edge - 1):
        for field, sent in encodings(value, datatype):
            kind = {"datatype": datatype} if typed else {}
            found = send(decoder, "DDATA", payload({**named, **aliased, **kind, field: sent}))
            assert found.readings == [Reading(UNIT, T0, {"speed": value})], (field, sent)


@given(st.sampled_from(list(BITS)), st.integers(0, 2**64 - 1))
def test_an_integer_has_one_meaning_or_none(datatype: DataType, sent: int) -> None:
    meant = {
        value
        for width in (BITS[datatype], 32, 64)
        if width >= BITS[datatype] and sent < 1 << width
        for value in [sent - (1 << width) if sent >> (width - 1) else sent]
        if -(1 << (BITS[datatype] - 1)) <= value < 1 << (BITS[datatype] - 1)
    }
    found = sparkplug.integer(sent, datatype)
    assert meant == (set() if isinstance(found, Unreadable) else {found})


@pytest.mark.parametrize(
    ("metric", "word"),
    [
        ({"datatype": DataType.INT8, "int_value": 300}, "300, which does not fit Int8"),
        ({"datatype": DataType.UINT8, "int_value": 256}, "does not fit UInt8"),
        ({"datatype": DataType.UINT32, "long_value": 2**32}, "does not fit UInt32"),
        ({"datatype": DataType.FLOAT, "int_value": 1093664768}, "FLOAT"),  # 11.0, as its bits
        ({"datatype": DataType.DATETIME, "long_value": T0}, "DATETIME"),
        ({"datatype": DataType.BOOLEAN, "int_value": 1}, "BOOLEAN"),
        ({"datatype": 77, "int_value": 1}, "77"),
        ({"datatype": DataType.STRING, "string_value": "11.2"}, "'11.2'"),
        ({"datatype": DataType.BYTES, "bytes_value": b"11"}, "b'11'"),
        ({"datatype": 24, "bytes_value": struct.pack("<2i", 1, 2)}, "b'"),
        ({"datatype": DataType.DATASET, "dataset_value": b"\x08\x01"}, "DataSet"),
        ({"datatype": DataType.DATASET, "dataset_value": b""}, "DataSet that its class does not declare"),
        ({"datatype": DataType.TEMPLATE, "template_value": b"\x0a\x011"}, "Template"),
        ({"extension_value": b""}, "extension"),
        ({"datatype": DataType.FLOAT}, "without a value"),
    ],
)
@pytest.mark.parametrize("type_", ["DBIRTH", "DDATA"])
def test_what_is_not_a_number_is_refused_with_a_reason(
    decoder: Decoder, type_: topics.MessageType, metric: dict[str, Any], word: str
) -> None:
    [reading] = flattened(send(decoder, type_, payload({"name": "power_in", **metric})))
    with pytest.raises(BadReading) as refused:
        check(reading, SIGNALS["motor"], NOW)
    assert refused.value.reason is Reason.WRONG_TYPE
    assert "power_in" in refused.value.detail
    assert word in refused.value.detail


def test_a_template_beside_signals_is_left_out_and_told(decoder: Decoder) -> None:
    template = {"name": "Motor/1", "datatype": DataType.TEMPLATE, "template_value": b""}
    good = {"name": "power_in", "datatype": DataType.DOUBLE, "double_value": 11.5}
    [reading] = flattened(send(decoder, "DDATA", payload(template, good)))
    told: list[tuple[Remark, str]] = []
    assert check(reading, SIGNALS["motor"], NOW, lambda *said: told.append(said)) == {"power_in": 11.5}
    assert told == [(Remark.WRONG_TYPE, "'Motor/1' is a Template that its class does not declare")]
    [reading] = flattened(send(decoder, "DDATA", payload(template)))
    with pytest.raises(BadReading) as refused:
        check(reading, SIGNALS["motor"], NOW)
    assert refused.value.reason is Reason.WRONG_TYPE


def test_an_integer_whose_type_nobody_gave_is_not_guessed(decoder: Decoder) -> None:
    found = send(decoder, "DDATA", payload({"name": "speed", "int_value": 65494}))
    assert ([bad.reason for bad in found.refused], found.rebirth) == ([Reason.NO_BIRTH], True)
    assert not found.readings
    # A birth that gives the name two types gives none.
    twice = [
        {"name": "speed", "alias": n, "datatype": n, "int_value": 1} for n in (DataType.INT8, DataType.INT16)
    ]
    send(decoder, "DBIRTH", payload(*twice))
    [reading] = send(decoder, "DDATA", payload({"name": "speed", "int_value": 210})).readings
    assert isinstance(reading.values["speed"], Unreadable)
    # The field of other values says what they are.
    assert send(decoder, "DDATA", payload({"name": "speed", "double_value": 2.5})).readings == [
        Reading(UNIT, T0, {"speed": 2.5})
    ]


GZIP = {"algorithm": "GZIP"}


def compressed(body: bytes, algorithm: str | None, inner: bytes | None = None) -> bytes:
    if inner is None:
        inner = gzip.compress(body) if (algorithm or "").upper() == "GZIP" else zlib.compress(body)
    metrics = [] if algorithm is None else [pb.Metric(name="algorithm", datatype=12, string_value=algorithm)]
    return pb.Payload(uuid=COMPRESSED, body=inner, seq=9, metrics=metrics).SerializeToString()


@pytest.mark.parametrize("algorithm", ["GZIP", "DEFLATE", "gzip", None, "bare"])
def test_compressed_payloads_say_what_they_say_uncompressed(decoder: Decoder, algorithm: str | None) -> None:
    body = payload(
        {"name": "power_in", "datatype": DataType.DOUBLE, "double_value": 11.5}
    ).SerializeToString()
    if algorithm == "bare":
        encoder = zlib.compressobj(wbits=-15)
        sent = compressed(body, "DEFLATE", encoder.compress(body) + encoder.flush())
    else:
        sent = compressed(body, algorithm)
    assert sparkplug.decode(sent) == sparkplug.decode(body)
    assert send(decoder, "DDATA", sent).readings == [Reading(UNIT, T0, {"power_in": 11.5})]


def test_a_compressed_birth_is_learned_and_the_outer_sequence_number_holds(decoder: Decoder) -> None:
    birth = pb.Payload(timestamp=T0, metrics=[pb.Metric(name="speed", alias=3, datatype=1, int_value=200)])
    assert send(decoder, "DBIRTH", compressed(birth.SerializeToString(), "GZIP")).readings == [
        Reading(UNIT, T0, {"speed": -56})
    ]
    data = pb.Payload(timestamp=T0, seq=10, metrics=[pb.Metric(alias=3, int_value=201)])
    found = send(decoder, "DDATA", data)
    assert (found.readings, found.gap) == ([Reading(UNIT, T0, {"speed": -55})], False)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (compressed(b"\0" * 65_537, "GZIP"), Reason.TOO_LARGE),
        (compressed(b"\0" * 50_000_000, "DEFLATE"), Reason.TOO_LARGE),
        (compressed(b"", "LZ4"), Reason.BAD_PAYLOAD),
        (compressed(b"", "GZIP", zlib.compress(b"x")), Reason.BAD_PAYLOAD),
        (compressed(b"", "GZIP", gzip.compress(b"x" * 100)[:-9]), Reason.BAD_PAYLOAD),
        (compressed(b"", "DEFLATE", zlib.compress(b"") + b"more"), Reason.BAD_PAYLOAD),
        (compressed(b"", None, b""), Reason.BAD_PAYLOAD),
        (compressed(compressed(b"", "GZIP"), "GZIP"), Reason.BAD_PAYLOAD),
        (compressed(b"\xff not protobuf", "GZIP"), Reason.BAD_PAYLOAD),
        (b"", Reason.BAD_PAYLOAD),  # and a message that says nothing at all
    ],
    ids=lambda value: "" if isinstance(value, bytes) else str(value),
)
def test_what_cannot_be_expanded_is_refused(decoder: Decoder, sent: bytes, reason: Reason) -> None:
    found = send(decoder, "DDATA", sent)
    assert (found.readings, [bad.reason for bad in found.refused]) == ([], [reason])


def quality(value: object) -> list[Metric]:
    return [
        Metric("power_in", None, T0, DataType.DOUBLE, 11.5, {"Quality": value}),  # type: ignore[dict-item]
        Metric("speed", None, T0, DataType.DOUBLE, 1480.0, {"engUnit": "rpm"}),
    ]


def test_a_value_that_its_edge_node_does_not_trust_is_left_out_and_told(decoder: Decoder) -> None:
    good = send(decoder, "DDATA", sparkplug.encode(Payload(T0, 1, quality(192))))
    assert good.readings == [Reading(UNIT, T0, {"power_in": 11.5, "speed": 1480.0})]
    assert not good.remarks
    for code in (0, 500, 64, "Bad"):
        found = send(decoder, "DDATA", sparkplug.encode(Payload(T0, 1, quality(code))))
        assert found.readings == [Reading(UNIT, T0, {"speed": 1480.0})]
        assert found.remarks[Remark.BAD_QUALITY][1] == 1
        assert repr(code) in found.remarks[Remark.BAD_QUALITY][0]
    nothing = send(decoder, "DDATA", sparkplug.encode(Payload(T0, 1, quality(0)[:1])))
    assert (nothing.readings, nothing.refused, list(nothing.remarks)) == ([], [], [Remark.BAD_QUALITY])


def test_what_its_sender_wants_not_to_be_stored_is_not(decoder: Decoder) -> None:
    found = send(
        decoder,
        "DDATA",
        payload(
            {"name": "speed", "datatype": DataType.DOUBLE, "double_value": 1.0, "is_transient": True},
            {"name": "power_in", "datatype": DataType.DOUBLE, "double_value": 11.5, "is_transient": False},
        ),
    )
    assert (found.readings, list(found.remarks)) == (
        [Reading(UNIT, T0, {"power_in": 11.5})],
        [Remark.TRANSIENT],
    )


def test_null_means_absent_and_a_message_of_nulls_is_told(decoder: Decoder) -> None:
    null = {"name": "speed", "datatype": DataType.DOUBLE, "is_null": True}
    good = {"name": "power_in", "datatype": DataType.DOUBLE, "double_value": 11.5}
    some = send(decoder, "DDATA", payload(null, good))
    assert (some.readings, some.remarks) == ([Reading(UNIT, T0, {"power_in": 11.5})], {})
    none = send(decoder, "DDATA", payload(null))
    assert (none.readings, none.refused, list(none.remarks)) == ([], [], [Remark.NO_VALUE])


def test_an_edge_nodes_own_measurements_are_told_at_its_birth(decoder: Decoder) -> None:
    born = send(
        decoder, "NBIRTH", payload({"name": "power_in", "datatype": DataType.DOUBLE, "double_value": 1.0})
    )
    assert list(born.remarks) == [Remark.UNKNOWN_SIGNAL]


def test_a_birth_in_other_units_is_told(decoder: Decoder) -> None:
    units = {"power_in": "W", "winding_temp": "°C", "speed": "rpm", "current": "", "smell": "x"}
    metrics = [
        Metric(name, None, T0, DataType.DOUBLE, 1.0, {"engUnit": unit}) for name, unit in units.items()
    ]
    born = send(decoder, "DBIRTH", sparkplug.encode(Payload(T0, 1, metrics)))
    told: list[tuple[Remark, str]] = []
    check_units("motor", born.units, lambda *said: told.append(said))
    assert told == [(Remark.OTHER_UNIT, "power_in is in 'W' by its birth, and the class has 'kW'")]


# --- what a class says about the values, for both doors


def refused(
    values: dict[str, Any], ts_ms: int = T0, signals: Mapping[str, Signal] = SIGNALS["motor"]
) -> BadReading:
    with pytest.raises(BadReading) as caught:
        check(Reading(UNIT, ts_ms, values), signals, NOW)
    return caught.value


@pytest.mark.parametrize(
    ("ts_ms", "word"),
    [
        (T0 // 1000, "looks like seconds"),
        (0, "clock"),
        (-1, "clock"),
        (946_684_800_000, "clock"),  # the first day of 2000, where many clocks begin
        (MIN_TIME_MS - 1, "clock"),
        (T0 * 1000, "looks like microseconds"),
        (T0 * 1_000_000, "looks like nanoseconds"),
        (NOW + 1, "in the future"),
        (2**64 - 1, "in the future"),
    ],
)
def test_times_that_cannot_be_are_refused_with_a_hint(ts_ms: int, word: str) -> None:
    bad = refused({"power_in": 1.0}, ts_ms)
    assert bad.reason is Reason.BAD_TIMESTAMP
    assert word in bad.detail


def test_what_a_class_does_not_have_is_left_out_and_told() -> None:
    told: list[tuple[Remark, str]] = []
    values: dict[str, Any] = {"power_in": 11, "smell": 1.5, "device": "m1", "at": {"x": 1}, "list": [1]}
    kept = check(Reading(UNIT, T0, values), SIGNALS["motor"], NOW, lambda *said: told.append(said))
    assert kept == {"power_in": 11.0}
    assert [kind for kind, _ in told] == [Remark.UNKNOWN_SIGNAL] * 4
    assert "smell" in told[0][1]
    assert refused({"smell": 1.5}).reason is Reason.UNKNOWN_SIGNAL


def test_a_value_out_of_range_is_kept_and_told() -> None:
    told: list[tuple[Remark, str]] = []
    reading = Reading(UNIT, T0, {"power_in": 99999.0, "speed": -5.0, "vibration": 1.0})
    assert check(reading, SIGNALS["motor"], NOW, lambda *said: told.append(said)) == reading.values
    assert [kind for kind, _ in told] == [Remark.OUT_OF_RANGE] * 2
    assert told[0][1] == "power_in is 99999, and its range is 0 to 600 kW"


def test_what_a_type_cannot_hold_is_refused() -> None:
    signals = {"count": replace(SIGNALS["motor"]["speed"], name="count", type="int")}
    assert check(Reading(UNIT, T0, {"count": 5.0}), signals, NOW) == {"count": 5}
    for value in (2**63, -(2**63) - 1, 1e300):
        bad = refused({"count": value}, signals=signals)
        assert (bad.reason, "does not fit 64 bits" in bad.detail) == (Reason.WRONG_TYPE, True)
    assert refused({"count": 5.5}, signals=signals).reason is Reason.WRONG_TYPE
    assert refused({"power_in": 10**400}).reason is Reason.NOT_FINITE
    hint = "write numbers without quotes"
    assert refused({"power_in": "11.2"}).detail == f"power_in is '11.2', and takes float: {hint}"
    assert refused({"power_in": [[1]]}).detail == "power_in is a list, and takes float"
