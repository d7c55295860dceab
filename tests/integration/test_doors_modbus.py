"""The Modbus door, read by the library's own client."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from pymodbus.client import AsyncModbusTcpClient
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.readings import Value
from qilu_devices.doors.modbus.server import ModbusDoor
from qilu_devices.doors.registers import Format, RegisterMap
from qilu_devices.doors.serving import serve
from qilu_devices.run.config import RunConfig
from qilu_devices.run.manifest import load_manifest
from qilu_devices.scenario import load_scenario
from qilu_devices.simulation import samples

SCENARIO = load_scenario()
SOAK = os.environ.get("QILU_SOAK") == "1"
START_MS = 1_717_400_000_000  # a Monday in June, 15:33 in Shandong: everybody is at work
UNITS = 10
TYPES = {each.name.lower(): each for each in AsyncModbusTcpClient.DATATYPE}
Found = dict[tuple[str, int], dict[str, Value]]


async def poll(client: AsyncModbusTcpClient, config: RunConfig, found: Found) -> None:
    """Read every unit once; its values are decoded by the library, as the map documents them."""
    for number, unit in enumerate(config.fleet(), 1):
        equipment = CATALOGUE[unit.class_name]
        entries = RegisterMap(equipment, Format("CDAB", "scaled" if number == 1 else "float")).entries
        last = entries[-1]
        answer = await client.read_input_registers(0, count=last.address + last.registers, device_id=number)
        assert not answer.isError(), answer
        values = {
            entry.name: client.convert_from_registers(
                answer.registers[entry.address : entry.address + entry.registers], TYPES[entry.type], "little"
            )
            * entry.scale
            for entry in entries
        }
        ts_ms, k = round(values.pop("sample_time")), round(values.pop("sample_number"))
        if ts_ms:
            found[unit.id, ts_ms] = {
                signal.name: signal.round(values[signal.name])
                for signal in equipment.signals
                if k % (signal.interval_s // equipment.base_interval_s) == 0
            }


async def test_every_value_is_the_simulations_sample_and_a_coil_stops_a_motor(
    free_port: Callable[[], int], tmp_path: Path
) -> None:
    speed = 1.0 if SOAK else 4.0
    for_s = 60.0 if SOAK else 20.0
    config = RunConfig(
        "", SCENARIO, seed=3, units=UNITS, start_ms=START_MS, speed=speed, for_s=for_s, state=tmp_path / "run"
    )
    motor_id, motor = next(
        (number, unit) for number, unit in enumerate(config.fleet(), 1) if unit.class_name == "motor"
    )
    port, found = free_port(), Found()
    door = ModbusDoor(f"127.0.0.1:{port}", Format("CDAB"), {1: Format("CDAB", "scaled")})
    stop, listening = asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(
        serve(config, [door], stop, wait=True, linger_s=60.0, listening=listening.set)
    )
    await listening.wait()
    client = AsyncModbusTcpClient("127.0.0.1", port=port)
    try:
        assert await client.connect()
        refused = await client.write_coil(0, False, device_id=motor_id)
        assert refused.exception_code == 3, "the run has not begun yet"
        while not found:
            await poll(client, config, found)
        assert not (await client.write_coil(0, False, device_id=motor_id)).isError()
        load = client.convert_to_registers(500.0, TYPES["float32"], "little")
        assert (await client.write_registers(0, load, device_id=motor_id)).exception_code == 3
        assert (await client.write_registers(1, load, device_id=motor_id)).exception_code == 2

        def until_ms() -> int:
            return max(ts_ms for _, ts_ms in found)

        commands = load_manifest(tmp_path / "run").commands
        expected = samples(SCENARIO, 3, START_MS, UNITS, None, START_MS + round(for_s * 1000), commands)
        wanted = {(unit, ts_ms): values for unit, all_ in expected.items() for ts_ms, values in all_}
        end_ms = max(ts_ms for _, ts_ms in wanted)
        while until_ms() < end_ms:
            await poll(client, config, found)
            await asyncio.sleep(0)
        await poll(client, config, found)
    finally:
        client.close()
        stop.set()
        await running
    assert [command.kind for command in commands] == ["stop"]
    assert found.items() <= wanted.items()
    assert {unit for unit, _ in found} == {unit.id for unit in config.fleet()}
    # A client that polls between two samples misses none; on a busy machine it may.
    assert len(found) >= len(wanted) // 2
    # Polls between the first sample and the coil may have read one more.
    stopped_ms = commands[0].at_ms
    at_end = [values for (unit, ts_ms), values in found.items() if unit == motor.id and ts_ms >= stopped_ms]
    assert at_end
    assert all(values["power_in"] == 0.0 for values in at_end)
