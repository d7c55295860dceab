"""Modbus TCP server: each unit is a device id, from 1 on in the order of the fleet."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.errors import ConfigError
from qilu_contract.wire.commands import Command

from qilu_devices.doors.registers import PLAIN, RUN_COIL, Format, RegisterMap, Snapshot
from qilu_devices.doors.serving import Obey
from qilu_devices.fleet import Unit
from qilu_devices.simulation import Sample

MAX_UNITS = 247
"""Device ids of one server, by the Modbus specification."""
_READ_INPUT, _WRITE_COILS, _WRITE_REGISTERS = 4, (5, 15), (6, 16)


class _Device:
    """Registers of one unit."""

    def __init__(
        self, number: int, unit: Unit, format_: Format, obey: Obey, read: Callable[[int], None]
    ) -> None:
        self.number, self.unit = number, unit
        self._equipment = CATALOGUE[unit.class_name]
        self.map = RegisterMap(self._equipment, format_)
        self._obey, self._read = obey, read
        self._values = [0.0] * len(self._equipment.signals)
        self._samples = 0
        self._registers = [0] * self.map.size

    def take(self, sample: Sample) -> None:
        for position, value in zip(sample.shape.positions, sample.values, strict=True):
            self._values[position] = value
        self._registers = self.map.encode(Snapshot(sample.ts_ms, self._samples, tuple(self._values)))
        self._samples += 1

    def as_device(self) -> SimDevice:
        coils = [SimData(RUN_COIL, values=True, count=16, datatype=DataType.BITS)]
        inputs = [SimData(0, values=0, count=self.map.size, datatype=DataType.REGISTERS)]
        held = sum(entry.registers for entry in self.map.set_points)
        holding = [SimData(0, values=0, count=max(1, held), datatype=DataType.REGISTERS)]
        return SimDevice(self.number, (coils, coils, holding, inputs), action=self._act)

    async def _act(
        self,
        function_code: int,
        start_address: int,
        address: int,
        count: int,
        current_registers: list[int],
        set_values: list[int] | list[bool] | None,
    ) -> ExcCodes | None:
        """Called by the library before it reads or writes registers."""
        if function_code == _READ_INPUT:
            at = address - start_address
            current_registers[at : at + count] = self._registers[address : address + count]
            self._read(self.number)
        elif function_code in _WRITE_COILS and set_values:
            return self._switch(address, set_values)
        elif function_code in _WRITE_REGISTERS and set_values:
            return self._set(address, [int(value) for value in set_values])
        return None

    def _switch(self, address: int, values: Sequence[int | bool]) -> ExcCodes | None:
        if address != RUN_COIL or len(values) != 1 or not self._equipment.stoppable:
            return ExcCodes.ILLEGAL_ADDRESS
        return self._carry_out([Command("start" if values[0] else "stop")])

    def _set(self, address: int, registers: list[int]) -> ExcCodes | None:
        """Set points are written whole."""
        commands = []
        end = address + len(registers)
        for entry in self.map.set_points:
            if entry.address < end and address < entry.address + entry.registers:
                at = entry.address - address
                if at < 0 or at + entry.registers > len(registers):
                    return ExcCodes.ILLEGAL_ADDRESS
                value = self.map.set_point(entry, registers[at : at + entry.registers])
                commands.append(Command("set_point", entry.name, value))
        return self._carry_out(commands) if commands else ExcCodes.ILLEGAL_ADDRESS

    def _carry_out(self, commands: Sequence[Command]) -> ExcCodes | None:
        answers = [self._obey(self.unit, command) for command in commands]
        return None if all(answer.accepted for answer in answers) else ExcCodes.ILLEGAL_VALUE


def address_of(text: str) -> tuple[str, int]:
    """Host and port of `127.0.0.1:5020`. Raises ConfigError."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(f"{text!r} is no address of a Modbus server: write 127.0.0.1:5020.")
    return host.strip("[]"), int(port)


class ModbusDoor:
    """A Modbus TCP server at `address` (host:port). `formats`: register formats by device id; others have
    `default`. Raises ConfigError for an address that cannot be used."""

    def __init__(
        self, address: str, default: Format = PLAIN, formats: Mapping[int, Format] | None = None
    ) -> None:
        self._text, (self._host, self._port) = address, address_of(address)
        self._default, self._formats = default, formats or {}
        self._devices: dict[str, _Device] = {}
        self._unread: set[int] = set()
        self._read_whole = asyncio.Event()

    @property
    def address(self) -> str:
        return f"modbus://{self._text}"

    @property
    def read_whole(self) -> asyncio.Event:
        return self._read_whole

    @asynccontextmanager
    async def opened(self, units: Sequence[Unit], obey: Obey) -> AsyncIterator[None]:
        if len(units) > MAX_UNITS:
            raise ConfigError(
                f"A Modbus server has at most {MAX_UNITS} device ids, not {len(units)}: give fewer --units, "
                "or a --shard of them."
            )
        logging.getLogger("pymodbus").setLevel(logging.CRITICAL)  # it logs every malformed request
        self._unread = set(range(1, len(units) + 1))
        self._devices = {
            unit.id: _Device(number, unit, self._formats.get(number, self._default), obey, self._note_read)
            for number, unit in enumerate(units, 1)
        }
        devices = [device.as_device() for device in self._devices.values()]
        server = ModbusTcpServer(devices, address=(self._host, self._port))
        if not await server.listen():
            raise ConfigError(f"--modbus {self._text} cannot be opened: is the port in use or reserved?")
        try:
            yield
        finally:
            server.close()

    def _note_read(self, number: int) -> None:
        self._unread.discard(number)
        if not self._unread:
            self._read_whole.set()

    async def take(self, samples: Sequence[Sample]) -> None:
        for sample in samples:
            self._devices[sample.unit.id].take(sample)
