"""Models of dead letters, and of requests about them."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from qilu_contract.errors import Reason

from qilu_platform.models.fields import MAX_INTEGER, Id

LetterId = Annotated[int, Field(ge=1, le=MAX_INTEGER)]
GatewayName = Annotated[str, Field(min_length=1, max_length=300)]


class GatewayOut(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"gateway": "gateway:8081", "problem": ""}]})

    gateway: str = Field(description="Host and port, and the shard of a gateway that shares shards.")
    problem: str = Field(description="Why the gateway does not answer; empty if it does.")


class GatewaysOut(BaseModel):
    items: list[GatewayOut]


class LetterOut(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": 7,
                    "reason": "unknown_unit",
                    "detail": "my-motor is not registered",
                    "topic": "qilu/v1/telemetry/my-motor",
                    "unit": "my-motor",
                    "payload": '{"ts": 1767225600000, "power_in": 11.2}',
                    "payload_bytes": 39,
                    "whole": True,
                    "readings": 1,
                    "first_seen_ms": 1767225600000,
                    "last_seen_ms": 1767225600000,
                }
            ]
        }
    )

    id: int
    reason: str
    detail: str
    topic: str
    unit: str | None
    payload: str = Field(description="The beginning of the message; what is not UTF-8 as \\xNN.")
    payload_bytes: int
    whole: bool = Field(description="The gateway kept all of it, so it can be replayed.")
    readings: int
    first_seen_ms: int
    last_seen_ms: int


class LettersOut(BaseModel):
    """The newest first."""

    gateway: bool = Field(description="False where the platform knows no gateway.")
    items: list[LetterOut]
    next: int | None = Field(description="`before_id` of the next page; null: there is none.")


class LettersIn(BaseModel):
    """The dead letters that match everything given, of one gateway; at most 1,000 in one call."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"reason": "unknown_unit", "unit": "my-motor"}]}
    )

    gateway: GatewayName | None = None
    """The first one unless given."""
    id: LetterId | None = None
    reason: Reason | None = None
    unit: Id | None = None
    before_id: LetterId | None = None
    """Only letters with a lower id: continues after the previous call."""


class LettersReplayedOut(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"done": 6, "readings": 6, "kept": 1, "before_id": None}]}
    )

    done: int = Field(description="Letters that the gateway accepted; they are gone.")
    readings: int
    kept: int = Field(description="Letters that were refused again, or were too long to be kept whole.")
    before_id: int | None = Field(description="Continue with this unless it is null.")
