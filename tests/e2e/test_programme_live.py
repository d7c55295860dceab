"""The programme played through the real pipeline: its counters are the model's at every month, whatever is
killed on the way."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gateway_world import GatewayProcess
from pydantic import SecretStr
from qilu_gateway.settings import Settings as GatewaySettings
from qilu_platform.service import PlatformService
from qilu_platform.settings import Settings as PlatformSettings
from qilu_programme.counts import Counter
from qilu_programme.events import ACTIONS, Contracts, Equipment, NoticeKind
from qilu_programme.model import Model
from qilu_programme.months import LABELS
from qilu_programme.scenario import LEVELS, load_scenario
from qilu_programme.world import CITY_CODES

QILU = Path(sys.executable).parent / "qilu"
SCALE = 0.001
PATIENCE_S = 600
ADMIN, INGEST = "the-admin-key-of-this-test", "the-gateway-key-of-this-test"


@cache
def model_month_by_month() -> list[dict[str, int]]:
    """Counts of the model for one enterprise in a thousand, from its events alone."""
    model = Model(load_scenario())
    chosen = model.draws.uniform("replay", np.arange(model.world.enterprises)) < SCALE
    counter, ids, months = Counter(model.world), set(), []
    money: dict[str, int] = {}
    for events in model.events():
        for name in ("granted", "redeemed", "clawed_back"):
            for level, yuan in zip(LEVELS, getattr(events.money, name), strict=True):
                money[f"vouchers/{level}/{name}"] = money.get(f"vouchers/{level}/{name}", 0) + yuan
        contracts, equipment = events.contracts, events.equipment
        mine, theirs = chosen[contracts.enterprise], chosen[equipment.enterprise]
        ids |= set(map(model.world.identify, contracts.enterprise[mine].tolist()))
        counter.add(
            replace(
                events,
                contracts=Contracts(
                    contracts.enterprise[mine], contracts.kind[mine], contracts.provider[mine]
                ),
                equipment=Equipment(equipment.enterprise[theirs], equipment.units[theirs]),
                ended=events.ended[chosen[events.ended]],
                notices=tuple(
                    notice
                    for notice in events.notices
                    if notice.kind is not NoticeKind.PILOT or notice.id in ids
                ),
            )
        )
        counts = dict(counter.values()) | money
        counts["enterprises_on_cloud_now"] = counter.current
        for place, city in enumerate(CITY_CODES):
            counts[f"city/{city}/enterprises"] = int(counter.enterprises_by_city[place])
            counts[f"city/{city}/units"] = int(counter.units_by_city[place])
        for kind, name in enumerate(ACTIONS):
            counts[f"contracts/{name}"] = int(counter.contracts_by_kind[kind])
        months.append(counts)
    return months


class LiveRun:
    """A run's folder, and the process that plays it now."""

    def __init__(self, state: Path, *flags: str) -> None:
        self.state, self.output = state, state.with_suffix(".out")
        self._command = [QILU, "programme", "run", "--live", "--exit", "--state", state, *flags]
        self.process: subprocess.Popen[bytes]

    def start(self, *flags: str | Path) -> None:
        with self.output.open("ab") as out:
            self.process = subprocess.Popen(
                [*self._command, *flags], stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )

    def months(self) -> list[dict[str, Any]]:
        """Those that are done; a run with a stack of its own keeps its record in a folder of that."""
        own = self.state / "programme" / "run.json"
        try:
            content = json.loads((own if own.parent.exists() else self.state / "run.json").read_text())
        except FileNotFoundError:
            return []
        months: list[dict[str, Any]] = content["months"]
        return months

    def kill_after(self, months: int) -> None:
        """Kill -9 in the middle of what follows that month."""
        deadline = time.monotonic() + PATIENCE_S
        while len(self.months()) < months:
            assert self.process.poll() is None, self.output.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)


