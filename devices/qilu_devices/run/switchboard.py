"""Receiver of a run's commands: each is applied from a simulated time on, or refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.wire.commands import Answer, Command, Refused

from qilu_devices.commands import MAX_COMMANDS, ScheduledCommand, accept, received
from qilu_devices.fleet import Unit
from qilu_devices.simulation import Simulation


class Switchboard:
    """Accepts or refuses commands. `commands` are those that the run began with; accepted ones are appended
    to the same list. `now_ms` is the simulated time of the last reading, None while no command can be
    accepted. `save` makes the list durable. It is called from the event loop, once for all commands that
    arrived together, before anything else happens."""

    def __init__(
        self,
        simulation: Simulation,
        commands: list[ScheduledCommand],
        now_ms: Callable[[], int | None],
        save: Callable[[], None],
    ) -> None:
        self._commands = commands
        self._simulation, self._now_ms, self._save = simulation, now_ms, save
        self._unsaved = False

    def obey(self, unit: Unit | None, id_: str, body: bytes) -> Answer | None:
        """Apply the DCMD `body` to a unit, or refuse it with a reason (`unit` is None if the edge node does
        not have it). Returns None when `body` is not a Sparkplug payload."""
        return received(unit, id_, body, self._now_ms() or 0, self.carry_out)

    def carry_out(self, unit: Unit, command: Command, id_of_command: str = "") -> Answer:
        """Apply a command to a unit, or refuse it with a reason."""
        now_ms = self._now_ms()
        try:
            if now_ms is None or len(self._commands) >= MAX_COMMANDS:
                raise Refused("The run takes no commands now.")
            before = (earlier.at_ms + 1 for earlier in self._commands if earlier.unit == unit.id)
            at_ms = max(now_ms + 1, self._simulation.free_from_ms(unit), *before)
            scheduled = accept(CATALOGUE[unit.class_name], unit.id, command, at_ms)
        except Refused as refused:
            return Answer(id_of_command, unit.id, str(command), False, str(refused), now_ms or 0)
        self._simulation.obey(unit, scheduled)
        self._commands.append(scheduled)
        if not self._unsaved:
            self._unsaved = True
            asyncio.get_running_loop().call_soon(self._make_durable)
        return Answer(id_of_command, unit.id, str(command), True, "", at_ms)

    def _make_durable(self) -> None:
        self._unsaved = False
        self._save()
