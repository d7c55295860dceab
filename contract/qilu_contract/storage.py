"""The storage schema: measurements, their tags and fields, points, and the line protocol that InfluxDB takes.

One measurement for each equipment class, one for each roll-up. Tags name things and never change under stored
data; a tag and a field never share a name; every field has one fixed type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import msgspec

from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.catalogue.effectiveness import STOP_FIELDS, SUM_FIELDS
from qilu_contract.catalogue.generic import COUNTED, GENERIC, is_signal_name
from qilu_contract.catalogue.key_signals import BIN_FIELDS
from qilu_contract.readings import Value

FieldType = Literal["float", "int", "bool"]

UNIT_TAGS = ("city", "county", "industry", "enterprise", "unit")

BORN = "born_ms"
"""A field beside a class's signals, in the newest point of each birth of a unit (DBIRTH of Sparkplug): the
time of the birth, UTC milliseconds. The latest value is the time of the unit's last birth; it needs no
separate series."""


HOURLY = "_hourly"
"""Suffix of the measurements with hourly rows (`hours.py`): `fleet` has a row for each minute, `fleet_hourly`
one for each hour."""

Fold = Literal["last", "sum", "min", "max", "mean"]


@dataclass(frozen=True, slots=True)
class Measurement:
    name: str
    tags: tuple[str, ...]
    fields: Mapping[str, FieldType]
    counted_by: str
    """A field that every regular point holds, so that counting it counts the points."""
    hourly: Mapping[str, Fold] | None = None
    """Aggregation of a field's values over an hour, for the measurement with hourly rows; fields that are not
    named keep the last value. None: there is no such measurement."""
    open: bool = False
    """Whether points may have more fields than a walk over `fields` names (`LearnedFields`)."""


class LearnedFields(dict[str, FieldType]):
    """Fields of the generic class: the fixed ones, which a walk over them gives, and any signal, a float."""

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or (isinstance(name, str) and is_signal_name(name))

    def __missing__(self, name: str) -> FieldType:
        if not is_signal_name(name):
            raise KeyError(name)
        return "float"

    def get(self, name: str, default: Any = None) -> Any:
        try:
            return self[name]
        except KeyError:
            return default


class Point(NamedTuple):
    """One point: writing the same measurement, tags and time again adds or replaces fields and stores nothing
    twice.
    """

    measurement: str
    tags: tuple[str, ...]
    """Values in the order of the measurement's tags."""
    ts_ms: int
    fields: Mapping[str, Value]


