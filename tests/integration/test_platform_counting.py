"""The ledger, the counters and the registry agree: under concurrency, after failures, whatever is done in
whatever order."""

from __future__ import annotations

import asyncio
import json
import random
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from pydantic import SecretStr
from qilu_contract.catalogue.places import PROVINCE, city_of
from qilu_contract.catalogue.targets import CORE_TARGETS
from qilu_contract.errors import ConfigError
from qilu_contract.wire.clock import wall_ms
from qilu_platform.app import create_app
from qilu_platform.audit import audit
from qilu_platform.counting.activity import active_hours
from qilu_platform.counting.programme import points, programme, read_counts
from qilu_platform.database import migrations
from qilu_platform.database.engine import open_engine
from qilu_platform.database.migrating import migrate
from qilu_platform.database.schema import counters, metadata, recognitions
from qilu_platform.database.transactions import Database
from qilu_platform.errors import Refused
from qilu_platform.models.fields import TIERS, Recognised
from qilu_platform.registry.endings import end_contract, end_contracts
from qilu_platform.registry.onboarding import report
from qilu_platform.registry.registration import (
    register_centres,
    register_contracts,
    register_disbursements,
    register_enterprises,
    register_providers,
    register_recognitions,
    register_units,
)
from qilu_platform.registry.suspending import resume_enterprise, retire_unit, suspend_enterprise
from qilu_platform.settings import Settings
from sqlalchemy import Connection, MetaData, Table, select, text
from sqlalchemy.exc import DBAPIError

T = TypeVar("T")
ADMIN = "the-admin-key-of-this-test"
HOUR_MS = 3_600_000
NewDatabase = Callable[[], str]


@pytest.fixture(params=["sqlite", "postgresql"])
def new_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NewDatabase]:
    """Makes an empty database and tells its URL."""
    if request.param == "sqlite":
        yield lambda: f"sqlite:///{tmp_path}/{secrets.token_hex(6)}.db"
        return
    postgres = request.getfixturevalue("postgres")
    postgres.start()
    names: list[str] = []

    def create() -> str:
        names.append(f"test_{secrets.token_hex(6)}")
        postgres.execute(f"CREATE DATABASE {names[-1]}")
        return str(postgres.url(names[-1]))

    yield create
    for name in names:
        postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def writing(url: str) -> Iterator[Callable[[Callable[[Connection], T]], T]]:
    """Runs functions in transactions of a migrated database, as the platform does."""
    engine = open_engine(url)
    try:

        def write(fn: Callable[[Connection], T]) -> T:
            with engine.execution_options(qilu_writes=True).begin() as connection:
                return fn(connection)

        write(migrate)
        yield write
    finally:
        engine.dispose()


def numbered(*rows: dict[str, Any]) -> list[tuple[int, dict[str, Any]]]:
    return list(enumerate(rows, start=1))


def enterprise_row(id_: str, county: str) -> dict[str, Any]:
    return {"id": id_, "name": "E", "county": county, "industry": "C31", "uscc": None}


def unit_row(id_: str, class_: str, enterprise: str) -> dict[str, Any]:
    return {"id": id_, "class": class_, "enterprise": enterprise, "name": None}


