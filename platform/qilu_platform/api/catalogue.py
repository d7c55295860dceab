"""Catalogue routes: the values that bodies may use for equipment classes, counties and industries. Public."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter, Response
from pydantic import BaseModel
from qilu_contract.catalogue.generic import REGISTRABLE
from qilu_contract.catalogue.places import BRANCHES, COUNTIES

from qilu_platform.api.common import INVALID, answer
from qilu_platform.models.catalogue import (
    ClassesOut,
    ClassOut,
    CountiesOut,
    CountyOut,
    IndustriesOut,
    IndustryOut,
)
from qilu_platform.models.fields import CityCode

router = APIRouter(prefix="/v1", tags=["catalogue"], responses=INVALID)


def _items(model: type[BaseModel], rows: Iterable[Any]) -> Response:
    """Convert rows to `model`."""
    shown = [model.model_validate(row, from_attributes=True).model_dump() for row in rows]
    return answer({"items": shown}, headers={"Cache-Control": "no-cache"})


@router.get("/classes", response_model=ClassesOut)
async def list_classes() -> Response:
    """Equipment classes with their signals, set points and faults; the installation's own ones, too."""
    return _items(ClassOut, REGISTRABLE.values())


@router.get("/counties", response_model=CountiesOut)
async def list_counties(city: CityCode | None = None) -> Response:
    """Districts, counties and zones of Shandong (GB/T 2260)."""
    return _items(CountyOut, (county for county in COUNTIES.values() if city in (None, county.city)))


@router.get("/industries", response_model=IndustriesOut)
async def list_industries() -> Response:
    """Valid values of an enterprise's `industry` (GB/T 4754-2017)."""
    return _items(IndustryOut, BRANCHES.values())
