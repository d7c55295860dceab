"""Random payloads, good, odd, broken and hostile: what a class's units, other people's encoders and nobody at
all might send. Seeded by the `random.Random` that the caller gives.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from qilu_contract import sparkplug_b_pb2 as pb
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.catalogue.equipment import DataSetForm, EquipmentClass, Signal, SignalType, TemplateForm
from qilu_contract.wire import sparkplug
from qilu_contract.wire.sparkplug import DataType, Metric, Packed, Payload
from qilu_contract.wire.sparkplug_structures import pack_data_set, pack_template

T0 = 1_795_749_000_000
HOSTILE = (
    *(b"", b" ", b"[]", b"{}", b"null", b"1", b'"', b"[", b"{", b"}", b"]", b",", b"\xff", b"\x00"),
    *(b"[[]]", b"[{}]", b"[1]", b"[null]", b'{"ts":1795749000000}', b'[{"ts":1795749000000}]'),
    *(b"[" * 3000, b'{"a":' * 3000, b'{"ts":' + b"9" * 400 + b"}"),
)
ODD_NAMES = ("values", "class", "f0", "x" * 40, "timestamp")
TYPES: tuple[SignalType, ...] = ("float", "float", "int", "bool")
DATATYPES = {
    "float": (DataType.FLOAT, DataType.FLOAT, DataType.DOUBLE, DataType.INT32, DataType.UINT16),
    "int": (DataType.INT64, DataType.INT32, DataType.INT16, DataType.INT8, DataType.UINT32, DataType.FLOAT),
    "bool": (DataType.BOOLEAN, DataType.BOOLEAN, DataType.BOOLEAN, DataType.INT32),
}


def own_classes() -> list[EquipmentClass]:
    """Classes as users make them: of whole numbers, of states, of many signals, with odd names."""
    speed = CATALOGUE["motor"].signal("speed")

    def class_(name: str, signals: Sequence[Signal]) -> EquipmentClass:
        return EquipmentClass(name, name, name, tuple(signals), ())

    return [
        class_("fuzz_press", [
            replace(speed, name="count", type="int", resolution=1.0, low=0.0, high=1e9),
            replace(speed, name="running", type="bool", resolution=1.0, low=0.0, high=1.0),
            replace(speed, name="level", resolution=0.001),
            replace(speed, name="load", resolution=1.0),
            replace(speed, name="open", type="bool", resolution=1.0, low=0.0, high=1.0),
        ]),
        class_("fuzz_state", [replace(speed, name="on", type="bool", resolution=1.0, low=0.0, high=1.0)]),
        class_("fuzz_odd", [replace(speed, name=name) for name in ODD_NAMES]),
        class_("fuzz_many", [
            replace(speed, name=f"s{n}", type=TYPES[n % 4], resolution=10.0 ** -(n % 7))
            for n in range(64)
        ]),
    ]  # fmt: skip


def value(chance: random.Random, signal: Signal) -> Any:
    """Mostly what the signal takes."""
    dice = chance.random()
    if dice < 0.0005:
        return chance.choice(
            [
                "1",
                None,
                [],
                {},
                [1],
                {"a": 1},
                True,
                2**53 + 1,
                -(2**63),
                2**64,
                10**30,
                1e308,
                1e22,
                0.5,
                4.5e15,
            ]
        )
    if signal.type == "bool":
        return chance.random() < 0.5
    if signal.type == "int":
        whole = chance.randint(int(signal.low), int(min(signal.high, 2**31)))
        return float(whole) if chance.random() < 0.1 else whole
    if dice < 0.002:
        return chance.choice([signal.low - 1, signal.high + 1, -0.0, 0, -1e-300, -signal.resolution / 3])
    found = chance.uniform(signal.low, signal.high)
    if dice < 0.1:
        return found
    return int(found) if dice < 0.2 else signal.round(found)


def picked(chance: random.Random, signals: Sequence[Signal]) -> Sequence[Signal]:
    """All signals, or the first ones, or some in any order."""
    match chance.randrange(10):
        case 0:
            return chance.sample(signals, chance.randint(1, len(signals)))
        case 1 | 2 | 3:
            return signals[: max(1, len(signals) * 2 // 3)]
        case _:
            return signals


def _time(chance: random.Random, ts_ms: int) -> Any:
    dice = chance.random()
    if dice < 0.99:
        return ts_ms
    return chance.choice(
        [
            *(float(ts_ms), ts_ms + 0.75, ts_ms // 1000, ts_ms * 1000, 2**53, 2**53 - 1, 2**64),
            *(-1, 0, True, None),
            *("2026-11-27T03:10:00Z", "2026-11-27T03:10:00", str(ts_ms), 1e300, -0.5, [], {}),
        ]
    )  # fmt: skip


def json_reading(chance: random.Random, signals: Sequence[Signal], ts_ms: int) -> dict[str, Any]:
    reading: dict[str, Any] = {"ts": _time(chance, ts_ms)}
    reading |= {signal.name: value(chance, signal) for signal in picked(chance, signals)}
    dice = chance.random()
    if dice < 0.002:
        del reading["ts"]
    elif dice < 0.004:
        reading[chance.choice(["neu", "", "time", "values", "\u0000", 'a"b', "},{"])] = chance.choice(
            [1, {"a": 1}]
        )
    elif dice < 0.006:
        ts = reading.pop("ts")
        reading = {"ts": ts, "values": reading}
    elif dice < 0.01:
        reading = dict(chance.sample(list(reading.items()), len(reading)))
    return reading


def json_body(chance: random.Random, class_: EquipmentClass, ts_ms: int, most: int = 50) -> bytes:
    dice = chance.random()
    if dice < 0.001:
        return chance.choice(HOSTILE)
    if dice < 0.93:
        content: Any = json_reading(chance, class_.signals, ts_ms)
    else:
        count = chance.randint(0 if dice < 0.935 else 1, most if dice > 0.99 else 3)
        content = [json_reading(chance, class_.signals, ts_ms + 1000 * n) for n in range(count)]
    indent = 1 if chance.random() < 0.01 else None
    separators = (",", ":") if chance.random() < 0.9 else None
    body = json.dumps(content, indent=indent, separators=separators).encode()
    return _other_json(chance, body) if chance.random() < 0.02 else body


def _other_json(chance: random.Random, body: bytes) -> bytes:
    """The same in other words, or two that only together are something."""
    name = chance.choice([b"power_in", b"speed", b"ts", b"count", b"s1"])
    match chance.randrange(9):
        case 0:
            return b'{"%s":1,' % name + body[1:]
        case 1:
            return body.replace(b'"%s"' % name, b'"\\u%04x%s"' % (name[0], name[1:]))
        case 2:
            return body + b"," + body
        case 3:
            at = chance.randrange(len(body) + 1)
            return chance.choice([body[:at], body[at:]])
        case 4:
            return b" \n\t" + body + b"\r "
        case 5:
            return b"\xef\xbb\xbf" + body
        case 6:
            return b"[" + body + b"]"
        case 7:
            return body.replace(
                b":1", chance.choice([b":01", b":NaN", b":1e3", b":1E-2", b":-0", b":1e999", b":+1"])
            )
        case _:
            return body[:-1] + chance.choice([b",}", b",", b"}}", b"]", b',"%s":2}' % name])


def mutated(chance: random.Random, body: bytes) -> bytes:
    """Bits changed, bytes cut, doubled or put in."""
    content = bytearray(body)
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        at = chance.randrange(len(content) + 1)
        match chance.randrange(5):
            case 0 | 1 if at < len(content):
                content[at] ^= 1 << chance.randrange(8)
            case 2:
                del content[at : at + chance.randrange(1, 20)]
            case 3:
                content[at:at] = chance.randbytes(chance.randrange(1, 9))
            case _:
                content[at:at] = content[: chance.randrange(1, 30)]
    return bytes(content)


class Device:
    """A device of an edge node, with the aliases and types of its birth."""

    def __init__(self, chance: random.Random, class_: EquipmentClass, name: str) -> None:
        self.class_, self.name = class_, name
        first = chance.choice([0, 0, 32, 96, 128, 320, 16_000, 2**21, 2**40])
        gap = chance.choice([1, 1, 1, 3])
        self.aliases = {signal.name: first + gap * n for n, signal in enumerate(class_.signals)}
        self.types = {
            signal.name: chance.choice(DATATYPES[signal.type])
            if chance.random() < 0.2
            else (DataType.DOUBLE if signal.is_wide else DATATYPES[signal.type][0])
            for signal in class_.signals
        }

    def birth(self, ts_ms: int) -> bytes:
        """Without values, but for an odd metric or two."""
        metrics = [
            Metric(signal.name, self.aliases[signal.name], ts_ms, self.types[signal.name], None)
            for signal in self.class_.signals
        ]
        last = max(self.aliases.values())
        metrics = self.folded(metrics, birth=True)
        metrics.append(Metric("Properties/Maker", last + 1, ts_ms, DataType.STRING, "Jinan"))
        metrics.append(Metric("no signal of it", last + 2, ts_ms, DataType.FLOAT, None))
        # Another alias of the first signal.
        first = self.class_.signals[0].name
        metrics.append(Metric(first, last + 3, ts_ms, self.types[first], None))
        return sparkplug.encode(Payload(ts_ms, 0, metrics))

    def data(self, chance: random.Random, ts_ms: int, most: int = 50) -> bytes:
        own_times = chance.random() < 0.6
        historical = chance.random() < 0.05
        typed = chance.random() < 0.1
        several = own_times and chance.random() < 0.1
        count = chance.randint(1, most if chance.random() < 0.1 else 4) if several else 1
        metrics: list[Metric] = []
        for n in range(count):
            for signal in picked(chance, self.class_.signals):
                at_ms = ts_ms + 1000 * n if own_times else None
                metrics.append(self._metric(chance, signal, at_ms, historical))
        if ts_ms % 50_000:
            metrics = self.folded(metrics, birth=False)
        elif ts_ms % 900_000 == 0:  # undeclared, and signals as plain metrics
            metrics.append(Metric("Drive", None, ts_ms, DataType.TEMPLATE, pack_template(metrics[:2], "x")))
        dice = chance.random()
        if dice < 0.003:
            chance.shuffle(metrics)
        elif dice < 0.006:
            metrics.append(chance.choice(metrics))
        elif dice < 0.008:
            last = max(self.aliases.values())
            metrics.append(Metric(alias=last + chance.choice([1, 2, 3, 4]), ts_ms=ts_ms, value=1.0))
        elif dice < 0.01:
            at = chance.randrange(len(metrics))
            other = chance.choice([None, ts_ms - 1000, 0, 2**41, 2**62])
            metrics[at] = metrics[at]._replace(ts_ms=other)
        seq = chance.randrange(256) if chance.random() < 0.98 else chance.choice([None, 256, 2**40])
        payload_ms = ts_ms if chance.random() < 0.99 else chance.choice([None, 0, ts_ms // 1000, 2**62])
        body = sparkplug.encode(Payload(payload_ms, seq, metrics), datatypes=typed)
        return _other_protobuf(chance, body) if chance.random() < 0.02 else body

    def folded(self, metrics: Sequence[Metric], *, birth: bool) -> list[Metric]:
        """Signals that the class's forms hold are put there, in a Template or DataSet for each time."""
        if not self.class_.forms:
            return list(metrics)
        names = {alias: name for name, alias in self.aliases.items()}
        folded = [metric for metric in metrics if metric.alias not in names]
        left = [metric for metric in metrics if metric.alias in names]
        for number, form in enumerate(self.class_.forms):
            parts = {part.signal: part.name for part in form.parts}
            held = [metric for metric in left if names[metric.alias or 0] in parts]
            left = [metric for metric in left if names[metric.alias or 0] not in parts]
            for ts_ms in dict.fromkeys(metric.ts_ms for metric in held):
                some = [metric for metric in held if metric.ts_ms == ts_ms]
                value = self._packed(form, [(parts[names[m.alias or 0]], m) for m in some], birth=birth)
                name = form.metric if birth or number else None
                alias = max(self.aliases.values()) + 10 + number
                folded.append(Metric(name, alias, ts_ms, value.datatype, value))
        return folded + left

    def _packed(
        self, form: TemplateForm | DataSetForm, held: Sequence[tuple[str, Metric]], *, birth: bool
    ) -> Packed:
        if isinstance(form, TemplateForm):
            members = [metric._replace(name=name, alias=None) for name, metric in held]
            return pack_template(members, form.definition, datatypes=birth)
        types = [metric.datatype for _, metric in held]
        row = [held[0][1].ts_ms, *(metric.value for _, metric in held)]
        return pack_data_set([form.time, *(name for name, _ in held)], [DataType.DATETIME, *types], [row])

    def _metric(self, chance: random.Random, signal: Signal, ts_ms: int | None, historical: bool) -> Metric:
        name, kind = signal.name, self.types[signal.name]
        content = value(chance, signal)
        if kind in (DataType.FLOAT, DataType.DOUBLE):
            fits = isinstance(content, float | int) and abs(content) < 1e38
            content = float(content) if fits else chance.choice([float("nan"), float("inf"), None])
        elif kind == DataType.BOOLEAN:
            content = bool(content)
        else:
            bits = 8 << (kind - 1) % 4
            low, high = (
                (0, 2**bits - 1) if kind >= DataType.UINT8 else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
            )
            whole = int(content) if isinstance(content, float | int) and abs(content) < 2**70 else 0
            content = min(max(low, whole if chance.random() < 0.9 else -whole), high)
        dice = chance.random()
        found = Metric(None, self.aliases[name], ts_ms, kind, content, is_historical=historical)
        if dice < 0.0005:
            return found._replace(name=name, alias=chance.choice([None, found.alias]))
        if dice < 0.001:
            return found._replace(value=None)
        if dice < 0.0015:
            return found._replace(datatype=DataType.STRING, value="1")
        if dice < 0.002:
            return found._replace(properties={"Quality": chance.choice([192, 0])})
        return found._replace(is_transient=True) if dice < 0.0025 else found


