"""Models of admission, and of the signals that generic units send."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from qilu_contract.catalogue.generic import MAX_NAME

from qilu_platform.models.bodies import Body
from qilu_platform.models.fields import MAX_BATCH, Id, Text


def _example(**value: Any) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [value]})


class AdmittedOut(BaseModel):
    class_: str = Field(alias="class")
    enterprise: str
    county: str
    city: str
    industry: str
    on_cloud: bool


class AdmissionOut(BaseModel):
    model_config = _example(
        units={
            "370202-motor-0000123": {
                "class": "motor",
                "enterprise": "370202-e00007",
                "county": "370202",
                "city": "370200",
                "industry": "C31",
                "on_cloud": True,
            }
        }
    )

    units: dict[str, AdmittedOut] = Field(description="Those that may speak, by id.")


class AdmissionColumnsOut(BaseModel):
    model_config = _example(
        **{
            "classes": ["motor"],
            "owners": [["370202-e00007", "370202", "370200", "C31"]],
            "class": [0, -1],
            "owner": [0, -1],
            "on_cloud": [True, False],
            "signals": {},
        }
    )

    classes: list[str]
    owners: list[list[str]] = Field(description="Enterprise, county, city, industry.")
    class_: list[int] = Field(alias="class", description="Places in `classes`, in the order asked for.")
    owner: list[int] = Field(description="Places in `owners`, likewise.")
    on_cloud: list[bool]
    signals: dict[str, list[str]] = Field(description="Signals that the generic units among them have sent.")


class LearnedSignalIn(BaseModel):
    unit: Id
    name: Annotated[Text, Field(min_length=1, max_length=MAX_NAME)]
    measured_in: Annotated[Text, Field(max_length=32)] = Field(
        default="", description="Unit of measurement, where a birth has given one."
    )


class LearnedSignalsIn(Body):
    model_config = _example(
        signals=[{"unit": "370202-generic-0000001", "name": "temperature", "measured_in": "degC"}]
    )

    signals: list[LearnedSignalIn] = Field(max_length=MAX_BATCH)
