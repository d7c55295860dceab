"""Two transactions on PostgreSQL, one of which commits between any two statements of the other: the counts,
the ledger and the registry agree whichever statement it is.

A rival that has to wait for a lock does so, and continues when the first transaction has committed.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from qilu_platform.audit import audit
from qilu_platform.counting import ledger
from qilu_platform.database.engine import open_engine, writing
from qilu_platform.database.migrating import migrate
from qilu_platform.database.schema import units
from qilu_platform.database.schema_gateways import device_types as types
from qilu_platform.database.schema_gateways import unit_types
from qilu_platform.database.transactions import MAX_TRIES
from qilu_platform.errors import Refused
from qilu_platform.imports.loading import NotNewError, load, prepare
from qilu_platform.imports.parsing import parse
from qilu_platform.registry import device_types
from qilu_platform.registry.endings import end_contracts
from qilu_platform.registry.onboarding import fall_silent, report
from qilu_platform.registry.registration import (
    register_contracts,
    register_enterprises,
    register_providers,
    register_recognitions,
    register_units,
)
from qilu_platform.registry.suspending import (
    resume_enterprise,
    resume_unit,
    retire_unit,
    suspend_enterprise,
    suspend_unit,
)
from sqlalchemy import Connection, event, select
from sqlalchemy.exc import DBAPIError

Work = Callable[[Connection, int], Any]
HOUR_MS = 3_600_000
WAIT_S = 30.0


def _ids(n: int) -> list[str]:
    return [f"u{n}-{k}" for k in range(4)]


def _numbered(*rows: dict[str, Any]) -> list[tuple[int, dict[str, Any]]]:
    return list(enumerate(rows, start=1))


def _unit(n: int, k: int) -> dict[str, Any]:
    return {"id": f"u{n}-{k}", "class": "motor", "enterprise": f"e{n}", "name": None}


def _contract(n: int, name: str) -> dict[str, Any]:
    return {"id": f"c{n}-{name}", "enterprise": f"e{n}", "provider": "p", "kind": "business"}


def _recognise(kind: str, name: str) -> Work:
    def work(connection: Connection, n: int) -> Any:
        row = {"id": f"r{n}-{name}", "kind": kind, "place": "370202", "subject": f"platform-{n}"}
        return register_recognitions(connection, _numbered(row))

    return work


def _import(connection: Connection, n: int) -> None:
    lines = "".join(f"u{n}-{k},motor,e{n}\n" for k in (2, 3)).encode()
    ready = prepare(connection, "units", parse("units", ["id", "class", "enterprise"], lines, 1), {})
    try:
        with connection.begin_nested():
            entered = load(connection, ready, new=True)
    except NotNewError:
        entered = load(connection, ready, new=False)
    ledger.append(connection, entered.entries, {"units": entered.sealed})


# An enterprise, two units of its own that are registered (the first on cloud) and two that are not yet, a
# contract that runs and one that does not exist yet.
WORKS: dict[str, Work] = {
    "register": lambda found, n: register_units(found, _numbered(_unit(n, 2), _unit(n, 3))),
    "import": _import,
    "report": lambda found, n: report(found, [(id_, 2 * HOUR_MS) for id_ in _ids(n)], first=True),
    "silence": lambda found, n: fall_silent(found, _ids(n)),
    "suspend": lambda found, n: suspend_unit(found, f"u{n}-0"),
    "resume": lambda found, n: resume_unit(found, f"u{n}-0"),
    "retire": lambda found, n: retire_unit(found, f"u{n}-0"),
    "suspend_owner": lambda found, n: suspend_enterprise(found, f"e{n}"),
    "resume_owner": lambda found, n: resume_enterprise(found, f"e{n}"),
    "sign": lambda found, n: register_contracts(found, _numbered(_contract(n, "later"))),
    "end": lambda found, n: end_contracts(found, [f"c{n}-first", f"c{n}-later"]),
    "recognise": _recognise("enterprise_level", "low"),
    "recognise_again": _recognise("enterprise_level", "again"),
    "recognise_higher": _recognise("comprehensive", "high"),
}
STARTS: dict[str, Work] = {
    "running": lambda found, n: None,
    "unit suspended": lambda found, n: suspend_unit(found, f"u{n}-0"),
    "owner suspended": lambda found, n: suspend_enterprise(found, f"e{n}"),
}


def _pid(connection: Connection) -> int:
    driver: Any = connection.connection.driver_connection
    return int(driver.info.backend_pid)


class World:
    """A migrated registry with cases, each of which has separate ids."""

    def __init__(self, url: str, cases: int) -> None:
        self.engine = open_engine(url)
        self._watch = psycopg.connect(url, autocommit=True)
        self._left = iter(range(cases))
        self._before: Callable[[Connection], None] | None = None
        event.listen(self.engine, "before_cursor_execute", self._notice)
        many = range(cases)
        row = {"name": "E", "county": "370202", "industry": "C31", "uscc": None}
        with writing(self.engine) as connection:
            migrate(connection)
            register_providers(connection, _numbered({"id": "p", "name": "P"}))
            register_enterprises(connection, _numbered(*({"id": f"e{n}"} | row for n in many)))
            register_units(connection, _numbered(*(_unit(n, k) for n in many for k in (0, 1))))
            report(connection, [(f"u{n}-0", HOUR_MS) for n in many], first=True)
            register_contracts(connection, _numbered(*(_contract(n, "first") for n in many)))

    def close(self) -> None:
        self._watch.close()
        self.engine.dispose()

    def next_case(self) -> int:
        return next(self._left)

    def interleave(self, work: Work, rival: Work, n: int, at: int) -> tuple[bool, Any]:
        """Run `work`; before its statement numbered `at`, run `rival`, until it has committed or waits for a
        lock. Whether there was such a statement, and what `work` returned."""
        rival_pid: list[int] = []
        begun = threading.Thread(target=lambda: self._commit(rival, n, rival_pid.append))
        mine: list[int] = []
        seen = 0

        def before(connection: Connection) -> None:
            nonlocal seen
            if begun.ident is None and _pid(connection) == mine[0]:
                seen += 1
                if seen > at:
                    begun.start()
                    self._wait_for(begun, rival_pid)

        self._before = before
        answer = self._commit(work, n, lambda pid: mine.insert(0, pid))
        self._before = None
        if begun.ident is not None:
            begun.join(WAIT_S)
            assert not begun.is_alive()
        return begun.ident is not None, answer

    def _notice(self, connection: Connection, *_: Any) -> None:
        if self._before is not None:
            self._before(connection)

    def _commit(self, work: Work, n: int, told: Callable[[int], None]) -> Any:
        """As the platform does it: tried again when PostgreSQL ended it for the sake of another."""
        for left in reversed(range(MAX_TRIES)):
            try:
                with writing(self.engine) as connection:
                    told(_pid(connection))
                    return work(connection, n)
            except Refused as problem:  # such as: the enterprise of the unit is suspended
                return problem
            except DBAPIError as error:
                if not left or getattr(error.orig, "sqlstate", None) not in ("40001", "40P01"):
                    raise
        raise AssertionError("unreachable")

    def _wait_for(self, rival: threading.Thread, pid: list[int]) -> None:
        deadline = time.monotonic() + WAIT_S
        query = "SELECT wait_event_type FROM pg_stat_activity WHERE pid = %s"
        while rival.is_alive():
            assert time.monotonic() < deadline, "the rival neither commits nor waits for a lock"
            if pid and self._watch.execute(query, pid[-1:]).fetchone() == ("Lock",):
                return
            rival.join(0.001)


RACES = [
    ("running", "report", "register"),
    ("running", "report", "import"),
    ("running", "report", "retire"),
    ("running", "report", "silence"),
    ("running", "silence", "report"),
    ("running", "report", "suspend_owner"),
    ("running", "suspend_owner", "report"),
    ("running", "suspend_owner", "register"),
    ("running", "register", "suspend_owner"),
    ("running", "suspend_owner", "import"),
    ("running", "import", "suspend_owner"),
    ("unit suspended", "suspend_owner", "resume"),
    ("unit suspended", "resume", "suspend_owner"),
    ("running", "suspend_owner", "suspend"),
    ("owner suspended", "resume_owner", "suspend"),
    ("owner suspended", "resume_owner", "register"),
    ("owner suspended", "retire", "resume_owner"),
    ("owner suspended", "resume_owner", "retire"),
    ("running", "sign", "suspend_owner"),
    ("running", "end", "sign"),
    ("running", "sign", "end"),
    ("running", "recognise", "recognise_again"),
    ("running", "recognise", "recognise_higher"),
    ("running", "recognise_higher", "recognise"),
]
if os.environ.get("QILU_SOAK") == "1":
    RACES = list(itertools.product(STARTS, WORKS, WORKS))
CASES = 12 * len(RACES)


@pytest.fixture(scope="module")
def world(postgres: Any) -> Iterator[World]:
    postgres.start()
    name = f"interleavings_{os.getpid()}"
    postgres.execute(f"CREATE DATABASE {name}")
    world = World(postgres.url(name), CASES)
    yield world
    world.close()
    postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize(("start", "work", "rival"), RACES)
def test_counts_agree_whichever_statement_another_transaction_commits_before(
    world: World, start: str, work: str, rival: str
) -> None:
    before = audit(world.engine)  # of a case that failed
    for at in itertools.count():
        n = world.next_case()
        with writing(world.engine) as connection:
            STARTS[start](connection, n)
        between, _ = world.interleave(WORKS[work], WORKS[rival], n, at)
        if not between:
            break
    assert at > 0
    assert list(map(str, audit(world.engine))) == list(map(str, before))


@pytest.mark.parametrize("first", ["assign", "remove"])
def test_no_unit_has_a_device_type_that_was_deleted(world: World, first: str) -> None:
    works: dict[str, Work] = {
        "assign": lambda found, n: device_types.assign(found, f"g{n}", f"type-{n}"),
        "remove": lambda found, n: device_types.remove(found, f"type-{n}"),
    }
    [rival] = works.keys() - {first}
    for at in itertools.count():
        n = world.next_case()
        with writing(world.engine) as connection:
            generic = {"id": f"g{n}", "class": "generic", "enterprise": f"e{n}", "name": None}
            register_units(connection, _numbered(generic))
            device_types.put(connection, {"id": f"type-{n}", "title": "T", "title_zh": "", "signals": []})
        between, _ = world.interleave(works[first], works[rival], n, at)
        with world.engine.connect() as connection:
            of_the_unit = connection.scalar(select(unit_types.c.type).where(unit_types.c.unit == f"g{n}"))
            left = connection.scalar(select(types.c.id).where(types.c.id == f"type-{n}"))
        assert of_the_unit == left
        if not between:
            break
    assert at > 1


@pytest.mark.parametrize("rival", ["register", "import"])
def test_a_unit_registered_while_it_is_reported_is_counted_or_told_to_be_unknown(
    world: World, rival: str
) -> None:
    told: set[tuple[int, tuple[str, ...]]] = set()
    for at in itertools.count():
        n = world.next_case()
        between, done = world.interleave(WORKS["report"], WORKS[rival], n, at)
        on_cloud = select(units.c.id).where(units.c.id.in_(_ids(n)), units.c.on_cloud_ms.is_not(None))
        with world.engine.connect() as connection:
            counted = set(connection.scalars(on_cloud))
        assert counted == set(_ids(n)) - set(done.unknown)
        assert (done.counted, done.already) == (len(counted) - 1, 1)
        told.add((done.counted, tuple(done.unknown)))
        if not between:
            break
    assert len(told) > 1  # some knew of them and some did not