async def test_eight_writers_with_duplicates_count_everything_once(new_database: NewDatabase) -> None:
    app = create_app(Settings(db_url=new_database(), api_key=SecretStr(ADMIN)))
    counties = ["370202", "370203", "370102", "371771"]
    enterprises = [
        {"id": f"e{n:03d}", "name": "E", "county": counties[n % 4], "industry": "C31"} for n in range(40)
    ]
    units = [
        {"id": f"u{n:03d}", "class": ["motor", "boiler"][n % 2], "enterprise": f"e{n % 40:03d}"}
        for n in range(400)
    ]
    contracts = [
        {"id": f"c{n:03d}", "enterprise": f"e{n % 40:03d}", "provider": "p-1", "kind": "equipment"}
        for n in range(80)
    ]
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app),
            base_url="http://platform",
            headers={"Authorization": f"Bearer {ADMIN}"},
            timeout=120,
        ) as client,
    ):

        async def send(path: str, things: list[dict[str, Any]]) -> dict[str, Any]:
            lines = "\n".join(json.dumps(thing) for thing in things)
            answer = await client.post(f"/v1/{path}/bulk", content=lines)
            assert answer.status_code == 200, answer.text
            outcome: dict[str, Any] = answer.json()
            assert outcome["errors"] == []
            assert outcome["created"] + outcome["existing"] == len(things)
            return outcome

        async def write(seed: int) -> Counter[str]:
            """Write everything, in random order and in pieces that overlap with those of the other tasks."""
            order = random.Random(seed)
            done: Counter[str] = Counter()

            def pieces(things: list[T]) -> list[list[T]]:
                mixed = [*things, *order.sample(things, len(things) // 4)]
                order.shuffle(mixed)
                return [mixed[at : at + 60] for at in range(0, len(mixed), 60)]

            for piece in pieces(enterprises):
                done["enterprises"] += (await send("enterprises", piece))["created"]
            done["providers"] += (await send("providers", [{"id": "p-1", "name": "P"}]))["created"]
            for piece in pieces(units):
                done["units"] += (await send("units", piece))["created"]
            for piece in pieces(contracts):
                done["contracts"] += (await send("contracts", piece))["created"]
            for batch in pieces([{"unit": unit["id"], "ts_ms": 1_000} for unit in units]):
                answer = await client.post("/v1/ingest/first-readings", json={"readings": batch})
                assert answer.status_code == 200, answer.text
                done["counted"] += answer.json()["counted"]
                assert answer.json()["counted"] + answer.json()["already"] == len(batch)
            for n in range(5):
                assert (await client.post(f"/v1/units/u{n:03d}/retire")).status_code == 200
                assert (await client.post(f"/v1/contracts/c{n:03d}/end")).status_code == 200
            return done

        done = sum(await asyncio.gather(*(write(seed) for seed in range(8))), Counter[str]())
        assert done == {"enterprises": 40, "providers": 1, "units": 400, "contracts": 80, "counted": 400}
        shown = (await client.get("/v1/programme")).json()
        targets = {target["name"]: target for target in shown["targets"]}
        assert shown["registered"] == {"enterprises": 40, "units": 400}
        assert targets["units_on_cloud"]["onboarded"] == 400
        assert targets["units_on_cloud"]["current"] == 395
        assert targets["enterprises_on_cloud"]["onboarded"] == 40
        assert targets["enterprises_on_cloud"]["current"] == 40
        assert shown["contracts"]["equipment"] == {"onboarded": 80, "current": 75}
        assert sum(city["units_on_cloud"] for city in shown["by_city"].values()) == 400
        assert sum(class_["units_on_cloud"] for class_ in shown["by_class"].values()) == 400
        assert audit(app.state.runtime.database.engine) == []


COUNTIES = ["370202", "370203", "370102", "371771"]
IDS = st.integers(0, 5)


class Programme(RuleBasedStateMachine):
    """The registry beside a model of it in plain Python."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._opened = writing(url)
        self.write = self._opened.__enter__()
        self.engine = open_engine(url)
        self.county: dict[str, str] = {}  # of enterprises
        self.owner: dict[str, str] = {}  # of units
        self.seen: set[str] = set()
        self.retired: set[str] = set()
        self.last_hour: dict[str, int] = {}
        self.contracts: dict[str, str] = {}
        self.ended: set[str] = set()
        self.providers: set[str] = set()
        self.barred: set[str] = set()
        self.suspended: set[str] = set()
        """Units: with their enterprise."""
        self.most = 0

    @initialize()
    def start_with_something(self) -> None:
        self.add_enterprises([(0, COUNTIES[0]), (1, COUNTIES[1])])
        self.add_provider(0)

    @rule(given=st.lists(st.tuples(IDS, st.sampled_from(COUNTIES)), max_size=4))
    def add_enterprises(self, given: list[tuple[int, str]]) -> None:
        rows = [enterprise_row(f"e{number}", county) for number, county in given]
        outcome = self.write(lambda connection: register_enterprises(connection, numbered(*rows)))
        wrong = 0
        for row in rows:
            # An enterprise keeps the county that it was first given.
            wrong += self.county.setdefault(row["id"], row["county"]) != row["county"]
        assert len(outcome.errors) == wrong

    @rule(number=IDS)
    def add_provider(self, number: int) -> None:
        row = {"id": f"p{number}", "name": "P"}
        self.write(lambda connection: register_providers(connection, numbered(row)))
        self.providers.add(row["id"])

    @rule(given=st.lists(st.tuples(st.integers(0, 12), IDS), max_size=6))
    def add_units(self, given: list[tuple[int, int]]) -> None:
        # The class and the owner follow from the number, so that a unit is always registered with the same
        # content.
        rows = [unit_row(f"u{n}", ["motor", "boiler"][n % 2], f"e{n % 6}") for n, _ in given]
        self.write(lambda connection: register_units(connection, numbered(*rows)))
        there = {row["id"]: row["enterprise"] for row in rows if row["enterprise"] in self.county}
        # A unit registered under a suspended enterprise is suspended with it.
        self.suspended |= {unit for unit in there.keys() - self.owner if there[unit] in self.barred}
        self.owner |= there

    @rule(
        given=st.lists(st.tuples(st.integers(0, 14), st.integers(0, 3)), max_size=8),
        first=st.booleans(),
    )
    def hear(self, given: list[tuple[int, int]], first: bool) -> None:
        readings = [(f"u{number}", hour * HOUR_MS) for number, hour in given]
        done = self.write(lambda connection: report(connection, readings, first=first))
        known = {unit for unit, _ in readings} & self.owner.keys()
        assert done.unknown == sorted({unit for unit, _ in readings} - known)
        if first:
            assert done.counted == len(known - self.seen)
            self.seen |= known
        for unit, ts_ms in readings:
            if unit in known - self.retired:
                self.last_hour[unit] = max(ts_ms // HOUR_MS, self.last_hour.get(unit, 0))

    @rule(number=st.integers(0, 12))
    def retire(self, number: int) -> None:
        unit = f"u{number}"
        if unit in self.owner:
            self.write(lambda connection: retire_unit(connection, unit))
            self.retired.add(unit)
        else:
            with pytest.raises(Refused):
                self.write(lambda connection: retire_unit(connection, unit))

    @rule(number=IDS)
    def suspend(self, number: int) -> None:
        id_ = f"e{number}"
        if id_ in self.county:
            changed = self.write(lambda connection: suspend_enterprise(connection, id_))
            assert changed == (id_ not in self.barred)
            if changed:
                self.suspended |= {u for u, owner in self.owner.items() if owner == id_} - self.retired
                self.barred.add(id_)

    @rule(number=IDS)
    def resume(self, number: int) -> None:
        id_ = f"e{number}"
        if id_ in self.county:
            changed = self.write(lambda connection: resume_enterprise(connection, id_))
            assert changed == (id_ in self.barred)
            self.suspended -= {u for u, owner in self.owner.items() if owner == id_}
            self.barred.discard(id_)

    @rule(given=st.lists(IDS, max_size=4), provider=st.integers(0, 2))
    def sign(self, given: list[int], provider: int) -> None:
        rows = [
            {"id": f"c{n}-p{provider}", "enterprise": f"e{n}", "provider": f"p{provider}", "kind": "business"}
            for n in given
        ]
        self.write(lambda connection: register_contracts(connection, numbered(*rows)))
        for row in rows:
            if row["enterprise"] in self.county and row["provider"] in self.providers:
                self.contracts[row["id"]] = row["enterprise"]

    @rule(number=IDS, provider=st.integers(0, 2))
    def end(self, number: int, provider: int) -> None:
        contract = f"c{number}-p{provider}"
        if contract in self.contracts:
            self.write(lambda connection: end_contract(connection, contract))
            self.ended.add(contract)

    @rule()
    def fail_half_way(self) -> None:
        def work(connection: Connection) -> None:
            register_centres(
                connection, numbered({"id": "lost", "name": "C", "city": "370200", "park": None})
            )
            register_units(connection, numbered(unit_row("lost", "motor", "e0")))
            report(connection, [("lost", 1)], first=True)
            raise ConfigError("the process ends here")

        with pytest.raises(ConfigError):
            self.write(work)

    @invariant()
    def counters_agree_with_the_model(self) -> None:
        with self.engine.connect() as connection:
            rows = connection.execute(counters.select()).all()
            active = sum(active_hours(connection).values())
        counts = {(row.scope, row.code, row.name): row.value for row in rows if row.value}
        expected: Counter[tuple[str, str, str]] = Counter()

        def add(name: str, enterprise: str) -> None:
            county = self.county[enterprise]
            for place in [("province", PROVINCE), ("city", city_of(county)), ("county", county)]:
                expected[(*place, name)] += 1

        for unit, owner in self.owner.items():
            for name, holds in [
                ("units_registered", True),
                ("units_onboarded", unit in self.seen),
                ("units_current", unit in self.seen - self.retired - self.suspended),
            ]:
                if holds:
                    add(name, owner)
                    expected["class", ["motor", "boiler"][int(unit[1:]) % 2], name] += 1
        running = {self.contracts[id_] for id_ in self.contracts.keys() - self.ended}
        for enterprise in self.county:
            add("enterprises_registered", enterprise)
            if enterprise in self.contracts.values():
                add("enterprises_onboarded", enterprise)
            if enterprise in running - self.barred:
                add("enterprises_current", enterprise)
        for name, number in [
            ("contracts_onboarded", len(self.contracts)),
            ("contracts_current", len(self.contracts) - len(self.ended)),
        ]:
            expected["province", PROVINCE, name] = expected["kind", "business", name] = number
        expected["province", PROVINCE, "providers"] = len(self.providers)
        assert counts == +expected
        # All these readings are of 1970, and the wall's clock is later.
        assert active == 0
        onboarded = counts.get(("province", PROVINCE, "units_onboarded"), 0)
        assert onboarded >= self.most
        self.most = onboarded

    def teardown(self) -> None:
        try:
            assert audit(self.engine) == []
        finally:
            self.engine.dispose()
            self._opened.__exit__(None, None, None)


def test_counters_agree_with_a_model_whatever_is_done(new_database: NewDatabase) -> None:
    class OnThisDatabase(Programme):
        def __init__(self) -> None:
            super().__init__(new_database())

    run_state_machine_as_test(
        OnThisDatabase,
        settings=settings(max_examples=12, stateful_step_count=20, database=None),
    )


def test_active_units_are_right_after_a_run_at_speed(new_database: NewDatabase) -> None:
    url = new_database()
    with writing(url) as write:
        write(lambda found: register_enterprises(found, numbered(enterprise_row("e1", "370202"))))
        rows = [unit_row(id_, "motor", "e1") for id_ in ("retired", "left", "real")]
        write(lambda found: register_units(found, numbered(*rows)))
        now_ms = wall_ms()
        ahead_ms = now_ms + 400 * 24 * HOUR_MS

        def hear(unit: str, ts_ms: int) -> None:
            write(lambda found: report(found, [(unit, ts_ms)], first=False))

        def active() -> int:
            return sum(write(active_hours).values())

        hear("retired", ahead_ms)
        hear("real", now_ms)
        assert active() == 1  # the run's, whose clock is the later one
        write(lambda found: retire_unit(found, "retired"))
        assert active() == 1  # the real one: nobody is ahead any more
        hear("left", ahead_ms)
        assert active() == 1
        for hours, expected in ((3, 2), (25, 1)):  # since the last report of the run
            aged = f"heard_ms = heard_ms - {hours * HOUR_MS} WHERE hour > {now_ms // HOUR_MS}"
            change = text(f"UPDATE activity SET {aged}")
            write(lambda found, change=change: found.execute(change))
            assert active() == expected
        hear("left", now_ms - 5 * HOUR_MS)  # history wakes no unit
        assert active() == 1
        hear("left", now_ms)
        assert active() == 2
    engine = open_engine(url)
    assert audit(engine) == []
    engine.dispose()


def recognition(id_: str, kind: str, subject: str | None, place: str = "370202") -> dict[str, Any]:
    return {"id": id_, "kind": kind, "place": place, "subject": subject}


def test_what_is_recognised_counts_once_and_a_platform_stands_in_its_highest_tier(
    new_database: NewDatabase,
) -> None:
    url = new_database()
    with writing(url) as write:
        write(lambda found: register_enterprises(found, numbered(enterprise_row("e1", "370202"))))
        write(lambda found: register_providers(found, numbered({"id": "p1", "name": "P"})))
        first = [
            recognition("one-1", "enterprise_level", "one"),
            recognition("two-1", "enterprise_level", "two"),
            recognition("two-2", "cross_industry", "two"),
            recognition("app", "application", "one"),
            recognition("supplier", "supplier", "p1"),
            recognition("pilot", "pilot", "e1"),
            recognition("base", "base", None, "370200"),
            recognition("cluster", "cluster", None, "370200"),
        ]
        later = [
            recognition("one-3", "comprehensive", "one"),
            recognition("one-2", "cross_industry", "one"),  # known only after the higher one
            recognition("leader", "leading", "one"),
        ]
        for rows, created in [(first, 8), (first, 0), (later, 3), ([*first, *later], 0)]:
            outcome = write(lambda found, rows=rows: register_recognitions(found, numbered(*rows)))
            assert outcome.errors == []
            assert (len(outcome.created), outcome.existing) == (created, len(rows) - created)
        wrong = [
            recognition("x1", "supplier", "p9"),
            recognition("x2", "pilot", "e9"),
            recognition("x3", "leading", "nine"),
            recognition("x4", "application", "p1"),
        ]
        outcome = write(lambda found: register_recognitions(found, numbered(*wrong)))
        assert [error.detail.split()[0] for error in sorted(outcome.errors, key=lambda each: each.line)] == [
            "provider",
            "enterprise",
            "platform",
            "platform",
        ]
        engine = open_engine(url)
        try:
            with engine.connect() as connection:
                shown = programme(read_counts(connection))
            assert audit(engine) == []
        finally:
            engine.dispose()
    counted = {target["name"]: target["onboarded"] for target in shown["targets"]}
    assert counted == {
        **dict.fromkeys(("enterprises_on_cloud", "units_on_cloud", "centres", "platforms_enterprise"), 0),
        **dict.fromkeys(("providers", "platforms_comprehensive", "platforms_cross_industry"), 1),
        **dict.fromkeys(("suppliers", "applications", "pilots", "bases", "clusters", "platforms_leading"), 1),
    }


def test_every_kind_of_recognition_counts_towards_one_target() -> None:
    counted = {target.recognised_as: target.current for target in CORE_TARGETS.values()}
    del counted[None]
    assert counted == {kind.value: kind in TIERS for kind in Recognised}


def test_vouchers_count_once_by_level_however_much_money_it_is(new_database: NewDatabase) -> None:
    url, billion = new_database(), 10**9
    rows = [
        {"id": "a", "level": "province", "granted": 7 * billion, "redeemed": 5 * billion, "clawed_back": 1},
        {"id": "b", "level": "province", "granted": 2, "redeemed": 0, "clawed_back": 0},
        {"id": "c", "level": "county", "granted": 40, "redeemed": 30, "clawed_back": 20},
    ]
    with writing(url) as write:
        for created in (3, 0):
            outcome = write(lambda found: register_disbursements(found, numbered(*rows)))
            assert outcome.errors == []
            assert (len(outcome.created), outcome.existing) == (created, 3 - created)
        other = rows[2] | {"granted": 41}
        outcome = write(lambda found: register_disbursements(found, numbered(other)))
        assert [error.conflict for error in outcome.errors] == [True]
        engine = open_engine(url)
        try:
            with engine.connect() as connection:
                counts = read_counts(connection)
            assert audit(engine) == []
            write(lambda found: found.execute(text("UPDATE disbursements SET redeemed = 31 WHERE id = 'c'")))
            assert "vouchers_redeemed of level county: counter 30, ledger 30, the registry holds 31" in map(
                str, audit(engine)
            )
        finally:
            engine.dispose()
    assert programme(counts)["vouchers"] == {
        "province": {"granted": 7 * billion + 2, "redeemed": 5 * billion, "clawed_back": 1},
        "city": {"granted": 0, "redeemed": 0, "clawed_back": 0},
        "county": {"granted": 40, "redeemed": 30, "clawed_back": 20},
    }
    written = {point.tags: point.fields for point in points(counts, 5)}
    assert written["level", "county"]["vouchers_clawed_back"] == 20
    assert written["province", PROVINCE]["vouchers_granted"] == 7 * billion + 42


def test_contracts_end_in_bulk_as_one_by_one(new_database: NewDatabase) -> None:
    url = new_database()
    with writing(url) as write:
        write(
            lambda found: register_enterprises(
                found, numbered(enterprise_row("e1", "370202"), enterprise_row("e2", "370102"))
            )
        )
        write(lambda found: register_providers(found, numbered({"id": "p1", "name": "P"})))
        rows = [
            {"id": f"{owner}-{kind}", "enterprise": owner, "provider": "p1", "kind": kind}
            for owner in ("e1", "e2")
            for kind in ("business", "equipment")
        ]
        write(lambda found: register_contracts(found, numbered(*rows)))
        given = ["e1-business", "e1-equipment", "e2-business", "e2-business", "nothing"]
        done = write(lambda found: end_contracts(found, given))
        assert (done.ended, done.already, done.unknown) == (3, 0, ["nothing"])
        done = write(lambda found: end_contracts(found, given))
        assert (done.ended, done.already, done.unknown) == (0, 3, ["nothing"])
        engine = open_engine(url)
        try:
            with engine.connect() as connection:
                counts = read_counts(connection)
            assert audit(engine) == []
        finally:
            engine.dispose()
    assert counts["province", PROVINCE, "enterprises_onboarded"] == 2
    assert counts["province", PROVINCE, "enterprises_current"] == 1
    assert counts["kind", "business", "contracts_current"] == 0
    assert counts["kind", "equipment", "contracts_current"] == 1


@pytest.mark.parametrize("statement", ["UPDATE ledger SET count = 2", "DELETE FROM ledger"])
def test_the_ledger_takes_no_change_and_no_removal(new_database: NewDatabase, statement: str) -> None:
    with writing(new_database()) as write:
        write(lambda connection: register_enterprises(connection, numbered(enterprise_row("e1", "370202"))))
        with pytest.raises(DBAPIError, match="append-only"):
            write(lambda connection: connection.execute(text(statement)))


def test_migrations_make_what_the_schema_says(new_database: NewDatabase) -> None:
    with writing(new_database()) as write:
        assert write(lambda found: compare_metadata(MigrationContext.configure(found), metadata)) == []
        write(migrate)


RELEASED = sorted(path.name[1:5] for path in Path(migrations.__file__).parent.glob("versions/r*.py"))


@pytest.mark.parametrize("revision", RELEASED[:-1])
def test_every_schema_that_was_released_is_brought_up_to_date_with_what_it_holds(
    new_database: NewDatabase, revision: str
) -> None:
    """An enterprise, a unit of its own on cloud, and what the ledger says of them, as of that schema."""
    tables: dict[str, list[dict[str, Any]]] = {
        "enterprises": [
            {"id": "e1", "name": "E", "county": "370202", "industry": "C31", "registered_ms": 1}
            | {"contracts_current": 0}
        ],
        "units": [
            {"id": "u1", "class": "motor", "enterprise": "e1", "county": "370202", "industry": "C31"}
            | {"irregular": 1, "registered_ms": 1, "on_cloud_ms": 2, "last_hour": 0}
        ],
        "activity": [{"hour": 0, "units": 1}],
        "ledger": [
            {"at_ms": 1, "event": event, "city": "370200", "county": "370202", "class": class_, "count": 1}
            for event, class_ in [
                ("enterprise_registered", None),
                ("unit_registered", "motor"),
                ("unit_onboarded", "motor"),
            ]
        ],
        "counters": [
            {"scope": scope, "code": code, "name": name, "value": 1}
            for scope, code in [
                ("province", PROVINCE),
                ("city", "370200"),
                ("county", "370202"),
                ("class", "motor"),
            ]
            for name in ["enterprises_registered", "units_registered", "units_onboarded", "units_current"]
            if scope != "class" or name.startswith("units")
        ],
    }
    url = new_database()
    engine = open_engine(url)
    with engine.execution_options(qilu_writes=True).begin() as connection:
        migrate(connection, min(revision, "0101"))
        for name, rows in tables.items():
            there = Table(name, MetaData(), autoload_with=connection)
            connection.execute(there.insert(), rows)
        migrate(connection, revision)  # 0102 seals what is there
    with writing(url) as write:
        assert write(lambda found: compare_metadata(MigrationContext.configure(found), metadata)) == []
        assert audit(engine) == []
        told = write(lambda found: report(found, [("u1", 3), ("u2", 3)], first=True))
        assert (told.counted, told.already, told.unknown) == (0, 1, ["u2"])
    engine.dispose()


def test_an_upgrade_ends_second_tiers_and_says_so_in_the_ledger(new_database: NewDatabase) -> None:
    """As two replicas of a version before 0007 could leave them."""
    kinds = ["enterprise_level", "comprehensive", "comprehensive", "cross_industry"]
    rows = [
        {"id": f"r{n}", "kind": kind, "place": "370202", "subject": "one", "registered_ms": n}
        for n, kind in enumerate(kinds)
    ]
    single = {"id": "s", "kind": "enterprise_level", "place": "370202", "subject": "two", "registered_ms": 1}
    held = Counter(row["kind"] for row in (*rows, single))
    engine = open_engine(new_database())
    with engine.execution_options(qilu_writes=True).begin() as connection:
        migrate(connection, "0006")
        tables = {
            name: Table(name, MetaData(), autoload_with=connection)
            for name in ("recognitions", "ledger", "counters")
        }
        connection.execute(tables["recognitions"].insert(), [*rows, single])
        for kind, number in held.items():
            line = {"at_ms": 1, "event": "recognised", "kind": kind, "count": number}
            connection.execute(tables["ledger"].insert(), line)
        for scope, code, value in [("province", PROVINCE, 5), *(("kind", *item) for item in held.items())]:
            for name in ("recognitions_onboarded", "recognitions_current"):
                counter = {"scope": scope, "code": code, "name": name, "value": value}
                connection.execute(tables["counters"].insert(), counter)
    with engine.execution_options(qilu_writes=True).begin() as connection:
        migrate(connection)
        standing = select(recognitions.c.id).where(recognitions.c.ended_ms.is_(None))
        assert set(connection.scalars(standing)) == {"r1", "s"}
    assert audit(engine) == []
    engine.dispose()


def test_a_database_of_a_newer_version_is_refused_in_a_sentence(new_database: NewDatabase) -> None:
    with writing(new_database()) as write:
        write(lambda found: found.execute(text("UPDATE alembic_version SET version_num = '9999'")))
        with pytest.raises(ConfigError, match="newer version"):
            write(migrate)


async def test_a_transaction_that_fails_leaves_nothing(new_database: NewDatabase) -> None:
    async with Database(new_database()) as database:

        def work(connection: Connection) -> None:
            register_enterprises(connection, numbered(enterprise_row("e1", "370202")))
            raise ConfigError("here")

        with pytest.raises(ConfigError, match="here"):
            await database.write(work)
        assert await database.read(lambda found: found.execute(counters.select()).all()) == []
        assert audit(database.engine) == []
