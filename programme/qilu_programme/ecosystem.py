"""Those around the enterprises: providers, platforms, suppliers, applications, pilots, bases, clusters.

Each comes into being from what the enterprises did up to that month, never from the calendar alone: providers
enter as contracts grow, large industrial enterprises on cloud found platforms, platforms rise a tier by the
enterprises and industry groups that they serve, reviews at a year's end name the best. All thresholds are
assumed (see figures).
"""

from __future__ import annotations

import numpy as np

from qilu_programme.draws import Draws, Mask, Values, Whole
from qilu_programme.events import ACTIONS, TIERS, Notice, NoticeKind
from qilu_programme.figures import BRANCHES, GROUPS, figure, read_table
from qilu_programme.months import year
from qilu_programme.world import CITY_CODES, COUNTY_CODES, World


def _zipf(count: int, exponent: float) -> Values:
    return np.asarray(np.arange(1, count + 1) ** -exponent, dtype=np.float64)


def choose(weights: Values, luck: Values) -> Whole:
    """An index by weight for each uniform number."""
    edges = np.cumsum(weights)
    return np.minimum(np.searchsorted(edges / edges[-1], luck, side="right"), len(weights) - 1)


class Providers:
    """Cloud application service providers: registered over time, chosen by Zipf shares among those that offer
    the kind; some of them are named excellent suppliers.
    """

    def __init__(self, world: World, draws: Draws) -> None:
        self._draws = draws
        self._by_county = np.asarray(
            np.bincount(world.county, weights=world.count, minlength=len(COUNTY_CODES)), dtype=np.float64
        )
        self._offers: list[list[bool]] = []
        self._places: list[str] = []
        self.contracts = np.zeros(0, dtype=np.int64)
        self._named: set[int] = set()

    def register(self, month: int, new_enterprises: int) -> list[Notice]:
        if month == 0:
            count = int(figure("provider.launch"))
        else:
            count = self._draws.poisson("providers", month, new_enterprises / figure("provider.per"))
        notices = []
        for _ in range(count):
            number = len(self._offers)
            luck = self._draws.uniform("provider", np.arange(5) + 5 * number)
            county = int(choose(self._by_county, luck[:1])[0])
            self._offers.append(
                [
                    number < figure("provider.full_range") or share < figure("provider.offers")
                    for share in luck[1:]
                ]
            )
            self._places.append(COUNTY_CODES[county])
            notices.append(Notice(NoticeKind.PROVIDER, f"provider-{number + 1:04d}", COUNTY_CODES[county]))
        self.contracts = np.append(self.contracts, np.zeros(count, dtype=np.int64))
        return notices

    def contract(self, enterprises: Whole, kinds: Whole) -> Whole:
        """Make contracts: the provider of each, as `choose_for` has it."""
        chosen = self.choose_for(enterprises, kinds)
        self.contracts += np.bincount(chosen, minlength=len(self.contracts))
        return chosen

    def choose_for(self, enterprises: Whole, kinds: Whole) -> Whole:
        """The provider that each enterprise chooses for a kind, among those registered by now."""
        shares = _zipf(len(self._offers), figure("provider.tail"))
        offers = np.array(self._offers)
        chosen = np.zeros(len(enterprises), dtype=np.int64)
        for kind in range(len(ACTIONS)):
            mine = np.flatnonzero(kinds == kind)
            luck = self._draws.uniform(f"contract {kind}", enterprises[mine])
            chosen[mine] = choose(shares * offers[:, kind], luck)
        return chosen

    def review(self) -> list[Notice]:
        """The excellent suppliers of a year: the providers with the most contracts that are not named yet."""
        wanted = int(figure("supplier.quota"))
        notices: list[Notice] = []
        for number in np.argsort(-self.contracts, kind="stable"):
            if len(notices) == wanted or self.contracts[number] < figure("supplier.contracts"):
                break
            if int(number) not in self._named:
                self._named.add(int(number))
                notices.append(
                    Notice(NoticeKind.SUPPLIER, f"provider-{number + 1:04d}", self._places[number])
                )
        return notices


