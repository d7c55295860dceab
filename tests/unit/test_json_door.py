"""Plain JSON of hand-made devices: what is understood, what is refused, and why."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qilu.publish import parse_values
from qilu_contract.errors import BadReading, ConfigError, Reason
from qilu_contract.readings import Reading
from qilu_contract.wire import json_payload

T0 = 1_795_749_000_000
NOW = 1_800_000_000_000


def decode(body: bytes | str | object) -> list[Reading | BadReading | None]:
    content = (
        body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
    )
    return json_payload.decode("u", content, lambda: NOW)


def refusal(body: bytes | str | object) -> BadReading:
    [bad] = decode(body)
    assert isinstance(bad, BadReading), bad
    return bad


def test_one_object_or_a_list() -> None:
    assert decode({"ts": T0, "power_in": 1.5, "on": True}) == [
        Reading("u", T0, {"power_in": 1.5, "on": True})
    ]
    body = json_payload.encode([(1, {"a": 1}), (2, {"a": 2})])
    assert decode(body) == [Reading("u", 1, {"a": 1}), Reading("u", 2, {"a": 2})]


def test_values_may_be_in_an_object_of_their_own() -> None:
    wanted = Reading("u", T0, {"a": 1, "b": 2.5})
    assert decode({"ts": T0, "values": {"a": 1, "b": 2.5}}) == [wanted]
    assert decode([{"ts": T0, "values": {"a": 1}}, {"ts": T0 + 1, "b": 2}]) == [
        Reading("u", T0, {"a": 1}),
        Reading("u", T0 + 1, {"b": 2}),
    ]
    assert decode({"ts": T0, "a": 1, "values": {"b": 2.5}}) == [wanted]
    assert decode({"ts": T0, "values": 7}) == [Reading("u", T0, {"values": 7})]  # somebody's signal
    assert "twice" in refusal({"ts": T0, "a": 1, "values": {"a": 2}}).detail


@pytest.mark.parametrize(
    "ts",
    [
        T0,
        float(T0),
        T0 + 0.75,
        "2026-11-27T03:10:00Z",
        "2026-11-27T11:10:00+08:00",
        "2026-11-27T03:10:00.000999Z",
        "2026-11-26T22:10:00.0-05:00",
        "20261127T111000+0800",
    ],
)
def test_times_that_say_which_millisecond_they_mean(ts: object) -> None:
    assert decode({"ts": ts, "a": 1}) == [Reading("u", T0, {"a": 1})]


@pytest.mark.parametrize(
    ("ts", "word"),
    [
        ("2026-11-27T11:50:00", "offset"),
        ("2026-11-27", "offset"),
        (str(T0), "text"),
        ("yesterday", "text"),
        (True, "milliseconds"),
        ([T0], "milliseconds"),
        ({"s": 1}, "milliseconds"),
    ],
)
def test_other_times_are_refused_with_the_remedy(ts: object, word: str) -> None:
    bad = refusal({"ts": ts, "a": 1})
    assert bad.reason is Reason.BAD_TIMESTAMP
    assert word in bad.detail


@given(st.datetimes(datetime(2002, 1, 1), datetime(2100, 1, 1)), st.timezones())
def test_iso_times_of_any_offset_are_the_instant_that_they_name(local: datetime, zone: object) -> None:
    moment = local.replace(tzinfo=zone)  # type: ignore[arg-type]
    [found] = decode({"ts": moment.isoformat(), "a": 1})
    assert isinstance(found, Reading)
    assert found.ts_ms == math.floor(moment.astimezone(UTC).timestamp() * 1000 + 1e-6)


@pytest.mark.parametrize("body", ['{"a": 1}', '{"ts": null, "a": 1}', ' \n{"values": {"a": 1, "ts": null}}'])
def test_a_reading_without_a_time_has_the_time_of_receipt(body: str) -> None:
    found = json_payload.decode("u", body.encode(), lambda: NOW)
    assert found == [Reading("u", NOW, {"a": 1})]
    # As it is kept in a dead letter, to be taken again later.
    dated = json_payload.with_time(body.encode(), NOW)
    assert json_payload.decode("u", dated) == [Reading("u", NOW, {"a": 1})]


def test_only_a_single_reading_may_leave_its_time_out() -> None:
    for body in ([{"a": 1}, {"a": 2}], [{"a": 1}]):
        assert {bad.reason for bad in decode(body) if isinstance(bad, BadReading)} == {Reason.BAD_TIMESTAMP}
    assert decode([{"a": 1}, {"ts": T0, "a": 2}])[1] == Reading("u", T0, {"a": 2})
    found = json_payload.decode("u", b'{"a": 1}')
    assert isinstance(found[0], BadReading)


@pytest.mark.parametrize("name", ["timestamp", "time", "TS", "Timestamp", "ts_ms", "datetime"])
def test_a_time_under_another_name_is_not_replaced_by_the_time_of_receipt(name: str) -> None:
    bad = refusal({name: T0, "a": 1})
    assert (bad.reason, name in bad.detail, '"ts"' in bad.detail) == (Reason.BAD_TIMESTAMP, True, True)
    assert decode({"ts": T0, name: 5, "a": 1}) != []


def test_null_means_absent() -> None:
    assert decode({"ts": T0, "a": None, "b": 1}) == [Reading("u", T0, {"b": 1})]
    assert decode({"ts": T0, "values": None, "b": 1}) == [Reading("u", T0, {"b": 1})]
    assert decode({"ts": T0, "a": None}) == [None]
    assert decode([{"ts": T0, "a": None}, {"ts": T0, "a": 1}]) == [None, Reading("u", T0, {"a": 1})]
    assert json_payload.decode("u", b'{"a": null}') == [None]


def test_each_reading_of_a_list_is_judged_by_itself() -> None:
    found = decode(
        '[{"ts":1,"a":1},{"ts":2,"a":NaN},{"a":1},3,{"ts":4},{"ts":true,"a":1},{"ts":5,"a":1,"a":2},'
        '{"ts":6,"a":1e999,"b":1},{"ts":9,"a":2},null,{}]'
    )
    assert [item.reason if isinstance(item, BadReading) else item and item.ts_ms for item in found] == [
        1,
        2,  # a later check decides whether the signal can hold NaN
        Reason.BAD_TIMESTAMP,
        Reason.BAD_PAYLOAD,
        Reason.BAD_PAYLOAD,
        Reason.BAD_TIMESTAMP,
        Reason.BAD_PAYLOAD,
        6,
        9,
        Reason.BAD_PAYLOAD,
        Reason.BAD_PAYLOAD,
    ]


def test_a_key_that_is_there_twice_with_two_values_is_not_guessed() -> None:
    bad = refusal('{"ts":1795749000000,"power_in":1,"power_in":2.5}')
    assert (bad.reason, bad.detail) == (Reason.BAD_PAYLOAD, "'power_in' is there twice: 1 and 2.5")
    assert decode('{"ts":5,"a":1,"a":1}') == [Reading("u", 5, {"a": 1})]
    assert decode('{"ts":5,"a":1,"note":"a:b:c","x":{"a":1,"b":2}}') == [
        Reading("u", 5, {"a": 1, "note": "a:b:c", "x": {"a": 1, "b": 2}})  # type: ignore[dict-item]
    ]


def test_however_often_a_key_is_there_and_however_deep_a_value_is_it_is_one_refusal() -> None:
    often = "{" + ",".join(f'"a":{number}' for number in range(20_000)) + "}"
    assert refusal(often).detail == "'a' is there twice: 0 and 1"
    for depth in (10, 300, 900):
        deep = "[" * depth + "]" * depth
        bad = refusal(f'{{"ts":1,"a":{deep},"a":{deep}}}')
        assert bad.detail == "'a' is there twice: a list and a list"
        assert refusal(f'{{"ts":{deep},"a":1}}').reason is Reason.BAD_TIMESTAMP


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000, b'{"ts":1,"a":1,}', b"\xef\xbb\xbf{}", b"9" * 5000],
)
def test_what_is_not_json_is_refused(body: bytes) -> None:
    try:
        [bad] = decode(body)
    except BadReading as error:
        bad = error
    assert isinstance(bad, BadReading)
    assert bad.reason is Reason.BAD_PAYLOAD


def test_numbers_that_json_cannot_say_are_not_sent_as_null() -> None:
    for value in (math.nan, math.inf):
        with pytest.raises(ValueError, match="power_in"):
            json_payload.encode([(T0, {"power_in": value})])


@pytest.mark.parametrize(
    "word",
    [
        "x=nan",
        "x=inf",
        "x=-Infinity",
        "x=1e999",
        "x=1_000",
        "x=１２",
        "x=--5",
        "x=0x10",
        "x=",
        "x=1 ",
        "x=9" + "9" * 400,
    ],
)
def test_publish_sends_numbers_only(word: str) -> None:
    with pytest.raises(ConfigError, match="neither a number"):
        parse_values([word])


def test_publish_takes_every_way_to_write_a_number() -> None:
    words = ["a=1", "b=-2", "c=+3", "d=1.5", "e=.5", "f=5.", "g=1e3", "h=-1.5E-3", "i=true", "j=false"]
    wanted = {
        "a": 1,
        "b": -2,
        "c": 3,
        "d": 1.5,
        "e": 0.5,
        "f": 5.0,
        "g": 1000.0,
        "h": -0.0015,
        "i": True,
        "j": False,
    }
    assert repr(parse_values(words)) == repr(wanted)
    with pytest.raises(ConfigError, match="64 bits"):
        parse_values([f"a={2**63}"])
    with pytest.raises(ConfigError, match="twice"):
        parse_values(["a=1", "a=2"])
