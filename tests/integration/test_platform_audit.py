"""Changes by hand are found, and repaired as far as the registry's rows determine the right value."""

from __future__ import annotations

import contextlib
import itertools
import json
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from qilu_platform.audit import audit, repair
from qilu_platform.database.engine import open_engine, writing
from qilu_platform.database.migrating import migrate
from qilu_platform.database.schema import audit_log
from qilu_platform.models.fields import Role
from qilu_platform.registry.audit_log import record
from qilu_platform.registry.keys import Caller
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
from qilu_platform.registry.suspending import retire_unit, suspend_enterprise, suspend_unit
from sqlalchemy import Engine, select, text

HOUR_MS = 3_600_000
QILU = Path(sys.executable).parent / "qilu"


def _numbered(*rows: dict[str, Any]) -> list[tuple[int, dict[str, Any]]]:
    return list(enumerate(rows, start=1))


def _fill(engine: Engine) -> None:
    """A registry with something of everything. Enterprises e1, e2 and e3 differ in county or industry; e4 is
    like e1, and so is e5, which has no units."""
    places = [
        ("e1", "370202", "C31"),
        ("e2", "370102", "C31"),
        ("e3", "370202", "C34"),
        ("e4", "370202", "C31"),
        ("e5", "370202", "C31"),
    ]
    with writing(engine) as connection:
        migrate(connection)
        owners = [
            {"id": id_, "name": "E", "county": county, "industry": industry, "uscc": None}
            for id_, county, industry in places
        ]
        register_enterprises(connection, _numbered(*owners))
        things = [
            {"id": f"u{n}", "class": ["motor", "boiler"][n % 2], "enterprise": f"e{n % 4 + 1}", "name": None}
            for n in range(16)
        ]
        register_units(connection, _numbered(*things))
        register_providers(connection, _numbered(*({"id": id_, "name": "P"} for id_ in ("p1", "p2"))))
        signed = [
            {"id": f"c{n}", "enterprise": f"e{n % 3 + 1}", "provider": "p1", "kind": "business"}
            for n in range(6)
        ]
        register_contracts(connection, _numbered(*signed))
        register_centres(connection, _numbered({"id": "x1", "name": "X", "city": "370200", "park": None}))
        recognised = [
            {"id": f"r-{kind}", "kind": kind, "place": "370202", "subject": "platform"}
            for kind in ("enterprise_level", "cross_industry")
        ]
        register_recognitions(connection, _numbered(*recognised))
        paid = {"id": "d1", "level": "city", "granted": 9, "redeemed": 5, "clawed_back": 1}
        register_disbursements(connection, _numbered(paid))
        report(connection, [(f"u{n}", n * HOUR_MS) for n in range(12)], first=True)
        suspend_enterprise(connection, "e2")
        suspend_unit(connection, "u4")
        retire_unit(connection, "u0")
        by = Caller("key-1", Role.OPERATOR)
        record(connection, by, "suspended", "enterprises/e2")
        record(connection, by, "retired", "units/u0")


Copies = Callable[[], str]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def copies(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copies]:
    """Makes a copy of the filled registry, and tells its URL."""
    folder, names = tmp_path_factory.mktemp("books"), itertools.count()
    if request.param == "sqlite":
        engine = open_engine(f"sqlite:///{folder}/filled.db")
        _fill(engine)
        engine.dispose()

        def copy() -> str:
            to = folder / f"{next(names)}.db"
            shutil.copy(folder / "filled.db", to)
            return f"sqlite:///{to}"

        yield copy
        return
    postgres = request.getfixturevalue("postgres")
    postgres.start()
    filled, made = f"books_{secrets.token_hex(6)}", list[str]()
    postgres.execute(f"CREATE DATABASE {filled}")
    engine = open_engine(postgres.url(filled))
    _fill(engine)
    engine.dispose()

    def create() -> str:
        made.append(f"{filled}_{next(names)}")
        postgres.execute(f"CREATE DATABASE {made[-1]} TEMPLATE {filled}")
        return str(postgres.url(made[-1]))

    yield create
    for name in (*made, filled):
        postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def books(copies: Copies) -> Iterator[Engine]:
    engine = open_engine(copies())
    yield engine
    engine.dispose()


@contextlib.contextmanager
def _unguarded(engine: Engine) -> Iterator[Any]:
    """A connection of somebody who may do anything: triggers and the index of tiers are out of the way."""
    with writing(engine) as connection:
        if engine.dialect.name == "sqlite":
            for name in connection.scalars(
                text("SELECT name FROM sqlite_master WHERE type = 'trigger'")
            ).all():
                connection.execute(text(f"DROP TRIGGER {name}"))
        else:
            connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text("DROP INDEX IF EXISTS recognitions_standing"))
        yield connection


