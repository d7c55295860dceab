"""Commands to simulated units: whether a class accepts one, and its effect.

A command applies from a simulated time for which nothing of the unit has been computed yet. With that time it
is part of the run, like scenario, seed and start: recomputing the run gives the same values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeVar

import msgspec
from qilu_contract.catalogue.equipment import EquipmentClass, Fault, SetPoint
from qilu_contract.errors import BadReading
from qilu_contract.wire import sparkplug
from qilu_contract.wire.commands import Answer, Command, Kind, Refused, command_id, parse_command

from qilu_devices.faults import HOUR_MS, FaultPlan, Order
from qilu_devices.fleet import Unit

_Named = TypeVar("_Named", Fault, SetPoint)
_Answer = TypeVar("_Answer")

MAX_FAULT_MS = 366 * 24 * HOUR_MS
MAX_COMMANDS = 100_000
"""Maximum number of commands per run: the manifest holds each, and every fault and repair is checked at each
step."""


class ScheduledCommand(msgspec.Struct, frozen=True, omit_defaults=True):
    """A command that applies to a unit from `at_ms` (UTC, simulated) on; the other fields are those of
    Command."""

    unit: str
    at_ms: int
    kind: Kind
    name: str = ""
    value: float = 1.0
    duration_ms: int = 0
    onset_ms: int = -1
    """Time in which a fault develops; -1 for its usual share of the duration."""


def received(
    unit: Unit | None,
    id_: str,
    body: bytes,
    now_ms: int,
    carry_out: Callable[[Unit, Command, str], _Answer],
) -> Answer | _Answer | None:
    """Decode the DCMD `body` and pass the command to `carry_out` with its unit and id; returns the answer.
    An invalid command is refused, and so is one whose `unit` is None: the edge node does not have it. Returns
    None when `body` is not a Sparkplug payload."""
    try:
        payload = sparkplug.decode(body)
    except BadReading:
        return None
    text, id_of_command = "", command_id(payload)
    try:
        command = parse_command(payload)
        text = str(command)
        if unit is None:
            raise Refused(f"{id_} is no unit of this edge node.")
    except Refused as refused:
        return Answer(id_of_command, id_, text, False, str(refused), now_ms)
    return carry_out(unit, command, id_of_command)


def accept(equipment: EquipmentClass, unit: str, command: Command, at_ms: int) -> ScheduledCommand:
    """Check a command; returns it with the time `at_ms` from which it applies. Raises Refused with the
    reason."""
    name, value, duration_ms, onset_ms = command.name, command.value, 0, -1
    match command.kind:
        case "start" | "stop" if not equipment.stoppable:
            raise Refused(f"Units of class {equipment.name} are not started or stopped by command.")
        case "set_point":
            point = _named(equipment, equipment.set_points, "set point", name)
            if not point.low <= value <= point.high:  # nan is not within either
                raise Refused(
                    f"Set point {name} of class {equipment.name} takes {point.low:g} to {point.high:g} "
                    f"{point.unit}, not {value:g}."
                )
        case "fault":
            fault = _named(equipment, equipment.faults, "fault", name)
            if not 0.0 < value <= 1.0:
                raise Refused(f"The severity of a fault is more than 0 and at most 1, not {value:g}.")
            asked_ms = 1000.0 * command.duration_s if command.duration_s is not None else None
            duration_ms = round((fault.develop_h + fault.repair_h) * HOUR_MS)
            if asked_ms is not None:
                if not 1.0 <= asked_ms <= MAX_FAULT_MS:
                    raise Refused(
                        f"A fault lasts from a millisecond to 366 days, not {command.duration_s:g} s."
                    )
                duration_ms = round(asked_ms)
            if command.onset_s is not None:
                if not 0.0 <= 1000.0 * command.onset_s <= duration_ms:
                    raise Refused(
                        f"A fault develops in 0 to {duration_ms / 1000:g} s, as long as it lasts, not in "
                        f"{command.onset_s:g} s."
                    )
                onset_ms = round(1000.0 * command.onset_s)
    return ScheduledCommand(unit, at_ms, command.kind, name, value, duration_ms, onset_ms)


def _named(equipment: EquipmentClass, items: Iterable[_Named], kind: str, name: str) -> _Named:
    known = {item.name: item for item in items}
    if name not in known:
        raise Refused(f"Class {equipment.name} has no {kind} {name!r}: it has {', '.join(known) or 'none'}.")
    return known[name]


def with_commands(plan: FaultPlan, commands: Iterable[ScheduledCommand]) -> FaultPlan:
    """Combine the fault plan of a scenario with the faults and repairs of commands."""
    orders, repairs = [], []
    for given in commands:
        if given.kind == "fault":
            onset_ms = None if given.onset_ms < 0 else given.onset_ms
            orders.append(
                Order(given.unit, given.name, given.at_ms, True, given.duration_ms, given.value, onset_ms)
            )
        elif given.kind == "reset":
            repairs.append((given.unit, given.at_ms))
    if not orders and not repairs:
        return plan
    return replace(plan, orders=(*plan.orders, *orders), repairs=(*plan.repairs, *repairs))
