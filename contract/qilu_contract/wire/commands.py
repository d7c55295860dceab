"""Commands to a unit and their answers, as Sparkplug carries them.

A command is a DCMD with one of the metrics `Device Control/Start`, `Device Control/Stop`, `Device
Control/Reset` (true), `Set Point/<name>` (a number) or `Fault/<name>` (a severity, with `Fault Duration` and
`Fault Onset` in seconds beside it if wanted). `Command/Id`, a text of the sender's choice, comes back with
the answer. The answer is an NDATA of the unit's edge node, whose birth names the answer's metrics.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

from qilu_contract.errors import QiluError
from qilu_contract.wire.sparkplug import DataType, Metric, Payload

Kind = Literal["set_point", "start", "stop", "reset", "fault"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_SWITCHES: dict[str, Kind] = {
    "Device Control/Start": "start",
    "Device Control/Stop": "stop",
    "Device Control/Reset": "reset",
}
_SET_POINT, _FAULT = "Set Point/", "Fault/"
_DURATION, _ONSET = "Fault Duration", "Fault Onset"
_ID, _UNIT, _COMMAND = "Command/Id", "Command/Unit", "Command/Command"
_STATE, _REASON = "Command/State", "Command/Reason"
ANSWER_METRICS = (_ID, _UNIT, _COMMAND, _STATE, _REASON)
"""All are texts; the payload's timestamp is the time from which an accepted command holds."""
MAX_TEXT = 200
"""Maximum length of an id, name or reason; longer texts are truncated as a protection."""


class Refused(QiluError):
    """A command that is not carried out; the text is the reason, in one sentence."""


class Command(NamedTuple):
    """`name` is the set point's or the fault's; `value` the set point or the fault's severity (0 to 1);
    `duration_s` how long a fault lasts and `onset_s` how long it takes to develop, None for as long as such
    faults usually do."""

    kind: Kind
    name: str = ""
    value: float = 1.0
    duration_s: float | None = None
    onset_s: float | None = None

    def __str__(self) -> str:
        return f"{self.kind} {self.name}".rstrip()


class Answer(NamedTuple):
    """A unit's answer to a command. `at_ms`: time from which it applies; `reason` is empty if it was
    accepted."""

    id: str
    unit: str
    command: str
    accepted: bool
    reason: str
    at_ms: int


def command_payload(command: Command, id_: str, ts_ms: int) -> Payload:
    """The DCMD of a command."""
    metrics = [Metric(_ID, datatype=DataType.STRING, value=id_)]
    match command.kind:
        case "set_point":
            metrics.append(_number(_SET_POINT + command.name, command.value))
        case "fault":
            metrics.append(_number(_FAULT + command.name, command.value))
            if command.duration_s is not None:
                metrics.append(_number(_DURATION, command.duration_s))
            if command.onset_s is not None:
                metrics.append(_number(_ONSET, command.onset_s))
        case switch:
            name = next(name for name, kind in _SWITCHES.items() if kind == switch)
            metrics.append(Metric(name, datatype=DataType.BOOLEAN, value=True))
    return Payload(ts_ms, None, metrics)


def _number(name: str, value: float) -> Metric:
    return Metric(name, datatype=DataType.DOUBLE, value=value)


def command_id(payload: Payload) -> str:
    """The sender's mark of a command, empty when there is none."""
    return next((_text(metric) for metric in payload.metrics if metric.name == _ID), "")


def parse_command(payload: Payload) -> Command:
    """Raises Refused when the payload is not exactly one command."""
    found: list[Command] = []
    duration_s: float | None = None
    onset_s: float | None = None
    for metric in payload.metrics:
        name = (metric.name or "")[:MAX_TEXT]
        if name == _ID:
            continue
        if name in _SWITCHES:
            if metric.value is not True:
                raise Refused(f"{name} takes true and nothing else.")
            found.append(Command(_SWITCHES[name]))
        elif name.startswith(_SET_POINT):
            found.append(Command("set_point", name.removeprefix(_SET_POINT), _float(name, metric)))
        elif name.startswith(_FAULT):
            found.append(Command("fault", name.removeprefix(_FAULT), _float(name, metric)))
        elif name == _DURATION:
            duration_s = _float(name, metric)
        elif name == _ONSET:
            onset_s = _float(name, metric)
        else:
            raise Refused(f"{name!r} is no command: use start, stop, reset, a set point or a fault.")
    if len(found) != 1:
        raise Refused(f"A message holds exactly one command, and this one holds {len(found)}.")
    return found[0]._replace(duration_s=duration_s, onset_s=onset_s)


def _float(name: str, metric: Metric) -> float:
    if isinstance(metric.value, bool) or not isinstance(metric.value, int | float):
        raise Refused(f"{name} takes a number.")
    return float(metric.value)


def answer_metrics(answer: Answer | None, ts_ms: int) -> list[Metric]:
    """The metrics of an answer; without one, as an edge node's birth names them. `ts_ms`: the payload's."""
    values: tuple[str | None, ...] = (None,) * len(ANSWER_METRICS)
    if answer is not None:
        state = "accepted" if answer.accepted else "refused"
        values = (answer.id, answer.unit, answer.command, state, answer.reason)
    return [
        Metric(name, ts_ms=ts_ms, datatype=DataType.STRING, value=value)
        for name, value in zip(ANSWER_METRICS, values, strict=True)
    ]


def parse_answer(payload: Payload) -> Answer | None:
    """The answer in an NDATA; None when it holds none."""
    values = {metric.name: _text(metric) for metric in payload.metrics if metric.name in ANSWER_METRICS}
    if len(values) < len(ANSWER_METRICS) or values[_STATE] not in ("accepted", "refused"):
        return None
    return Answer(
        values[_ID],
        values[_UNIT],
        values[_COMMAND],
        values[_STATE] == "accepted",
        values[_REASON],
        payload.ts_ms or 0,
    )


def _text(metric: Metric) -> str:
    return metric.value[:MAX_TEXT] if isinstance(metric.value, str) else ""
