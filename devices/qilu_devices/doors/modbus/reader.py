"""Modbus TCP client of an edge node: polls the registers of all units."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.errors import ConfigError
from qilu_contract.wire.clock import wall_ms
from qilu_contract.wire.commands import Command, Refused

from qilu_devices.doors.collector import Collector
from qilu_devices.doors.edge_config import EdgeConfig, Source
from qilu_devices.doors.modbus.server import address_of
from qilu_devices.doors.registers import MAX_READ, RUN_COIL, RegisterMap
from qilu_devices.doors.southbound import ReadError
from qilu_devices.simulation import shape_at

_REGISTERS = {"16": 1, "32": 2, "64": 4}


def reader(config: EdgeConfig, _state: Path) -> ModbusReader:
    """The reader of a configuration. Raises ConfigError when the address is not one of Modbus, or a class
    needs more registers than one request has."""
    for source in config.sources:
        if (
            not source.registers
            and RegisterMap(CATALOGUE[source.unit.class_name], source.format).size > MAX_READ
        ):
            raise ConfigError(
                f"Class {source.unit.class_name} needs more than {MAX_READ} registers: give the register of "
                "each signal under 'signals'."
            )
    return ModbusReader(config)


class ModbusReader:
    """Polls one server; commands use its connection."""

    def __init__(self, config: EdgeConfig) -> None:
        self._config = config
        self._host, self._port = address_of(config.url)
        self._maps = {
            source.unit.id: RegisterMap(CATALOGUE[source.unit.class_name], source.format)
            for source in config.sources
        }
        self._client: AsyncModbusTcpClient | None = None
        logging.getLogger("pymodbus").setLevel(logging.CRITICAL)  # errors are raised as well

    async def run(self, collector: Collector) -> None:
        client = AsyncModbusTcpClient(self._host, port=self._port, reconnect_delay=0)
        try:
            if not await client.connect():
                raise ReadError("no connection")
            self._client = client
            loop = asyncio.get_running_loop()
            next_s = loop.time()
            while True:
                for source in self._config.sources:
                    await self._poll(client, source, collector)
                next_s = max(next_s + self._config.every_ms / 1000, loop.time())
                await asyncio.sleep(next_s - loop.time())
        except ModbusException as error:
            raise ReadError(str(error)) from error
        finally:
            self._client = None
            client.close()

    async def _poll(self, client: AsyncModbusTcpClient, source: Source, collector: Collector) -> None:
        if source.registers:
            await self._poll_mapped(client, source, collector)
            return
        map_ = self._maps[source.unit.id]
        registers = await self._read(client, source, "input", 0, map_.size)
        ts_ms, number, values = map_.decode(registers)
        if not ts_ms:
            return
        now_s = asyncio.get_running_loop().time()
        for position in self._fresh(collector, source, number):
            collector.take(source.unit.id, position, ts_ms, values[position], now_s)

    def _fresh(self, collector: Collector, source: Source, number: int) -> tuple[int, ...]:
        """Positions of the signals that sample `number` has; all of them, until each had a value."""
        equipment = CATALOGUE[source.unit.class_name]
        if source.unit.id in collector.incomplete:
            return tuple(range(len(equipment.signals)))
        return shape_at(equipment, number).positions

    async def _poll_mapped(self, client: AsyncModbusTcpClient, source: Source, collector: Collector) -> None:
        """Read the registers of a foreign server. Their time is that of the poll."""
        ts_ms, values = wall_ms(), []
        for signal in CATALOGUE[source.unit.class_name].signals:
            entry = source.registers[signal.name]
            count = _REGISTERS[entry.type[-2:]]
            registers = await self._read(client, source, entry.table, entry.address, count)
            values.append(source.format.number(registers, entry.type) * entry.scale)
        now_s = asyncio.get_running_loop().time()
        for position, value in enumerate(values):
            collector.take(source.unit.id, position, ts_ms, value, now_s)

    async def _read(
        self, client: AsyncModbusTcpClient, source: Source, table: str, address: int, count: int
    ) -> list[int]:
        read: Any = client.read_input_registers if table == "input" else client.read_holding_registers
        answer = await read(address, count=count, device_id=source.device)
        if answer.isError():
            raise ReadError(f"device {source.device} answers {answer}")
        registers: list[int] = answer.registers
        return registers

    async def command(self, source: Source, command: Command) -> None:
        client = self._client
        if client is None:
            raise Refused("The server is unavailable.")
        if source.registers or command.kind not in ("start", "stop", "set_point"):
            raise Refused(f"The edge node has no register for {command}.")
        try:
            if command.kind != "set_point":
                answer: Any = await client.write_coil(
                    RUN_COIL, command.kind == "start", device_id=source.device
                )
            else:
                address, registers = self._maps[source.unit.id].set_point_registers(
                    command.name, command.value
                )
                answer = await client.write_registers(address, registers, device_id=source.device)
        except (ModbusException, KeyError, OverflowError) as error:
            raise Refused(f"The server cannot take {command}: {error}.") from error
        if answer.isError():
            raise Refused(f"The server refuses {command}: exception {answer.exception_code}.")