def _other_protobuf(chance: random.Random, body: bytes) -> bytes:
    """As other encoders write it: fields in another order, unknown ones, longer numbers; or nearly."""
    message = pb.Payload.FromString(body)
    head = b"\x08" + _varint(message.timestamp, chance.choice([0, 0, 8]))
    parts = []
    for metric in message.metrics:
        fields = _fields(metric.SerializeToString())
        if chance.random() < 0.3:
            chance.shuffle(fields)
        if chance.random() < 0.2:
            fields.insert(chance.randrange(len(fields) + 1), b"\xa0\x06\x01")  # field 100
        content = b"".join(fields)
        parts.append(b"\x12" + _varint(len(content), chance.choice([0, 0, 3])) + content)
    tail = b"\x18" + _varint(message.seq, chance.choice([0, 0, 0, 2, 3]))
    match chance.randrange(5):
        case 0:
            return b"".join([*parts, tail, head])
        case 1:
            return b"".join([tail, head, *parts])
        case 2:
            return b"".join([head, *parts, tail, *parts[:1]])
        case 3:
            return b"".join([head, head, *parts, tail, tail])
        case _:
            return b"".join([head, *parts, tail])


def _fields(content: bytes) -> list[bytes]:
    """A metric's fields, but for those of variable length other than numbers."""
    found, at = [], 0
    while at < len(content):
        begin = at
        tag, at = content[at], at + 1
        if tag & 7 == 0:
            while content[at] > 0x7F:
                at += 1
            at += 1
        elif tag & 7 == 2:
            at += 1 + content[at]
        else:
            at += 4 if tag & 7 == 5 else 8
        found.append(content[begin:at])
    return found


def _varint(number: int, least: int = 0) -> bytes:
    """`least`: bytes, of which the last may say nothing."""
    out = bytearray()
    while number > 0x7F or len(out) + 1 < least:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])