# The measurements besides those of classes.
_OWN = (
    # The gateway's own counts since it started, and its rates: every two seconds.
    Measurement(
        name="pipeline",
        tags=("gateway",),
        fields={
            "accepted": "int",
            "stored": "int",
            "spooled": "int",
            "dead_lettered": "int",
            "corrupt": "int",
            "redelivered": "int",
            "in_flight": "int",
            "births": "int",
            "rebirth_requests": "int",
            "accepted_per_s": "float",
            "stored_per_s": "float",
            "lag_ms": "float",
            "spool_bytes": "int",
            "spool_age_s": "float",
        },
        counted_by="accepted",
        hourly={
            **dict.fromkeys(("accepted_per_s", "stored_per_s"), "mean"),
            **dict.fromkeys(("lag_ms", "spool_bytes", "spool_age_s"), "max"),
        },
    ),
    # The programme's counts at a time: scope is province, city, class, kind (of cloud action or of
    # recognition) or level (of who pays a voucher, in yuan), code says which one.
    Measurement(
        name="programme",
        tags=("scope", "code"),
        fields={
            "enterprises_registered": "int",
            "enterprises_on_cloud": "int",
            "enterprises_on_cloud_current": "int",
            "units_registered": "int",
            "units_on_cloud": "int",
            "units_on_cloud_current": "int",
            "units_active": "int",
            "providers": "int",
            "centres": "int",
            "contracts": "int",
            "contracts_current": "int",
            "recognitions": "int",
            "recognitions_current": "int",
            "vouchers_granted": "int",
            "vouchers_redeemed": "int",
            "vouchers_clawed_back": "int",
        },
        counted_by="units_registered",
        hourly={},
    ),
    # A minute of a class's key signal in one place (its level says whether that is the province, a
    # city, a county or an industry): different units seen, readings, and what readings and gateways add
    # up to a mean by (sum over n; a sum beyond what a float holds is left out), and readings with a value
    # outside the signal's range. For a cumulative signal all are of what was added in the minute. The
    # base signal's row of each class is written for every minute with a regular reading. An hour's units
    # are the most of any of its minutes.
    Measurement(
        name="fleet",
        tags=("level", "place", "city", "class", "signal", "gateway"),
        fields={
            "units": "int",
            "n": "int",
            "sum": "float",
            "min": "float",
            "max": "float",
            "out_of_range": "int",
            **dict.fromkeys(BIN_FIELDS, "int"),
        },
        counted_by="n",
        hourly={
            **dict.fromkeys(("n", "sum", "out_of_range", *BIN_FIELDS), "sum"),
            "units": "max",
            "min": "min",
            "max": "max",
        },
    ),
    # What the OEE of a class in one place is computed from, for each minute: distinct units, and seconds of
    # all of them together (`qilu_contract.catalogue.effectiveness`). All seconds add up over gateways,
    # places and time; a stop whose reason is unknown is in none of the reasons. An enterprise is a place
    # too, without hourly rows.
    Measurement(
        name="effectiveness",
        tags=("level", "place", "city", "class", "gateway"),
        fields={
            "units": "int",
            **dict.fromkeys((*SUM_FIELDS, *STOP_FIELDS), "float"),
        },
        counted_by="planned_s",
        hourly={
            "units": "max",
            **dict.fromkeys((*SUM_FIELDS, *STOP_FIELDS), "sum"),
        },
    ),
    # A breach of a limit, at the time when it began; the same point is written again when it ends.
    # `ratio` is the worst value over the limit, or the limit over it where the breach is below.
    Measurement(
        name="alarm",
        tags=("province", *UNIT_TAGS, "class", "signal"),
        fields={
            "open": "int",
            "value": "float",
            "limit": "float",
            "worst": "float",
            "ratio": "float",
            "duration_s": "float",
        },
        counted_by="open",
    ),
    # Refused readings by reason, since the gateway started: beside `pipeline`.
    Measurement(
        name="dead_letter",
        tags=("gateway", "reason"),
        fields={"readings": "int"},
        counted_by="readings",
        hourly={},
    ),
    # What the gateway's roll-ups made of the readings since the start, what they hold now, and how many
    # of their own points no store took.
    Measurement(
        name="rollup",
        tags=("gateway",),
        fields={
            "rolled": "int",
            "late": "int",
            "left_out": "int",
            "held": "int",
            "dropped": "int",
            "alarms_open": "int",
        },
        counted_by="rolled",
        hourly={},
    ),
    # A count of the programme that has reached a round number or a share of its target.
    Measurement(
        name="milestone",
        tags=("counted",),
        fields={"reached": "int", "share": "float"},
        counted_by="reached",
    ),
    # Security events by kind and city since the registry was made, every ten seconds.
    Measurement(
        name="security",
        tags=("kind", "city"),
        fields={"events": "int"},
        counted_by="events",
        hourly={},
    ),
    # The platform's own figures, every ten seconds; totals since it started.
    Measurement(
        name="platform",
        tags=("host",),
        fields={
            "requests": "int",
            "errors": "int",
            "requests_per_s": "float",
            "latency_ms": "float",
            "task_failures": "int",
            "event_clients": "int",
            "counts_read_ms": "float",
            "imports_open": "int",
            "import_lines": "int",
            "import_lines_bad": "int",
        },
        counted_by="requests",
        hourly={
            "requests_per_s": "mean",
            **dict.fromkeys(("latency_ms", "event_clients", "counts_read_ms", "imports_open"), "max"),
        },
    ),
)


