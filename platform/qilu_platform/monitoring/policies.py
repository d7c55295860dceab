"""Outcomes of policies, computed by the programme's model in a separate process."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import msgspec

TIME_LIMIT_S = 60.0
"""A run takes 3 s on an idle machine."""
MAX_WAITING = 4
"""Maximum number of callers that wait for another run; further ones must retry later."""
MAX_KEPT = 200
"""Outcomes that are remembered; one has 2 kB."""
NICENESS = 10
"""Ingest goes first."""


class ModelBusy(Exception):
    """Too many wait for it."""


class ModelFailed(Exception):
    """The model gave no outcome; the text says why."""


class PolicyModel:
    """Runs `command` for one policy at a time: the policy as JSON on its stdin, the outcome on its stdout."""

    def __init__(self, command: tuple[str, ...]) -> None:
        self._command = command
        self._kept: dict[bytes, dict[str, Any]] = {}
        self._one = asyncio.Lock()
        self._waiting = 0

    async def outcome(self, policy: dict[str, Any]) -> dict[str, Any]:
        """Raises ModelBusy or ModelFailed."""
        key = msgspec.json.encode(policy, order="sorted")
        if (kept := self._kept.get(key)) is not None:
            return kept
        if self._waiting >= MAX_WAITING:
            raise ModelBusy
        self._waiting += 1
        try:
            async with self._one:
                if key not in self._kept:  # else the caller before this one asked the same
                    found = await self._run(key)
                    if len(self._kept) >= MAX_KEPT:
                        del self._kept[next(iter(self._kept))]
                    self._kept[key] = found
                return self._kept[key]
        finally:
            self._waiting -= 1

    async def _run(self, policy: bytes) -> dict[str, Any]:
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command, stdin=pipe, stdout=pipe, stderr=pipe, preexec_fn=_step_back
            )
        except OSError as error:
            raise ModelFailed(f"{self._command[0]} cannot be started: {error.strerror}") from error
        try:
            async with asyncio.timeout(TIME_LIMIT_S):
                output, fault = await process.communicate(policy)
        except TimeoutError as error:
            raise ModelFailed(f"it took longer than {TIME_LIMIT_S:.0f} s") from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            lines = fault.decode(errors="replace").strip().splitlines()
            raise ModelFailed(lines[-1] if lines else f"it ended with {process.returncode}")
        found: dict[str, Any] = msgspec.json.decode(output)
        return found


def _step_back() -> None:
    os.nice(NICENESS)