class Platforms:
    """Industrial internet platforms in three tiers, and the applications that they publish."""

    def __init__(self, world: World, draws: Draws) -> None:
        self._world, self._draws = world, draws
        self._founders: list[int] = []
        self._tier: list[int] = []
        self._leading: set[int] = set()
        self._users = np.zeros(0, dtype=np.int64)
        self._groups = np.zeros((0, len(GROUPS)), dtype=np.bool_)
        self._applications = 0

    def __len__(self) -> int:
        return len(self._founders)

    def _place(self, platform: int) -> str:
        cell = self._world.cells_of(np.array([self._founders[platform]]))[0]
        return COUNTY_CODES[int(self._world.county[cell])]

    def by_city(self) -> Whole:
        cells = self._world.cells_of(np.array(self._founders, dtype=np.int64))
        return np.bincount(self._world.city[cells], minlength=len(CITY_CODES))

    def found(self, month: int, large_on_cloud: Whole) -> list[Notice]:
        """Found the month's new platforms. `large_on_cloud`: large industrial enterprises on cloud, by
        number."""
        free = np.setdiff1d(large_on_cloud, np.array(self._founders, dtype=np.int64))
        if month == 0:
            count = int(figure("platform.launch"))
        else:
            count = self._draws.poisson("platforms", month, figure("platform.rate") * len(large_on_cloud))
        luck = self._draws.uniform(f"founder {month}", free)
        notices = []
        for enterprise in free[np.argsort(luck, kind="stable")[:count]]:
            self._founders.append(int(enterprise))
            self._tier.append(0)
            number = len(self._founders) - 1
            notices.append(self._recognise(number, 0))
        grown = len(self._founders) - len(self._users)
        self._users = np.append(self._users, np.zeros(grown, dtype=np.int64))
        self._groups = np.vstack((self._groups, np.zeros((grown, len(GROUPS)), dtype=np.bool_)))
        return notices

    def _recognise(self, platform: int, tier: int) -> Notice:
        return Notice(NoticeKind.PLATFORM, f"platform-{platform + 1:03d}", self._place(platform), TIERS[tier])

    def connect(self, enterprises: Whole) -> list[Notice]:
        """Connect enterprises that take platform systems to one platform each, and raise the tier of
        platforms that have grown."""
        if not self._founders:
            return []
        luck = self._draws.uniform("platform choice", enterprises)
        chosen = choose(_zipf(len(self._founders), figure("platform.tail")), luck)
        self._users += np.bincount(chosen, minlength=len(self._users))
        self._groups[chosen, self._world.group[self._world.cells_of(enterprises)]] = True
        served = self._groups.sum(axis=1)
        notices = []
        for platform in range(len(self._founders)):
            users, groups = int(self._users[platform]), int(served[platform])
            tier = 0
            if users >= figure("platform.cross.users") and groups >= figure("platform.cross.groups"):
                tier = 1
            if users >= figure("platform.whole.users") and groups >= figure("platform.whole.groups"):
                tier = 2
            if tier > self._tier[platform]:
                self._tier[platform] = tier
                notices.append(self._recognise(platform, tier))
            if tier >= 1 and users >= figure("platform.leading.users") and platform not in self._leading:
                self._leading.add(platform)
                place = self._place(platform)
                notices.append(Notice(NoticeKind.LEADING, f"platform-{platform + 1:03d}", place))
        return notices

    def publish(self, month: int) -> list[Notice]:
        """The month's new industrial applications."""
        if not self._founders:
            return []
        count = self._draws.poisson("applications", month, figure("app.rate") * len(self._founders))
        numbers = np.arange(self._applications, self._applications + count)
        self._applications += count
        chosen = choose(np.ones(len(self._founders)), self._draws.uniform("application", numbers))
        places = [self._place(platform) for platform in range(len(self._founders))]
        return [
            Notice(
                NoticeKind.APPLICATION,
                f"app-{number + 1:05d}",
                places[platform],
                f"platform-{platform + 1:03d}",
            )
            for number, platform in zip(numbers.tolist(), chosen.tolist(), strict=True)
        ]


class Reviews:
    """The province's yearly reviews: pilot enterprises, industry bases and application clusters."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._pilots: set[int] = set()
        self._bases: list[int] = []
        self._clusters: list[tuple[int, int]] = []
        groups = {branch.code: GROUPS.index(branch.group) for branch in BRANCHES}
        self._seeds = {
            (CITY_CODES.index(row["place"][:4] + "00"), groups[row["industry"]])
            for row in read_table("seeds.csv")
        }

    def pilots(self, enterprises: Whole, units: Whole) -> list[Notice]:
        """Name pilots among `enterprises`, which qualify (industry, equipment and another kind on cloud);
        those with the most units come first."""
        notices: list[Notice] = []
        for number in enterprises[np.argsort(-units, kind="stable")].tolist():
            if len(notices) == int(figure("pilot.quota")):
                break
            if number not in self._pilots:
                self._pilots.add(number)
                name = self._world.identify(number)
                notices.append(Notice(NoticeKind.PILOT, name, name[:6]))
        return notices

    def bases(self, platforms_by_city: Whole) -> list[Notice]:
        notices = []
        for city in np.argsort(-platforms_by_city, kind="stable").tolist():
            room = len(self._bases) < int(figure("base.quota"))
            if room and city not in self._bases and platforms_by_city[city] >= figure("base.platforms"):
                self._bases.append(city)
                notices.append(Notice(NoticeKind.BASE, f"base-{CITY_CODES[city]}", CITY_CODES[city]))
        return notices

    def clusters(self, equipped: Whole) -> list[Notice]:
        """Name clusters. `equipped`: industrial enterprises with equipment on cloud. Only the programme's
        seed industries of a city can be named."""
        cells = self._world.cells_of(equipped)
        counts = np.bincount(
            self._world.city[cells] * len(GROUPS) + self._world.group[cells],
            minlength=len(CITY_CODES) * len(GROUPS),
        )
        notices = []
        for pair in np.argsort(-counts, kind="stable").tolist():
            city, group = divmod(pair, len(GROUPS))
            if counts[pair] < figure("cluster.enterprises") or len(self._clusters) >= figure("cluster.quota"):
                break
            if (city, group) in self._seeds and (city, group) not in self._clusters:
                self._clusters.append((city, group))
                code = CITY_CODES[city]
                notices.append(
                    Notice(NoticeKind.CLUSTER, f"cluster-{code}-{GROUPS[group]}", code, GROUPS[group])
                )
        return notices


def awards_of_2018(month: int, benchmarks: Whole, world: World, industrial: Mask) -> list[Notice]:
    """Awards for benchmark firms and industry clouds at the end of 2018 (S). `benchmarks`: enterprises on
    cloud, by number."""
    if year(month) != 2018:
        return []
    firms = [world.identify(number) for number in benchmarks[industrial][: int(figure("benchmark.count"))]]
    awards = [
        Notice(NoticeKind.AWARD, firm, firm[:6], "benchmark firm", int(figure("benchmark.award")))
        for firm in firms
    ]
    awards += [
        Notice(
            NoticeKind.AWARD,
            f"industry-cloud-{number + 1:02d}",
            "370000",
            "industry cloud",
            int(figure("cloud.award")),
        )
        for number in range(int(figure("cloud.count")))
    ]
    return awards