def _measurements() -> dict[str, Measurement]:
    found = [
        Measurement(
            name=class_.name,
            tags=UNIT_TAGS,
            fields={**{signal.name: signal.type for signal in class_.signals}, BORN: "int"},
            counted_by=class_.base_signal.name,
        )
        for class_ in CATALOGUE.values()
    ]
    learned = LearnedFields({COUNTED: "float", BORN: "int"})
    found.append(Measurement(GENERIC, UNIT_TAGS, learned, counted_by=COUNTED, open=True))
    found += _OWN
    found += [
        replace(each, name=each.name + HOURLY, hourly=None) for each in found if each.hourly is not None
    ]
    return {measurement.name: measurement for measurement in found}


MEASUREMENTS: dict[str, Measurement] = _measurements()
_NAMES = {name: schema.fields.keys() for name, schema in MEASUREMENTS.items()}
_INTS = {
    name: frozenset(field for field, type_ in schema.fields.items() if type_ == "int")
    for name, schema in MEASUREMENTS.items()
}
_encode = msgspec.json.Encoder().encode


def line_protocol(points: Sequence[Point]) -> bytes:
    """InfluxDB's line protocol, one line a point, timestamps in milliseconds (`precision=ms`).

    Raises KeyError for a measurement or a field that is not in the schema, ValueError when the number of tags
    is not the schema's, or a value is none of its types.
    """
    # But for quotes and colons a JSON object of floats and booleans is a line's list of fields already, and
    # all of them are written by one call: half the cost of writing each value.
    has_ints = [not fields.keys().isdisjoint(_INTS[measurement]) for measurement, _, _, fields in points]
    plain = [point.fields for point, ints in zip(points, has_ints, strict=True) if not ints]
    text = _encode(plain).decode()
    if text.count('"') != 2 * sum(map(len, plain)) or '":null' in text or '":[' in text:
        raise ValueError("a field is neither a finite number nor a boolean")
    bodies = iter(text[2:-2].replace('":', "=").replace('"', "").split("},{"))
    lines = []
    for (measurement, tags, ts_ms, fields), ints in zip(points, has_ints, strict=True):
        if not fields.keys() <= _NAMES[measurement]:
            known = MEASUREMENTS[measurement].fields  # which may be learned
            if odd := sorted(name for name in fields if name not in known):
                raise KeyError(f"{measurement} has no field {odd[0]}")
        body = _with_ints(measurement, fields) if ints else next(bodies)
        lines.append(f"{_prefix(measurement, tags)} {body} {ts_ms}")
    return "\n".join(lines).encode()


def _with_ints(measurement: str, fields: Mapping[str, Value]) -> str:
    types = MEASUREMENTS[measurement].fields
    return ",".join([f"{name}={_field(value, types[name])}" for name, value in fields.items()])


def _field(value: Value, type_: FieldType) -> str:
    # repr of a float is the shortest text that reads back as the same float; InfluxDB takes exponents.
    if type_ == "float":
        return repr(float(value))
    if type_ == "int":
        return f"{int(value)}i"
    return "true" if value else "false"


# Building the escaped tags is most of the work of a line, and a unit's never change. 200,000 entries take
# about 60 MB.
@lru_cache(maxsize=200_000)
def _prefix(measurement: str, tags: tuple[str, ...]) -> str:
    return line_prefix(measurement, tags)


def line_prefix(measurement: str, tags: Sequence[str]) -> str:
    """The beginning of a line: measurement and tags. Raises KeyError, ValueError like `line_protocol`."""
    names = MEASUREMENTS[measurement].tags
    return ",".join(
        [measurement, *(f"{name}={escaped_tag(value)}" for name, value in zip(names, tags, strict=True))]
    )


_TAG_ESCAPES = str.maketrans({",": r"\,", "=": r"\=", " ": r"\ "})


def escaped_tag(value: str) -> str:
    """The tag, escaped for a line. Raises ValueError."""
    if not value or any(ord(letter) < 32 for letter in value) or value.endswith("\\"):
        raise ValueError(f"{value!r} cannot be a tag: tags are not empty and hold no control characters")
    return value.translate(_TAG_ESCAPES)