# (what was done, what a finding says of it, whether the repair leaves nothing)
TAMPERINGS = {
    "contracts_current": (
        "UPDATE enterprises SET contracts_current = 7 WHERE id = 'e1'",
        "contracts_current of 1 enterprises is not the number of their contracts: e1",
        True,
    ),
    "an enterprise's last contract": (
        "UPDATE enterprises SET contracts_current = 0 WHERE id = 'e3'",
        "contracts_current of 1 enterprises is not the number of their contracts: e3",
        True,
    ),
    "a contract given to another enterprise": (
        "UPDATE contracts SET enterprise = 'e2' WHERE id = 'c0'",
        "contracts_current of 2 enterprises is not the number of their contracts: e1, e2",
        True,
    ),
    "an enterprise without its day on cloud": (
        "UPDATE enterprises SET on_cloud_ms = NULL WHERE id = 'e1'",
        "1 enterprises are on cloud without ever a contract, or not on cloud with one: e1",
        False,
    ),
    "two tiers": (
        "UPDATE recognitions SET ended_ms = NULL",
        "1 platforms are in two tiers, or twice in one: platform",
        True,
    ),
    "a unit moved to another county": (
        "UPDATE units SET enterprise = 'e2' WHERE id = 'u2'",
        "1 units are not in the county of their enterprise: u2",
        False,
    ),
    "a unit moved to another industry": (
        "UPDATE units SET enterprise = 'e3' WHERE id = 'u8'",
        "1 units are not in the industry of their enterprise: u8",
        False,
    ),
    "a unit moved to nobody": (
        "UPDATE units SET enterprise = 'e9' WHERE id = 'u2'",
        "1 units belong to an enterprise that is not registered: u2",
        False,
    ),
    "a unit's industry": (
        "UPDATE units SET industry = 'C99' WHERE id = 'u2'",
        "1 units are not in the industry of their enterprise: u2",
        False,
    ),
    "an enterprise's industry": (
        "UPDATE enterprises SET industry = 'C99' WHERE id = 'e1'",
        "4 units are not in the industry of their enterprise: u0, u12, u4, u8",
        False,
    ),
    "an enterprise's county": (
        "UPDATE enterprises SET county = '370203' WHERE id = 'e1'",
        "4 units are not in the county of their enterprise: u0, u12, u4, u8",
        False,
    ),
    "a suspension that is not followed": (
        "UPDATE units SET suspended_ms = NULL WHERE id = 'u5'",
        "1 units are not suspended though their enterprise is: u5",
        True,
    ),
    "a retired unit that is suspended": (
        "UPDATE units SET suspended_ms = 5 WHERE id = 'u0'",
        "1 units are both retired and suspended: u0",
        True,
    ),
    "a unit's first reading": (
        "UPDATE units SET on_cloud_ms = NULL WHERE id = 'u2'",
        "units_onboarded of county 370202: counter 9, ledger 9, the registry holds 8",
        True,
    ),
    "a unit's retirement": (
        "UPDATE units SET retired_ms = NULL WHERE id = 'u0'",
        "units_current of class motor: counter 4, ledger 4, the registry holds 5",
        True,
    ),
    "a unit's class": (
        "UPDATE units SET class = 'boiler' WHERE id = 'u12'",
        "units_registered of class motor: counter 8, ledger 8, the registry holds 7",
        True,
    ),
    "a unit's hour": (
        "UPDATE units SET last_hour = 99 WHERE id = 'u2'",
        "units_active of hour 99: counter 0, ledger 0, the registry holds 1",
        True,
    ),
    "the gauge of active units": (
        "UPDATE activity SET units = 3 WHERE hour = 2",
        "units_active of hour 2: counter 3, ledger 3, the registry holds 1",
        True,
    ),
    "a unit that is gone": (
        "DELETE FROM units WHERE id = 'u2'",
        "units_registered of province 370000: counter 16, ledger 16, the registry holds 15",
        True,
    ),
    "a contract that ended": (
        "UPDATE contracts SET ended_ms = 5 WHERE id = 'c2'",
        "contracts_current of kind business: counter 6, ledger 6, the registry holds 5",
        True,
    ),
    "a provider": (
        "INSERT INTO providers (id, name, registered_ms) VALUES ('p3', 'P', 1)",
        "providers of province 370000: counter 2, ledger 2, the registry holds 3",
        True,
    ),
    "a centre's city": (
        "UPDATE centres SET city = '370100'",
        "centres of city 370200: counter 1, ledger 1, the registry holds 0",
        True,
    ),
    "money": (
        "UPDATE disbursements SET granted = 7",
        "vouchers_granted of level city: counter 9, ledger 9, the registry holds 7",
        True,
    ),
    "a counter": (
        "UPDATE counters SET value = 4 WHERE name = 'units_registered' AND code = '370202'",
        "units_registered of county 370202: counter 4, ledger 12, the registry holds 12",
        True,
    ),
    "all counters": (
        "DELETE FROM counters",
        "contracts_current of kind business: counter 0, ledger 6, the registry holds 6",
        True,
    ),
    "a line of the ledger": (
        "DELETE FROM ledger WHERE event = 'unit_retired' OR event = 'unit_left'",
        "units_current of class motor: counter 4, ledger 5, the registry holds 4",
        True,
    ),
    "a number in the ledger": (
        "UPDATE ledger SET count = count + 1 WHERE event = 'contract_begun'",
        "contracts_current of kind business: counter 6, ledger 7, the registry holds 6",
        True,
    ),
    "a county in the ledger": (
        "UPDATE ledger SET county = '370203' WHERE event = 'unit_registered' AND county = '370202'",
        "units_registered of county 370203: counter 0, ledger 12, the registry holds 0",
        True,
    ),
    "a unit moved within county and industry": (
        "UPDATE units SET enterprise = 'e4' WHERE id = 'u8'",
        "units: rows are not as they were written",
        True,
    ),
    "the industry of an enterprise without units": (
        "UPDATE enterprises SET industry = 'C99' WHERE id = 'e5'",
        "enterprises: rows are not as they were written",
        True,
    ),
    "the provider of a contract": (
        "UPDATE contracts SET provider = 'p2' WHERE id = 'c2'",
        "contracts: rows are not as they were written",
        True,
    ),
    "the time of a first reading": (
        "UPDATE units SET on_cloud_ms = on_cloud_ms + 1 WHERE id = 'u8'",
        "first readings: rows are not as they were written",
        True,
    ),
    "first readings of a pair": (
        "UPDATE units SET on_cloud_ms = CASE id WHEN 'u12' THEN 8 END WHERE id IN ('u8', 'u12')",
        "first readings: rows are not as they were written",
        True,
    ),
    "a time in the ledger": (
        "UPDATE ledger SET at_ms = at_ms - 1 WHERE event = 'centre_opened'",
        "ledger: rows are not as they were written",
        True,
    ),
    "lines of the ledger that cancel each other": (
        "INSERT INTO ledger (at_ms, event, city, county, class, count) VALUES "
        "(1, 'unit_suspended', '370200', '370202', 'motor', 1), "
        "(1, 'unit_resumed', '370200', '370202', 'motor', 1)",
        "ledger: 25 rows, 23 were written",
        True,
    ),
    "a line of the audit log": (
        "DELETE FROM audit_log WHERE action = 'retired'",
        "audit_log: 1 rows, 2 were written",
        True,
    ),
    "the whole audit log": ("DELETE FROM audit_log", "audit_log: 0 rows, 2 were written", True),
    "somebody else in the audit log": (
        "UPDATE audit_log SET key = 'key-2'",
        "audit_log: rows are not as they were written",
        True,
    ),
    "the seals": ("DELETE FROM seals", "units: 16 rows, 0 were written", True),
    "an unknown event": (
        "INSERT INTO ledger (at_ms, event, count) VALUES (1, 'unit_stolen', 1)",
        "ledger: 1 lines have the unknown event 'unit_stolen': they count nothing, and no repair removes "
        "them",
        False,
    ),
}


