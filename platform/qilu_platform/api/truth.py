"""Ground truth of simulated units, beside what their limits see."""

from __future__ import annotations

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field
from qilu_contract.readings import MAX_TIME_MS

from qilu_platform.api.common import NOT_FOUND, PROBLEMS, AnId, Reader, RuntimeDep, answer
from qilu_platform.api.readings import asking, unit_of
from qilu_platform.broker import commanding
from qilu_platform.monitoring import truth

router = APIRouter(prefix="/v1/units", tags=["alarms"], responses=PROBLEMS | NOT_FOUND)
MAX_COMMANDS = 1_000


class SeenOut(BaseModel):
    signal: str
    since_ms: int
    after_s: float = Field(description="Seconds since the fault began.")
    ended_ms: int | None
    limit: float | None
    worst: float | None


class PlayedFaultOut(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "command": "cmd-0d1f2a3b4c5d6e7f",
                    "fault": "cavitation",
                    "severity": 0.9,
                    "onset_s": 5.0,
                    "from_ms": 1767225600000,
                    "until_ms": None,
                    "shows": ["casing_accel"],
                    "alarms": [
                        {
                            "signal": "casing_accel",
                            "since_ms": 1767225612000,
                            "after_s": 12.0,
                            "ended_ms": None,
                            "limit": 10.0,
                            "worst": 14.2,
                        }
                    ],
                }
            ]
        }
    )

    command: str
    fault: str
    severity: float
    onset_s: float | None = Field(description="Null: as long as such faults usually take to develop.")
    from_ms: int = Field(description="By the unit's clock.")
    until_ms: int | None = Field(description="By a repair, or by itself; null: it lasts, or ends by itself.")
    shows: list[str] = Field(description="Signals that the fault changes.")
    alarms: list[SeenOut] = Field(
        description="Of each of these signals the first alarm while the fault lasts; empty: no limit saw it."
    )


class TruthOut(BaseModel):
    unit: str
    faults: list[PlayedFaultOut] = Field(description="Played into the unit, the newest first.")


@router.get("/{id}/truth", response_model=TruthOut)
async def get_unit_truth(runtime: RuntimeDep, caller: Reader, id: AnId) -> Response:
    """The faults that were played into a simulated unit by commands, and the alarms that saw them.
    Telemetry never names a fault; faults that occur by chance are in `faults.parquet` of the simulation."""
    unit = await unit_of(runtime, caller, id)
    commands = await runtime.database.read(lambda found: commanding.of_unit(found, id, MAX_COMMANDS))
    if not any(each["command"]["command"] == "fault" for each in commands):
        return answer({"unit": id, "faults": []})
    async with asking(runtime) as store:
        points = await store.newest("alarm", {"unit": id}, 0, MAX_TIME_MS, MAX_COMMANDS)
    return answer({"unit": id, "faults": truth.faults(unit["class"], commands, points)})
