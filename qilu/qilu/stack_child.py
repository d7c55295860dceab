"""The child process that fills a stack: simulated equipment, or the programme's player."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Self

from qilu_common.secrets import secret

from qilu.children import die_with_parent, end, ended_by, last_words, size
from qilu.keyring import Keyring
from qilu.stack_config import Child

STOP_CHILD_S = 3.0


class StackChild:
    """`async with` starts the command and ends it. `user`: its log-in at our own broker, None at another."""

    def __init__(
        self,
        child: Child,
        state: Path,
        keyring: Keyring,
        user: str | None,
        broker_url: str,
        platform_url: str,
    ) -> None:
        self._child, self._state, self._keyring, self._user = child, state, keyring, user
        self._broker_url, self._platform_url = broker_url, platform_url
        self._log = state / "log" / f"{child.name}.log"
        self._log_began = 0
        self.process: asyncio.subprocess.Process

    async def __aenter__(self) -> Self:
        child, folder = self._child, self._state / self._child.name
        command = [sys.executable, "-m", "qilu", *child.words]
        command += ["--broker", self._broker_url, "--platform", self._platform_url, "--state", str(folder)]
        if child.afresh:
            (folder / "run.json").unlink(missing_ok=True)
        self._log_began = size(self._log)
        with self._log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *command,
                env=self._environment(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=None if child.shown else log,
                stderr=None if child.shown else log,
                start_new_session=True,  # Ctrl-C is ours to pass on, in our order
                preexec_fn=die_with_parent,
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        await end(self.process, STOP_CHILD_S)

    def _environment(self) -> dict[str, str]:
        environment = dict(os.environ)
        if self._child.role != "admin" or secret("QILU_API_KEY") is None:  # one from outside is the admin key
            environment.pop("QILU_API_KEY", None)
            environment["QILU_API_KEY_FILE"] = str(self._keyring.key_file(self._child.role))
        if self._user is not None:
            environment["QILU_MQTT_USER"] = self._user
            environment["QILU_MQTT_PASSWORD_FILE"] = str(self._keyring.password_file(self._user))
        return environment

    def failure(self) -> str | None:
        """Why the command has failed, in its own words, if it has."""
        code = self.process.returncode
        if not code:
            return None
        why = ended_by(code)
        if code > 0 and (words := last_words(self._log, self._log_began)):
            why = words.rstrip(".")
        return f"The simulated equipment failed: {why} (log: {self._log})."
