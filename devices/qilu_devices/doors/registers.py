"""Register maps: where a unit's values are in its input registers, generated from the catalogue.

The first registers hold the time and the number of the sample, so that a client can tell samples apart, and
knows which signals this one has: sample k has those whose interval, in multiples of the shortest, divides k.
All registers of a sample change at once; read them with one request.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from qilu_contract.catalogue.classes import EquipmentClass, Signal
from qilu_contract.catalogue.titles import titles
from qilu_contract.errors import ConfigError

Order = Literal["ABCD", "CDAB", "BADC", "DCBA"]
Numbers = Literal["float", "scaled"]
FIRST_SIGNAL = 10
"""Address of the first signal; the addresses before it are for the sample's time and number."""
MAX_READ = 125
"""Registers of one request, by the Modbus specification."""
RUN_COIL = 0
"""Coil of classes that commands may start and stop: 1 starts, 0 stops."""

_INT32 = range(-(2**31), 2**31)


class Format(NamedTuple):
    """Encoding of values with several registers. `order`: order of the bytes of a 32-bit value, in which A is
    the most significant. `numbers`: IEEE 754 floats, or whole numbers to be multiplied by the scale."""

    order: Order = "ABCD"
    numbers: Numbers = "float"

    @classmethod
    def parse(cls, text: str) -> Format:
        """From `CDAB,scaled` or `CDAB`. Raises ConfigError."""
        order, _, numbers = text.partition(",")
        if order not in get_args(Order) or (numbers or "float") not in get_args(Numbers):
            raise ConfigError(
                f"{text!r} is no register format: write one of {', '.join(get_args(Order))}, and ',float' or "
                "',scaled' after it."
            )
        return cls(order, numbers or "float")  # type: ignore[arg-type]  # checked above

    def number(self, registers: Sequence[int], type_: str) -> float:
        """The number in registers, by the name of its type."""
        body = np.array(registers, dtype=">u2").view(np.uint8)
        if len(registers) > 1:
            body = _ordered(body, self.order)
        return float(struct.unpack(">" + _LETTERS[type_], body.tobytes())[0])


PLAIN = Format()


class Entry(NamedTuple):
    """A value in registers: its address, their number, its type, and the factor from register to value."""

    name: str
    address: int
    registers: int
    type: str
    scale: float
    unit: str
    title: str


class _Code(NamedTuple):
    code: str
    registers: int
    type: str


_CODES = {
    "H": _Code("H", 1, "uint16"),
    "i": _Code("i", 2, "int32"),
    "q": _Code("q", 4, "int64"),
    "f": _Code("f", 2, "float32"),
    "d": _Code("d", 4, "float64"),
    "I": _Code("I", 2, "uint32"),
    "Q": _Code("Q", 4, "uint64"),
}


_LETTERS = {code.type: code.code for code in _CODES.values()} | {"uint16": "H", "int16": "h"}


def _code(signal: Signal, numbers: Numbers) -> _Code:
    if signal.type == "bool":
        return _CODES["H"]
    if signal.type == "float" and numbers == "float":
        return _CODES["d" if signal.is_wide else "f"]
    largest = max(signal.high, -signal.low) * signal.steps_per_unit
    return _CODES["i" if round(largest) in _INT32 else "q"]


class Snapshot(NamedTuple):
    """A decoded sample; `ts_ms` is 0 before the first. `values` are those of all the class's signals."""

    ts_ms: int
    number: int
    values: tuple[float, ...]


