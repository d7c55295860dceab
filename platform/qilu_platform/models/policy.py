"""Models of policies, their outcomes, and the progress of a played run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from qilu_contract.policies import RulesName

MAX_SHARES = 0.8
_Share = Annotated[float, Field(ge=0, le=0.6, allow_inf_nan=False)]


class SharesIn(BaseModel):
    """Shares of the price of a first contract; a missing level pays as in the plan."""

    model_config = ConfigDict(extra="forbid")

    province: _Share | None = None
    city: _Share | None = None
    county: _Share | None = None


class PolicyIn(BaseModel):
    """Missing figures are those of the plan."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"shares": {"county": 0.0}}]})

    shares: SharesIn = SharesIn()
    pools: Annotated[float, Field(ge=0, le=5, allow_inf_nan=False)] = 1.0
    """Voucher budgets, as a multiple of the plan's."""
    centres: Annotated[int, Field(ge=0, le=60)] | None = None
    rules: RulesName = "default"
    """The model's scenario whose rules and caps of vouchers hold."""

    @model_validator(mode="after")
    def _bounded(self) -> PolicyIn:
        given = self.shares
        if sum(share or 0.0 for share in (given.province, given.city, given.county)) > MAX_SHARES + 1e-9:
            raise ValueError(f"the three levels together pay at most {MAX_SHARES} of the price")
        return self


class SharesOut(BaseModel):
    province: float
    city: float
    county: float


class PolicyOut(BaseModel):
    shares: SharesOut
    pools: float
    centres: int
    rules: str


class RulesOut(BaseModel):
    """Rules of vouchers; money is in CNY."""

    name: str
    sectors: list[str] = Field(description="Sectors whose enterprises may claim.")
    sizes: dict[str, float] = Field(description="Share of each size class that may claim.")
    window: tuple[int, int] = Field(description="First and last month of the year with claims.")
    cap_cny: int = Field(description="The most that all levels together pay for a first contract.")
    later_cap_cny: int | None = Field(description="The same for a later contract; null: it gets none.")
    provider_caps_cny: tuple[int, int] | None = Field(
        description="The most that one provider's contracts get in a year: with every kind of cloud "
        "action, and with fewer; null: no limit."
    )


class ReachedOut(BaseModel):
    name: str
    value: int
    reached_in: str | None = Field(description="The first month, or null.")


class OutcomeOut(BaseModel):
    policy: PolicyOut
    rules: list[RulesOut] = Field(description="Those that a policy can have.")
    targets: list[ReachedOut] = Field(description="Counts at the end of 2022.")
    vouchers_cny: int = Field(description="Redeemed, less what was clawed back; all levels.")
    awards_cny: int
    months: list[tuple[str, int, int]] = Field(description="Month, enterprises and units on cloud.")


class ModelOut(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"available": True}]})

    available: bool = Field(description="False where the platform has no model of the programme.")


class ReplayIn(BaseModel):
    """Progress of a run of the model that is played into this platform."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "scenario": "default",
                    "scale": 0.01,
                    "month": "2019-10",
                    "done": 25,
                    "months": 63,
                    "speed": 2.6e6,
                    "state": "playing",
                }
            ]
        },
    )

    scenario: Annotated[str, Field(min_length=1, max_length=200)]
    scale: Annotated[float, Field(gt=0, le=1)]
    """Share of the enterprises that is played, with their contracts and equipment; the rest is whole."""
    month: Annotated[str, Field(pattern=r"^\d{4}-\d{2}$")]
    """The last month that is complete; the first one before that."""
    done: Annotated[int, Field(ge=0, le=1000)]
    months: Annotated[int, Field(ge=1, le=1000)]
    speed: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Simulated seconds per second; null: as fast as possible."""
    state: Literal["playing", "paused", "stopped", "over"] = "playing"


class WantedOut(BaseModel):
    paused: bool
    speed: float | None = Field(
        description="Simulated seconds per second, 0 for as fast as possible; null: the run's own."
    )
    again: str | None = Field(description="The scenario with which the run is to start again.")


class ReplayOut(BaseModel):
    standing: ReplayIn | None = Field(description="Null: no run has been played since the platform started.")
    wanted: WantedOut = Field(description="Requested by viewers; the run follows within a second.")
    scenarios: list[str] = Field(description="Those that can be started here; the present one first.")


class SpeedIn(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"speed": 2592000}]})

    speed: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
    """Simulated seconds per second; 0: as fast as possible."""


class AgainIn(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"scenario": "default"}]})

    scenario: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """Null: the same again."""
