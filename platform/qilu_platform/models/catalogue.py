"""Models of the catalogue, which holds the valid values for bodies."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


def _example(**value: str) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [dict(value)]})


class SignalOut(BaseModel):
    name: str
    unit: str
    type: Literal["float", "int", "bool"]
    low: float = Field(description="Physical bounds; a value outside is stored, and reported.")
    high: float
    nominal: float
    resolution: float
    interval_s: int = Field(description="Seconds between two samples.")


class SetPointOut(BaseModel):
    name: str
    title: str
    unit: str
    low: float
    high: float


class FaultOut(BaseModel):
    name: str
    title: str
    signature: str = Field(description="Which signals show it, and how.")


class ClassOut(BaseModel):
    name: str
    title: str
    title_zh: str
    stoppable: bool = Field(description="Takes start, stop and reset.")
    signals: list[SignalOut] = Field(description="Empty for the generic class, which learns them by unit.")
    set_points: list[SetPointOut]
    faults: list[FaultOut]


class ClassesOut(BaseModel):
    items: list[ClassOut]


class CountyOut(BaseModel):
    model_config = _example(
        code="370202", name="Shinan District", name_zh="市南区", kind="district", city="370200"
    )

    code: str = Field(description="GB/T 2260.")
    name: str
    name_zh: str
    kind: str = Field(description="district, county, county-level city, or zone.")
    city: str = Field(description="The code of its city.")


class CountiesOut(BaseModel):
    items: list[CountyOut]


class IndustryOut(BaseModel):
    model_config = _example(code="C34", name="General equipment", name_zh="通用设备制造业", group="machinery")

    code: str = Field(description="Division of GB/T 4754-2017, or outside industry and software a section.")
    name: str
    name_zh: str
    group: str = Field(description="The programme's group of industries.")


class IndustriesOut(BaseModel):
    items: list[IndustryOut]
