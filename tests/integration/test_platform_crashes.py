"""A platform that is killed before any of its statements, or before any commit, leaves books that balance;
what is sent again afterwards counts once."""

from __future__ import annotations

import json
import subprocess
import sys

SCRIPT = """
import json, os, signal, sys
from sqlalchemy import event
from qilu_platform.counting import ledger
from qilu_platform.database.migrating import migrate
from qilu_platform.database.engine import open_engine
from qilu_platform.audit import audit
from qilu_platform.imports.loading import NotNewError, load, prepare
from qilu_platform.registry.endings import end_contract
from qilu_platform.registry.onboarding import fall_silent, report
from qilu_platform.registry.suspending import resume_enterprise, retire_unit, suspend_enterprise
from qilu_platform.imports.parsing import parse
from qilu_platform.counting.programme import read_counts
from qilu_platform.registry.registration import register_contracts, register_enterprises, register_providers

# Forked children find its statements compiled.
engine = open_engine(sys.argv[1])


def write(work):
    with engine.execution_options(qilu_writes=True).begin() as connection:
        return work(connection)


def enter(found, loaded):
    ledger.append(found, loaded.entries, {"units": loaded.sealed})


def live(n):
    "The life of an enterprise with three units; each number is another one."
    owner, provider, ids = f"e{n}", f"p{n}", [f"u{n}-{k}" for k in range(3)]
    row = {"id": owner, "name": "E", "county": "370202", "industry": "C31", "uscc": None}
    write(lambda found: register_enterprises(found, [(1, row)]))
    write(lambda found: register_providers(found, [(1, {"id": provider, "name": "P"})]))
    lines = "".join(f"{id_},motor,{owner}\\n" for id_ in ids).encode()
    block = parse("units", ["id", "class", "enterprise"], lines, 1)
    ready = write(lambda found: prepare(found, "units", block, {}))
    try:
        write(lambda found: enter(found, load(found, ready, new=True)))
    except NotNewError:
        write(lambda found: load(found, ready, new=False))
    readings = [(id_, 3_600_000 + n) for id_ in ids[:2]]
    write(lambda found: report(found, readings, first=True))
    contract = {"id": f"c{n}", "enterprise": owner, "provider": provider, "kind": "equipment"}
    write(lambda found: register_contracts(found, [(1, contract)]))
    write(lambda found: suspend_enterprise(found, owner))
    write(lambda found: resume_enterprise(found, owner))
    write(lambda found: fall_silent(found, ids))
    write(lambda found: retire_unit(found, ids[1]))
    write(lambda found: end_contract(found, f"c{n}"))


def killed_at(step):
    left = step

    def count(*_, **__):
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(engine, "before_cursor_execute", count)
    event.listen(engine, "commit", count)
    live(step)


def balance():
    found = [str(difference) for difference in audit(engine)]
    assert found == [], found
    with engine.connect() as connection:
        counts = read_counts(connection)
    return {name: value for (scope, _, name), value in counts.items() if scope == "province"}


write(migrate)
step, code = 0, -signal.SIGKILL
live(step)
while code == -signal.SIGKILL:
    balance()
    engine.dispose()
    step += 1
    pid = os.fork()
    if not pid:
        killed_at(step)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
for n in range(step):
    live(n)
print(json.dumps({"code": code, "steps": step, "counts": balance()}))
"""


def test_a_platform_killed_at_every_step_counts_everything_once(database_url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, database_url], capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["code"] == 0, done.stderr
    # A dozen transactions, each with a begin, some statements and a commit.
    assert told["steps"] > 50
    lives, counts = told["steps"] + 1, told["counts"]
    assert {name: value / lives for name, value in counts.items() if value} == {
        "enterprises_registered": 1,
        "enterprises_onboarded": 1,
        "providers": 1,
        "units_registered": 3,
        "units_onboarded": 2,
        "units_current": 1,
        "contracts_onboarded": 1,
    }