@pytest.mark.parametrize("what", TAMPERINGS)
def test_the_audit_finds_what_was_changed_by_hand_and_the_repair_mends_it(books: Engine, what: str) -> None:
    statement, told, mends = TAMPERINGS[what]
    assert audit(books) == []
    with _unguarded(books) as connection:
        connection.execute(text(statement))
    before = audit(books)
    assert told in list(map(str, before))
    planned, left = repair(books, dry=True)
    assert list(map(str, audit(books))) == list(map(str, before))  # a dry run changes nothing
    done, left = repair(books, dry=False)
    assert done == planned
    assert left == audit(books)
    assert (left == []) == mends
    if not mends:
        assert told in list(map(str, left))
    assert repair(books, dry=False) == ([], left)
    with books.connect() as connection:
        noted = connection.execute(select(audit_log).where(audit_log.c.action == "repaired")).all()
    assert [json.loads(line.detail) for line in noted] == (
        [{"changes": len(done), "first": done}] if done else []
    )


def test_the_command_shows_the_repair_and_makes_it_when_told_to(books: Engine) -> None:
    url = books.url.render_as_string(hide_password=False)

    def run(*options: str, answer: str = "") -> tuple[int, str]:
        command = [str(QILU), "platform", "audit", "--db", url, *options]
        done = subprocess.run(command, input=answer, capture_output=True, text=True, timeout=120, check=False)
        return done.returncode, done.stdout + done.stderr

    with _unguarded(books) as connection:
        connection.execute(text("UPDATE enterprises SET contracts_current = 7 WHERE id = 'e1'"))
    change = "enterprise e1: contracts_current 7 becomes 2"
    code, shown = run("--repair", answer="n\n")
    assert "is not the number of their contracts: e1" in shown
    assert code == 1
    assert change in shown
    assert audit(books) != []
    code, shown = run("--repair", "--yes")
    assert (code, audit(books)) == (0, [])
    assert change in shown
