"""Models of device types: signals of generic units with titles, units of measurement and ranges."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from qilu_contract.catalogue.generic import MAX_UNIT_SIGNALS, signal_name

from qilu_platform.models.bodies import Body
from qilu_platform.models.fields import Id, Text, clean

_Title = Annotated[Text, Field(max_length=80), AfterValidator(clean)]
_Bound = Annotated[float, Field(allow_inf_nan=False)]
_SIGNAL: dict[str, Any] = {
    "name": "soil_moisture",
    "title": "Soil moisture",
    "title_zh": "土壤湿度",
    "unit": "%",
    "low": 0.0,
    "high": 100.0,
}
_TITLES = {"title": "Greenhouse", "title_zh": "温室"}


def _example(**value: Any) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [value]})


class TypeSignalIn(Body):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_SIGNAL]})

    name: Annotated[str, Field(max_length=160), AfterValidator(signal_name)] = Field(
        description="As the device sends it; kept in lower case, with _ for everything else."
    )
    title: _Title = ""
    title_zh: _Title = ""
    unit: Annotated[_Title, Field(max_length=32)] = Field("", description="Unit of measurement.")
    low: _Bound | None = Field(None, description="The normal range; both bounds or none.")
    high: _Bound | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.low is None) != (self.high is None):
            raise ValueError("a range has two bounds, low and high: give both or none")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g})")
        return self


class DeviceTypeIn(Body):
    model_config = _example(**_TITLES, signals=[_SIGNAL])

    title: Annotated[_Title, Field(min_length=1)]
    title_zh: _Title = ""
    signals: Annotated[list[TypeSignalIn], Field(min_length=1, max_length=MAX_UNIT_SIGNALS)]

    @model_validator(mode="after")
    def _different(self) -> Self:
        names = [each.name for each in self.signals]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"signals: {min(twice)} is there twice; names count in lower case")
        return self


class TypeSignalOut(BaseModel):
    name: str
    title: str
    title_zh: str
    unit: str
    low: float | None
    high: float | None


class DeviceTypeOut(BaseModel):
    model_config = _example(id="greenhouse", **_TITLES, signals=[_SIGNAL])

    id: str
    title: str
    title_zh: str
    signals: list[TypeSignalOut]


class DeviceTypesOut(BaseModel):
    items: list[DeviceTypeOut]


class UnitTypeIn(Body):
    model_config = _example(type="greenhouse")

    type: Id | None = Field(description="The id of a device type; null: none.")


class UnitTypeOut(BaseModel):
    id: str
    title: str
    title_zh: str


class UnitSignalOut(BaseModel):
    name: str
    title: str | None
    title_zh: str | None
    unit: str = Field(description="Unit of measurement; empty where nobody has given it.")
    low: float | None = Field(description="The range; null where nobody has given one.")
    high: float | None
    since_ms: int | None = Field(
        description="When it was learned; null: it belongs to the class, or the unit has not sent it yet."
    )


class UnitSignalsOut(BaseModel):
    model_config = _example(
        type={"id": "greenhouse", **_TITLES}, items=[{**_SIGNAL, "since_ms": 1767225600000}]
    )

    type: UnitTypeOut | None = Field(description="Device type of a generic unit.")
    items: list[UnitSignalOut]
