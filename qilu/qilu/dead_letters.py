"""Dead letters on the command line: read from the state file; replayed or purged by the running gateway, or
purged here while none runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import httpx2
import msgspec
from qilu_contract.errors import ConfigError, QiluError, Reason
from qilu_gateway.endpoint import ADDRESS_FILE, KEY_FILE
from qilu_gateway.service import STATE_SCHEMAS
from qilu_gateway.settle import dead_letters
from qilu_gateway.settle.dead_letters import Bounds, Row
from qilu_gateway.settle.letter_office import Choice, LetterOffice, Outcome
from qilu_gateway.statefile import FILE_NAME, StateFile

PATIENCE = httpx2.Timeout(150, connect=5)
"""Timeout; longer than the gateway's timeout of a replay."""


def read(
    state: Path,
    *,
    id: int | None = None,
    reason: str | None = None,
    unit: str | None = None,
    limit: int = 100,
) -> list[Row]:
    """Read the latest letters of the gateway with this state directory. Raises ConfigError."""
    with dead_letters.open_for_reading(state / FILE_NAME) as connection:
        return dead_letters.list_rows(connection, id=id, reason=_reason(reason), unit=unit, limit=limit)


async def move(
    what: Literal["replay", "purge"], state: Path, *, id: int | None, reason: str | None, unit: str | None
) -> Outcome:
    """Replay or purge all letters that match. Raises ConfigError, or QiluError when the gateway fails to do
    so."""
    choice = Choice(id=id, reason=_reason(reason), unit=unit)
    total = Outcome()
    while True:
        outcome = await _ask(what, state, choice)
        if outcome is None:
            outcome = await _purge(what, state, choice)
        total = Outcome(
            total.done + outcome.done, total.readings + outcome.readings, total.kept + outcome.kept
        )
        if outcome.before_id is None:
            return total
        choice.before_id = outcome.before_id


async def _ask(what: str, state: Path, choice: Choice) -> Outcome | None:
    """Call the running gateway; returns its answer, or None when none runs."""
    try:
        address = (state / ADDRESS_FILE).read_text(encoding="utf-8").strip()
        key = (state / KEY_FILE).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{error.filename} cannot be read: {error.strerror}.") from error
    headers = {"Authorization": f"Bearer {key}"}
    try:
        async with httpx2.AsyncClient(base_url=address, timeout=PATIENCE, trust_env=False) as http:
            answer = await http.post(
                f"/dead-letters/{what}", content=msgspec.json.encode(choice), headers=headers
            )
    except httpx2.ConnectError:
        return None
    except httpx2.HTTPError as error:
        raise QiluError(
            f"The gateway at {address} has not answered ({error or type(error).__name__}): "
            "letters that it did not come to stay as they are; try again."
        ) from error
    if answer.status_code != 200:
        raise QiluError(
            f"The gateway at {address} answered {answer.status_code}: {answer.text.strip()[:200]}"
        )
    return msgspec.json.decode(answer.content, type=Outcome)


async def _purge(what: str, state: Path, choice: Choice) -> Outcome:
    if what == "replay":
        raise QiluError(
            f"No gateway with --state {state} runs: start it first, because it processes its dead letters."
        )
    if not (state / FILE_NAME).is_file():  # quick, in a separate process
        raise ConfigError(f"{state / FILE_NAME} does not exist: give the --state of a gateway that has run.")
    async with StateFile(state, STATE_SCHEMAS) as file:
        return await LetterOffice(file, Bounds(), _nobody).purge(choice)


async def _nobody(topic: str, payload: bytes, past_ms: int) -> frozenset[Reason]:
    raise NotImplementedError


def _reason(word: str | None) -> Reason | None:
    if word is None or word in set(Reason):
        return None if word is None else Reason(word)
    raise ConfigError(f"--reason {word}: there are {', '.join(Reason)}.")