def qilu(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([QILU, *map(str, words)], capture_output=True, text=True, timeout=300, check=False)


def test_every_month_the_platform_counts_what_the_model_counts_through_two_kills(
    tmp_path: Path, free_port: Callable[[], int], mosquitto_program: str
) -> None:
    ports = ["--port", str(free_port()), "--mqtt-port", str(free_port())]
    run = LiveRun(tmp_path / "state", *ports, "--scale", "1/1000", "--speed", "max", "--broker", "mosquitto")
    report = tmp_path / "report.json"
    try:
        # Broker, gateway, store and platform are killed at once, and the player with them.
        for months in (9, 30):
            run.start()
            run.kill_after(months)
        run.start("--report", report)
        model = model_month_by_month()
        assert run.process.wait(PATIENCE_S) == 0, run.output.read_text()
    finally:
        run.process.kill()

    months = run.months()
    assert [month["month"] for month in months] == list(LABELS)
    for month, expected in zip(months, model, strict=True):
        counted = {name: month["counts"][name] for name in expected}
        assert counted == expected, month["month"]
        units = month["counts"]["units_on_cloud"]
        assert month["counts"]["units_registered"] == units
        assert sum(n for name, n in month["counts"].items() if name.startswith("class/")) == units
    said = json.loads(report.read_text())
    assert said["starts"] == 3
    assert said["stored"] == said["units_on_cloud"] == said["units_registered"] == model[-1]["units_on_cloud"]
    assert said["enterprises_on_cloud"] == model[-1]["enterprises_on_cloud"]
    assert all(model[-1][f"vouchers/{level}/redeemed"] > 0 for level in LEVELS)
    assert [said[name] for name in ("lost", "duplicates", "spooled", "dead_lettered")] == [0, 0, 0, 0]

    store = f"duckdb:///{run.state}/readings.duckdb"
    verified = qilu("verify", "--run", run.state / "programme", "--store", store, "--json")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    verdict = json.loads(verified.stdout)
    assert verdict["expected"] == verdict["stored"] == said["stored"]
    assert [verdict[name] for name in ("lost", "duplicated", "altered", "unexpected")] == [0, 0, 0, 0]
    audited = qilu("platform", "audit", "--db", f"sqlite:///{run.state}/registry.sqlite")
    assert audited.returncode == 0, audited.stdout + audited.stderr


async def test_a_run_into_servers_that_run_already_goes_on_while_their_gateway_is_killed_twice(
    tmp_path: Path, mosquitto: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {"api_key": SecretStr(ADMIN), "ingest_key": SecretStr(INGEST)}
    settings = PlatformSettings(db_url=f"sqlite:///{tmp_path}/registry.sqlite", port=0, **keys)
    async with PlatformService(settings) as platform:
        monkeypatch.setenv("QILU_API_KEY", INGEST)
        gateway = GatewayProcess(
            GatewaySettings(
                broker=mosquitto.url,
                store=f"duckdb:///{tmp_path}/readings.duckdb",
                platform=platform.url,
                state=tmp_path / "gateway",
                http_port=0,
            ),
            tmp_path / "gateway.log",
        )
        monkeypatch.setenv("QILU_API_KEY", ADMIN)
        run = LiveRun(tmp_path / "state", "--scale", "1/1000", "--speed", "max", "--until", "2018-06")
        gateway.start()
        try:
            run.start("--platform", platform.url, "--broker", mosquitto.url)
            for months in (1, 4):
                deadline = time.monotonic() + PATIENCE_S
                while len(run.months()) < months:
                    assert run.process.poll() is None, run.output.read_text()
                    assert time.monotonic() < deadline
                    await asyncio.sleep(0.02)
                gateway.kill()
                gateway.start()
            await asyncio.to_thread(run.process.wait, PATIENCE_S)
            assert run.process.returncode == 0, run.output.read_text()
        finally:
            run.process.kill()
            gateway.kill()
    assert [month["month"] for month in run.months()] == list(LABELS[:9])
    for month, expected in zip(run.months(), model_month_by_month(), strict=False):
        assert {name: month["counts"][name] for name in expected} == expected, month["month"]


def test_a_mistake_in_the_scenario_is_told_with_its_line_before_anything_starts(tmp_path: Path) -> None:
    scenario, state = tmp_path / "mine.yaml", tmp_path / "state"
    scenario.write_text("extends: default\nname: mine\nhazard: -1\n")
    done = qilu("programme", "run", scenario, "--live", "--state", state)
    assert done.returncode == 2
    assert "mine.yaml, line 3: 'hazard' must be a number from 0 to 10, not '-1'." in done.stderr
    assert not state.exists()


def test_a_run_pauses_and_goes_on(tmp_path: Path, free_port: Callable[[], int]) -> None:
    ports = ["--port", str(free_port()), "--mqtt-port", str(free_port())]
    run = LiveRun(
        tmp_path / "state", *ports, "--scale", "1/1000", "--speed", "1month/s", "--until", "2018-04"
    )

    def until(said: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not said():
            assert run.process.poll() is None, run.output.read_text()
            assert time.monotonic() < deadline, run.output.read_text()
            time.sleep(0.02)

    run.start()
    try:
        until(lambda: "is up" in run.output.read_text())
        run.process.send_signal(signal.SIGTSTP)  # before anybody listens: nothing comes of it
        until(lambda: "Paused" in run.output.read_text() or len(run.months()) > 0)
        if "Paused" not in run.output.read_text():
            run.process.send_signal(signal.SIGTSTP)
            until(lambda: "Paused" in run.output.read_text())
        run.process.send_signal(signal.SIGTSTP)
        assert run.process.wait(PATIENCE_S) == 0, run.output.read_text()
    finally:
        run.process.kill()
        run.process.wait()
    assert "Resumed." in run.output.read_text()
    assert len(run.months()) == LABELS.index("2018-04") + 1
