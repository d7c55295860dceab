"""Events of the programme, month by month. All counts are made from these events alone, and a replay can
drive the registration of enterprises, contracts and units with them.

Frequent events (contracts, equipment, vouchers) are arrays with one entry per event; rare events (a
provider registers, a centre opens, a platform is recognised) are notices. Enterprises are numbers of the
world (`World.identify` gives their ids, `World.cells_of` county, industry and size).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from qilu_programme.draws import Whole

ACTIONS = ("infrastructure", "platform", "business", "equipment")
"""The four kinds of cloud action; the first three are for small and medium-sized enterprises."""

EQUIPMENT = ACTIONS.index("equipment")


class NoticeKind(StrEnum):
    PROVIDER = "provider_registered"
    CENTRE = "centre_opened"
    PLATFORM = (
        "platform_recognised"  # detail: the tier; a second notice of one platform moves it to that tier
    )
    LEADING = "platform_leading"
    SUPPLIER = "supplier_named"
    APPLICATION = "application_published"  # detail: the platform
    PILOT = "pilot_named"
    BASE = "base_named"
    CLUSTER = "cluster_named"  # detail: the industry group
    AWARD = "award_paid"  # amount


TIERS = ("enterprise", "cross_industry", "comprehensive")
"""Tiers of platforms, lowest first. The programme plans a hundred, ten and one."""


@dataclass(frozen=True, slots=True)
class Notice:
    """A rare event: `id` is never reused within its kind, `place` is a county's or city's code."""

    kind: NoticeKind
    id: str
    place: str
    detail: str = ""
    amount: int = 0


def _none() -> Whole:
    return np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Contracts:
    """Cloud contracts that begin: enterprise, kind of action (index in ACTIONS), provider (registration
    number)."""

    enterprise: Whole = field(default_factory=_none)
    kind: Whole = field(default_factory=_none)
    provider: Whole = field(default_factory=_none)


@dataclass(frozen=True, slots=True)
class Equipment:
    """Fleets that join the cloud: the enterprise and its number of units."""

    enterprise: Whole = field(default_factory=_none)
    units: Whole = field(default_factory=_none)


@dataclass(frozen=True, slots=True)
class Money:
    """Voucher money of one month, CNY by level (`scenario.LEVELS`)."""

    granted: tuple[int, int, int] = (0, 0, 0)
    redeemed: tuple[int, int, int] = (0, 0, 0)
    clawed_back: tuple[int, int, int] = (0, 0, 0)


@dataclass(frozen=True, slots=True)
class MonthEvents:
    """All events of a month. `paid`: enterprises whose vouchers were paid. `ended`: enterprises whose cloud
    contracts ended; they stay in the count of enterprises ever on cloud.
    """

    month: int
    contracts: Contracts = field(default_factory=Contracts)
    equipment: Equipment = field(default_factory=Equipment)
    paid: Whole = field(default_factory=_none)
    ended: Whole = field(default_factory=_none)
    money: Money = field(default_factory=Money)
    notices: tuple[Notice, ...] = ()
