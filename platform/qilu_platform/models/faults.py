"""Converts pydantic's errors to sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MAX_SHOWN = 80
"""Characters of a wrong value that are repeated to the caller."""


def faults(errors: Sequence[Any]) -> list[dict[str, str]]:
    """Pydantic's errors as {where, what}, the value shown shortened."""
    found = []
    for error in errors:
        place = [str(part) for part in error["loc"] if part not in ("body", "query", "path")]
        what = str(error["msg"]).removeprefix("Value error, ")
        if error["type"] == "json_invalid" and place:
            what, place = f"not JSON, from character {place[0]}: {error['ctx']['error']}", []
        if error["type"] in ("model_attributes_type", "model_type") and not place:
            what = "not a JSON object; send one, with `Content-Type: application/json`"
        value = error.get("input")
        if isinstance(value, str | int | float | bool) and error["type"] != "json_invalid":
            shown = repr(value) if len(repr(value)) <= MAX_SHOWN else repr(value)[:MAX_SHOWN] + "…"
            what += f" (given: {shown})"
        found.append({"where": ".".join(place) or "body", "what": what})
    return found


def sentence(found: Sequence[Mapping[str, str]]) -> str:
    """All errors of one object, in one sentence."""
    return "; ".join(f"{fault['where']}: {fault['what']}" for fault in found)