@dataclass(frozen=True)
class RegisterMap:
    """Registers of one class in one format: input registers for signals, holding registers for set points."""

    equipment: EquipmentClass
    format: Format = PLAIN

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """Input registers (function 4)."""
        header = (
            Entry(
                "sample_time",
                0,
                4,
                "uint64",
                1.0,
                "ms since 1970, UTC",
                "Time of the sample; 0 before the first",
            ),
            Entry("sample_number", 4, 2, "uint32", 1.0, "", "Number of the sample, from 0"),
        )
        return header + self._laid_out(FIRST_SIGNAL, self._signal_entries())

    @cached_property
    def set_points(self) -> tuple[Entry, ...]:
        """Holding registers (functions 3 and 16)."""
        code = _CODES["f" if self.format.numbers == "float" else "i"]
        scale = 1.0 if code.code == "f" else 0.001
        found = [
            Entry(point.name, 0, code.registers, code.type, scale, point.unit, point.title)
            for point in self.equipment.set_points
        ]
        return self._laid_out(0, found)

    def _signal_entries(self) -> list[Entry]:
        found = []
        for signal in self.equipment.signals:
            code = _code(signal, self.format.numbers)
            scale = 1.0 if code.code in "fd" else 1.0 / signal.steps_per_unit
            title = titles("signal", self.equipment.name, signal.name).title
            found.append(Entry(signal.name, 0, code.registers, code.type, scale, signal.unit, title))
        return found

    def _laid_out(self, address: int, entries: Sequence[Entry]) -> tuple[Entry, ...]:
        placed = []
        for entry in entries:
            placed.append(entry._replace(address=address))
            address += entry.registers
        return tuple(placed)

    @property
    def size(self) -> int:
        """Number of input registers."""
        last = self.entries[-1]
        return last.address + last.registers

    @cached_property
    def _struct(self) -> struct.Struct:
        return struct.Struct(">QI8x" + "".join(_LETTERS[entry.type] for entry in self.entries[2:]))

    @cached_property
    def _places(self) -> NDArray[np.int64]:
        """For each byte on the wire, its place in the big-endian value. The order is its own inverse."""
        places = np.arange(2 * self.size)
        for entry in self.entries:
            begin, end = 2 * entry.address, 2 * (entry.address + entry.registers)
            if entry.registers > 1:
                places[begin:end] = _ordered(places[begin:end], self.format.order)
        return places

    @cached_property
    def _scales(self) -> list[float]:
        """Steps per unit of each signal that travels as a whole number; 0 for floats."""
        return [
            0.0 if entry.type.startswith("float") else signal.steps_per_unit
            for entry, signal in zip(self.entries[2:], self.equipment.signals, strict=True)
        ]

    def encode(self, snapshot: Snapshot) -> list[int]:
        """All input registers."""
        values = [
            round(value * steps) if steps else value
            for value, steps in zip(snapshot.values, self._scales, strict=True)
        ]
        body = np.frombuffer(self._struct.pack(snapshot.ts_ms, snapshot.number, *values), dtype=np.uint8)
        found: list[int] = body[self._places].view(">u2").tolist()
        return found

    def decode(self, registers: Sequence[int]) -> Snapshot:
        """A sample from all input registers; values are rounded to the catalogue's resolution."""
        body = np.array(registers, dtype=">u2").view(np.uint8)[self._places].tobytes()
        ts_ms, number, *values = self._struct.unpack(body)
        rounded = [
            signal.round(value / steps if steps else value)
            for signal, value, steps in zip(self.equipment.signals, values, self._scales, strict=True)
        ]
        return Snapshot(ts_ms, number, tuple(rounded))

    def set_point(self, entry: Entry, registers: Sequence[int]) -> float:
        """The value of a set point."""
        return self.format.number(registers, entry.type) * entry.scale

    def set_point_registers(self, name: str, value: float) -> tuple[int, list[int]]:
        """Address and registers of a set point. Raises KeyError when the class does not have it,
        OverflowError when the registers cannot hold the value."""
        entry = {each.name: each for each in self.set_points}[name]
        number = value if entry.type == "float32" else round(value / entry.scale)
        try:
            body = struct.pack(">" + _LETTERS[entry.type], number)
        except struct.error as error:
            raise OverflowError(f"{value:g} does not fit") from error
        ordered = _ordered(np.frombuffer(body, dtype=np.uint8), self.format.order)
        return entry.address, ordered.view(">u2").tolist()


def _ordered(values: NDArray[Any], order: Order) -> NDArray[Any]:
    """The bytes of one big-endian value in another order, and back."""
    pairs = values.reshape(-1, 2)
    if order in ("CDAB", "DCBA"):
        pairs = pairs[::-1]
    if order in ("BADC", "DCBA"):
        pairs = pairs[:, ::-1]
    return pairs.reshape(-1)
