"""Templates and DataSets of devices become readings of the signals that their class declares; what it does
not declare is left out or refused, with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from empty_state import EmptyState
from qilu_contract import sparkplug_b_pb2 as pb
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.catalogue.equipment import DataSetForm, Part, TemplateForm
from qilu_contract.errors import BadReading, Reason, Remark
from qilu_contract.readings import Reading
from qilu_contract.wire import sparkplug, topics
from qilu_contract.wire.sparkplug import DataType, Metric, Packed, Payload
from qilu_contract.wire.sparkplug_structures import pack_data_set, pack_template
from qilu_gateway.read import structures
from qilu_gateway.read.births import Births
from qilu_gateway.read.checking import check_all
from qilu_gateway.read.decoded import Decoded
from qilu_gateway.read.decoding import Decoder
from qilu_gateway.read.structures import flatten_all, signal_names

T0 = 1_700_000_000_000
UNIT = "370202-motor-0000001"
MOTOR = replace(
    CATALOGUE["motor"],
    templates=(TemplateForm("Drive", "drive", (Part("Power", "power_in"), Part("Speed/Actual", "speed"))),),
    data_sets=(DataSetForm("Log", "t", (Part("Vib", "vibration"), Part("Temp", "winding_temp"))),),
)


@pytest.fixture(autouse=True)
def declared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(structures.FORMS, "motor", structures.forms_of(MOTOR))


@pytest.fixture
def decoder() -> Decoder:
    return Decoder(Births(EmptyState()), 256 * 1024)  # type: ignore[arg-type]


def send(
    decoder: Decoder,
    type_: topics.MessageType,
    metrics: Sequence[Metric],
    *,
    datatypes: bool = True,
    **how: Any,
) -> Decoded:
    body = sparkplug.encode(Payload(T0, 1, metrics), datatypes=datatypes)
    topic = topics.sparkplug(type_, "370202", "works", UNIT if type_[0] == "D" else None)
    return decoder.decode(topic, body, dup=False, **how)


def drive(*members: Metric, definition: str = "drive", datatypes: bool = True) -> Metric:
    packed = pack_template(members, definition, datatypes=datatypes)
    return Metric("Drive", 1, T0, DataType.TEMPLATE, packed)


def log(columns: Sequence[str], types: Sequence[int], *rows: Sequence[Any]) -> Metric:
    return Metric("Log", 2, T0, DataType.DATASET, pack_data_set(columns, types, rows))


def flat(decoded: Decoded, class_name: str = "motor") -> tuple[list[Reading | BadReading], list[Any]]:
    """The readings, and the remarks."""
    told: list[Any] = []
    return flatten_all(class_name, decoded.readings, lambda *said: told.append(said)), told


POWER = Metric("Power", None, T0, DataType.FLOAT, 11.5)
SPEED = Metric("Speed/Actual", None, T0 + 1, DataType.INT16, -42)
TYPES = (DataType.DATETIME, DataType.FLOAT, DataType.DOUBLE)


def test_members_are_the_readings_of_their_times(decoder: Decoder) -> None:
    speed = pack_template([Metric("Actual", None, T0 + 1, DataType.INT16, -42)], "speeds")
    inner = Metric("Speed", None, None, DataType.TEMPLATE, speed)
    plain = Metric("current", 9, T0, DataType.FLOAT, 21.0)
    for metrics in ([plain, drive(POWER, SPEED)], [plain, drive(POWER, inner)]):
        for type_ in ("DBIRTH", "DDATA"):
            found, told = flat(send(decoder, type_, metrics))  # type: ignore[arg-type]
            assert (found, told) == (
                [
                    Reading(UNIT, T0, {"current": 21.0, "power_in": 11.5}),
                    Reading(UNIT, T0 + 1, {"speed": -42}),
                ],
                [],
            )


def test_data_rely_on_the_aliases_and_datatypes_of_a_birth(decoder: Decoder) -> None:
    speed = SPEED._replace(alias=5)
    unit = drive(POWER._replace(properties={"engUnit": "hp"}), speed)
    born = send(decoder, "DBIRTH", [unit])
    assert signal_names("motor", born.units) == {"power_in": "hp"}
    for member in (SPEED, speed._replace(name=None)):
        found = send(decoder, "DDATA", [drive(member, datatypes=False)._replace(name=None)], datatypes=False)
        assert not found.refused
        assert flat(found)[0] == [Reading(UNIT, T0 + 1, {"speed": -42})]
    strange = drive(Metric("Other", None, T0, DataType.INT16, 1), datatypes=False)
    refused = send(decoder, "DDATA", [strange], datatypes=False)
    assert ([bad.reason for bad in refused.refused], refused.rebirth) == ([Reason.NO_BIRTH], True)


def test_a_member_whose_birth_is_unknown_waits_for_it(decoder: Decoder) -> None:
    found = send(decoder, "DDATA", [drive(SPEED, datatypes=False)], datatypes=False, may_wait=True)
    assert (found.unborn, found.rebirth, found.readings) == (True, True, [])


def test_each_row_is_a_reading(decoder: Decoder) -> None:
    rows = [(T0 - 2000, 1.5, 60.0), (T0 - 1000, None, 61.0), (T0, 2.5, None), (T0 + 1000, None, None)]
    plain = Metric("current", 9, T0, DataType.FLOAT, 21.0)
    found, told = flat(send(decoder, "DDATA", [plain, log(["t", "Vib", "Temp"], TYPES, *rows)]))
    assert found == [
        Reading(UNIT, T0, {"current": 21.0, "vibration": 2.5}),
        Reading(UNIT, T0 - 2000, {"vibration": 1.5, "winding_temp": 60.0}),
        Reading(UNIT, T0 - 1000, {"winding_temp": 61.0}),
    ]
    assert not told
    assert all(isinstance(each, dict) for each in check_all("motor", found, T0 + 1))  # type: ignore[arg-type]


def stored(decoded: Decoded, class_name: str = "motor") -> tuple[list[Any], list[tuple[Remark, str]]]:
    """The stored values or the refusal of each reading, and the remarks."""
    found, told = flat(decoded, class_name)
    outcome: list[Any] = [(each.reason, each.detail) for each in found if isinstance(each, BadReading)]
    readings = [each for each in found if isinstance(each, Reading)]
    checked = check_all(class_name, readings, T0 + 10_000, lambda _, *said: told.append(said))
    outcome += [(each.reason, each.detail) if isinstance(each, BadReading) else each for each in checked]
    return outcome, told


CURRENT = Metric("current", 9, T0, DataType.FLOAT, 21.0)


@pytest.mark.parametrize(
    ("metric", "detail"),
    [
        (drive(POWER)._replace(name="Pump"), "'Pump' is a Template that its class does not declare"),
        (log(["t"], TYPES[:1])._replace(name="Rows"), "'Rows' is a DataSet that its class does not declare"),
        (
            drive(POWER, definition="other"),
            "'Drive' is an instance of 'other', and its class declares 'drive'",
        ),
        (drive(POWER, definition=""), "'Drive' is a definition, which belongs in the birth of the edge node"),
        (log(["t", "t"], TYPES[:2]), "'Log' is a DataSet with a column twice"),
        (
            CURRENT._replace(name="Log", datatype=DataType.DATASET, value=Packed(DataType.DATASET, b"\xff")),
            "'Log' is a DataSet whose bytes are not one",
        ),
    ],
)
def test_what_is_not_declared_is_left_out(decoder: Decoder, metric: Metric, detail: str) -> None:
    beside = stored(send(decoder, "DDATA", [CURRENT, metric]))
    assert beside == ([{"current": 21.0}], [(Remark.WRONG_TYPE, detail)])
    assert stored(send(decoder, "DDATA", [metric])) == ([(Reason.WRONG_TYPE, detail)], [])


def test_a_class_that_declares_nothing_takes_none(decoder: Decoder) -> None:
    both = send(decoder, "DDATA", [drive(POWER), log(["t", "Vib"], TYPES[:2], (T0, 1.0))])
    outcome, _ = stored(both, "pump")
    assert outcome == [(Reason.WRONG_TYPE, "'Drive' is a Template that its class does not declare")]


def test_unknown_members_and_columns_are_left_out(decoder: Decoder) -> None:
    odd = POWER._replace(name="Odd")
    outcome, told = stored(send(decoder, "DDATA", [drive(POWER, odd)]))
    assert outcome == [{"power_in": 11.5}]
    assert [(kind, detail[:12]) for kind, detail in told] == [(Remark.UNKNOWN_SIGNAL, "'Drive/Odd' ")]
    outcome, told = stored(send(decoder, "DDATA", [log(["t", "Vib", "X"], TYPES, (T0, 1.5, 2.0))]))
    assert (outcome, told[0][0]) == ([{"vibration": 1.5}], Remark.UNKNOWN_SIGNAL)


def test_members_are_judged_like_metrics(decoder: Decoder) -> None:
    metric = drive(
        POWER._replace(is_transient=True),
        SPEED._replace(properties={"Quality": 0}),
        POWER._replace(value=None),
    )
    found, told = flat(send(decoder, "DDATA", [metric]))
    assert (found, [kind for kind, _ in told]) == ([], [Remark.TRANSIENT, Remark.BAD_QUALITY])
    text = POWER._replace(datatype=DataType.STRING, value="11")
    [(reason, detail)], _ = stored(send(decoder, "DDATA", [drive(text)]))
    assert (reason, detail[:8]) == (Reason.WRONG_TYPE, "power_in")
    outcome, _ = stored(send(decoder, "DBIRTH", [drive(SPEED, datatypes=False)]))
    assert outcome[0][0] is Reason.WRONG_TYPE  # a birth without the member's datatype


AT = T0 + 1000


@pytest.mark.parametrize(
    ("metric", "reason", "detail"),
    [
        (log(["t", "Vib"], (DataType.DATETIME, DataType.STRING), (AT, "x")), Reason.WRONG_TYPE, "vibration"),
        (log(["t", "Vib"], TYPES[:2], (None, 1.0)), Reason.BAD_TIMESTAMP, "a row of 'Log' has the time None"),
        (
            log(["t", "Vib"], (DataType.STRING, DataType.FLOAT), ("2026-11-28", 1.0)),
            Reason.BAD_TIMESTAMP,
            "a row of 'Log' has the time '2026",
        ),
        (log(["t", "Vib"], TYPES[:2], (T0 // 1000, 1.0)), Reason.BAD_TIMESTAMP, "ts 1700000000 looks like"),
        (log(["at", "Vib"], TYPES[:2], (AT, 1.0)), Reason.BAD_TIMESTAMP, "'Log' has no column 't'"),
    ],
)
def test_a_row_that_is_wrong_is_refused_alone(
    decoder: Decoder, metric: Metric, reason: Reason, detail: str
) -> None:
    outcome, _ = stored(send(decoder, "DDATA", [CURRENT, metric]))
    assert {"current": 21.0} in outcome
    [refused] = [each for each in outcome if isinstance(each, tuple)]
    assert (refused[0], refused[1][: len(detail)]) == (reason, detail)


def test_a_row_of_the_wrong_length_is_refused_alone(decoder: Decoder) -> None:
    table = pb.DataSet.FromString(log(["t", "Vib"], TYPES[:2], (T0, 1.5), (AT, 2.5)).value.body)  # type: ignore[union-attr]
    del table.rows[1].elements[1]
    packed = Packed(DataType.DATASET, table.SerializeToString())
    outcome, _ = stored(send(decoder, "DDATA", [Metric("Log", 2, T0, DataType.DATASET, packed)]))
    assert outcome == [
        (Reason.BAD_PAYLOAD, "'Log' has a row of 1 elements in 2 columns"),
        {"vibration": 1.5},
    ]
