"""Rules for vouchers that other provinces have and the default scenario does not: who may claim, in which
months, how much one provider's contracts may get, and whether later contracts get a voucher too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from qilu_programme.draws import Draws, Mask, Values, Whole
from qilu_programme.figures import SECTORS, SIZES, figure
from qilu_programme.vouchers import Pools

MAX_PROVIDERS = 10_000
"""More than the model ever registers."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules of a scenario; the defaults restrict nothing."""

    sectors: tuple[str, ...] = SECTORS
    """Sectors whose enterprises may claim."""
    sizes: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(SIZES, 1.0))
    """The share of each size class that may claim."""
    window: tuple[int, int] = (1, 12)
    """First and last month of the year in which claims are accepted. An enterprise that adopts at another
    time claims when the next window opens, before later ones, if its contract lasts."""
    provider_caps: tuple[int, int] | None = None
    """The most that the vouchers for one provider's contracts add up to in a year, CNY: for a provider that
    offers every kind of action, and for any other."""
    later_caps: float | None = None
    """Cap of a voucher for a later kind of action, relative to the first one's; None: there is none."""

    def described(self) -> str:
        """The rules that restrict or add something, in words."""
        plain, found = Rules(), []
        if self.sectors != plain.sectors:
            found.append(f"{' and '.join(self.sectors)} only")
        if self.sizes != plain.sizes:
            found.append(", ".join(f"{share:.0%} of {size}" for size, share in self.sizes.items()))
        if self.window != plain.window:
            found.append(f"months {self.window[0]} to {self.window[1]}")
        if self.provider_caps is not None:
            found.append(f"{self.provider_caps[0]:,} or {self.provider_caps[1]:,} per provider and year")
        if self.later_caps is not None:
            found.append(f"later vouchers up to {self.later_caps:.0%} of the first")
        return "; ".join(found)

    def is_open(self, month_of_year: int) -> bool:
        """Whether claims are accepted in a month, 1 to 12."""
        first, last = self.window
        return first <= month_of_year <= last

    def share(self, sizes: Whole, services: Whole) -> Values:
        """The share of enterprises that may claim, by index of the size and by sector (0 industry, 1
        service)."""
        of_size = np.array([self.sizes[size] for size in SIZES])
        of_sector = np.array([float(sector in self.sectors) for sector in SECTORS])
        return np.asarray(of_size[sizes] * of_sector[services])

    def may_claim(self, enterprises: Whole, sizes: Whole, services: Whole, draws: Draws) -> Mask:
        """Which enterprises may claim."""
        return np.asarray(draws.uniform("may claim", enterprises) < self.share(sizes, services))

    def provider_pools(self) -> Pools | None:
        """Budgets of a new year for each provider's contracts; None without caps."""
        if self.provider_caps is None:
            return None
        full_range, others = self.provider_caps
        budgets = np.full(MAX_PROVIDERS, others, dtype=np.int64)
        budgets[: int(figure("provider.full_range"))] = full_range
        return Pools(budgets)
