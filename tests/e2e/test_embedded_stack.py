"""`qilu up` as a user runs it: every part a real process or server, judged by its report and by what is
stored."""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.store import SeriesQuery
from qilu_devices.scenario import load_scenario
from qilu_devices.simulation import samples
from qilu_platform.client import Platform
from qilu_stores import open_store

QILU = Path(sys.executable).parent / "qilu"
ROOT = Path(__file__).parents[2]
START_S = 60


def qilu(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [QILU, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.fixture(params=["real servers", "pip only"])
def stack_flags(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[list[str], str]:
    """The flags of a stack, and its store: Mosquitto + InfluxDB + PostgreSQL, or what pip installs alone."""
    if request.param == "pip only":
        return ["--broker", "builtin"], f"duckdb:///{tmp_path}/state/readings.duckdb"
    request.getfixturevalue("mosquitto_program")
    store = request.getfixturevalue("influxdb").url
    return ["--broker", "mosquitto", "--store", store, "--db", request.getfixturevalue("postgres_url")], store


async def test_a_small_province_is_counted_and_stored_value_by_value(
    stack_flags: tuple[list[str], str], tmp_path: Path, free_port: Callable[[], int]
) -> None:
    flags, store_url = stack_flags
    state, file = tmp_path / "state", tmp_path / "report.json"
    ports = ["--port", str(free_port()), "--mqtt-port", str(free_port())]
    run = qilu("up", "--state", state, *flags, *ports, "--units", "2000", "--for", "20s", "--report", file)
    assert run.returncode == 0, run.stdout + run.stderr
    report = json.loads(file.read_text())

    assert report["accepted"] == report["stored"] + report["dead_lettered"]
    assert report["accepted"] >= 2 * 2000
    assert (report["lost"], report["duplicates"], report["spooled"], report["dead_lettered"]) == (0, 0, 0, 0)
    assert report["units_on_cloud"] == report["units_registered"] == 2000

    # Only a file beside the run holds the true faults of each unit.
    assert (state / "devices" / "faults.parquet").stat().st_size > 0

    # Readings that must be stored, computed from the run's manifest alone.
    manifest = json.loads((state / "devices" / "run.json").read_text())
    scenario = load_scenario()
    until_ms = manifest["until_ms"]
    expected = samples(scenario, manifest["seed"], manifest["start_ms"], manifest["units"], None, until_ms)
    assert sum(map(len, expected.values())) == report["stored"]
    chosen = sorted(expected, key=lambda unit: (len(expected[unit]), unit))[:: len(expected) // 10][:10]
    async with open_store(store_url) as store:
        for unit in chosen:
            class_name = re.sub(r"^\d{6}-(.*)-\d{7}$", r"\1", unit).replace("-", "_")
            fields = [signal.name for signal in CATALOGUE[class_name].signals]
            rows = await store.series(SeriesQuery(class_name, {"unit": unit}, fields, 0, until_ms + 1))
            assert [(row.ts_ms, row.values) for row in rows] == expected[unit]
    assert len(chosen) == 10

    # And all of it, by the command that does so for any run.
    said = qilu("verify", "--run", state / "devices", "--store", store_url, "--json")
    assert said.returncode == 0, said.stdout + said.stderr
    verdict = json.loads(said.stdout)
    assert verdict["expected"] == verdict["stored"] == report["stored"]
    assert [verdict[name] for name in ("lost", "duplicated", "altered", "unexpected", "others")] == [0] * 5


def test_a_fast_run_into_the_future_has_no_dead_letters_on_the_broker_that_pip_installs(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    """That broker keeps no order between the run's clock and its readings."""
    state, file = tmp_path / "state", tmp_path / "report.json"
    ports = ["--port", str(free_port()), "--mqtt-port", str(free_port()), "--metrics-port", "0"]
    flags = ["--broker", "builtin", "--units", "10", "--for", "40m", "--speed", "max", "--report", file]
    run = qilu("up", "--state", state, *flags, *ports)
    assert run.returncode == 0, run.stdout + run.stderr
    report = json.loads(file.read_text())
    assert (report["lost"], report["dead_lettered"], report["duplicates"]) == (0, 0, 0)
    assert report["stored"] == report["acknowledged"] > 10 * 40


class RunningStack:
    """A stack started by `qilu up`, and the environment that its `env` file gives a shell."""

    def __init__(self, state: Path, *flags: str) -> None:
        self.state = state
        self.output = state.with_suffix(".out")
        with self.output.open("wb") as out:
            command = [QILU, "up", "--state", state, *flags]
            self.process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL)

    def wait_for(self, done: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The programme's counts once `done` says so."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                counts: dict[str, Any] = httpx.get(
                    f"{self.env['QILU_PLATFORM']}/v1/programme", trust_env=False
                ).json()
            except (httpx.TransportError, KeyError):
                counts = {}
            if counts and done(counts):
                return counts
            time.sleep(0.1)
        raise AssertionError(f"not reached in {START_S} s:\n{self.output.read_text()}")

    @property
    def env(self) -> dict[str, str]:
        file = self.state / "env"
        if not file.exists():
            return {}
        said = subprocess.run(
            ["bash", "-c", f". {file} && env"], capture_output=True, text=True, check=True
        ).stdout
        return dict(line.split("=", 1) for line in said.splitlines() if line.startswith("QILU_"))

    def interrupt(self) -> int:
        """Ctrl-C; the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(30)


@pytest.fixture
def running(tmp_path: Path, free_port: Callable[[], int], mosquitto_program: str) -> Iterator[RunningStack]:
    ports = ["--port", str(free_port()), "--mqtt-port", str(free_port())]
    ports += ["--mqtts", f"127.0.0.1:{free_port()}"]
    stack = RunningStack(tmp_path / "state", "--units", "60", *ports)
    yield stack
    if stack.process.poll() is None:
        stack.process.kill()
        stack.process.wait()


def test_a_store_that_takes_nothing_is_told_while_the_stack_runs(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    ports = ["--port", str(free_port()), "--mqtt-port", str(free_port())]
    away = f"influxdb://somebody:secret@127.0.0.1:{free_port()}/qilu"
    stack = RunningStack(tmp_path / "state", "--units", "10", "--broker", "builtin", "--store", away, *ports)
    try:
        deadline = time.monotonic() + START_S
        while "The store takes nothing" not in stack.output.read_text():
            assert stack.process.poll() is None, stack.output.read_text()
            assert time.monotonic() < deadline, stack.output.read_text()
            time.sleep(0.1)
        stack.interrupt()
    finally:
        stack.process.kill()
        stack.process.wait()
    told = stack.output.read_text()
    assert told.count("The store takes nothing, readings wait: InfluxDB at http://127.0.0.1:") == 1
    assert "secret" not in told


def on_cloud(counts: dict[str, Any]) -> int:
    return next(
        int(target["onboarded"]) for target in counts["targets"] if target["name"] == "units_on_cloud"
    )


def shell_blocks(page: str, heading: str) -> list[str]:
    """The shell blocks under a heading: what people copy is what is tested."""
    text = (ROOT / page).read_text().split(f"## {heading}", 1)[1].split("\n## ", 1)[0]
    return [block.split("```", 1)[0] for block in text.split("```sh\n")[1:]]


def secrets_of(state: Path) -> set[str]:
    """Every line of a key or password file that is one."""
    found = [*(state / "keys").iterdir(), state / "ca" / "ca.key", state / "broker" / "server.key"]
    lines = {line for path in found for line in path.read_text().splitlines()}
    return {line for line in lines if len(line) > 20 and not line.startswith("-----")}


def process_list() -> str:
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_text())
        except OSError:
            continue  # it has ended
    return "\n".join(lines)


def test_a_device_made_by_hand_is_registered_published_read_back_and_counted(
    running: RunningStack, tmp_path: Path
) -> None:
    before = on_cloud(running.wait_for(lambda counts: on_cloud(counts) == 60))
    run = functools.partial(
        subprocess.run, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path,
        env={**os.environ, "PATH": f"{QILU.parent}{os.pathsep}{os.environ['PATH']}"},
    )  # fmt: skip
    enter = f'. "{running.state}/env"\n'
    (readme,) = shell_blocks("README.md", "Connect your own device")
    shell = run(["bash", "-euxo", "pipefail", "-c", enter + readme.partition("\n")[2]])
    assert shell.returncode == 0, shell.stdout + shell.stderr
    after = running.wait_for(lambda counts: on_cloud(counts) > before)
    assert on_cloud(after) == before + 1
    latest = httpx.get(
        f"{running.env['QILU_PLATFORM']}/v1/units/my-motor/latest",
        headers={"Authorization": f"Bearer {running.env['QILU_API_KEY']}"},
        trust_env=False,
    ).json()
    assert latest["values"]["power_in"] == 11.2, latest

    # The tutorial: a unit is broken and repaired, a device connected by hand and by certificate.
    steps = [
        block
        for step in ("2. Look", "3. Break", "4. See", "5. Connect", "6. Connect", "7. Query")
        for block in shell_blocks("docs/tutorial.md", step)
    ]
    shell = run(["bash", "-euxo", "pipefail", "-c", enter + "".join(steps)])
    assert shell.returncode == 0, shell.stdout + shell.stderr
    assert '"signal":"casing_accel"' in shell.stdout
    assert "unknown_signal" in shell.stdout
    with Platform(running.env["QILU_PLATFORM"], running.env["QILU_API_KEY"]) as client:
        deadline = time.monotonic() + START_S
        while client.latest("my-motor").values["power_in"] != 11.3:
            # On a busy machine the broker may get the rules later than the README promises.
            assert time.monotonic() < deadline
            again = ["sh", tmp_path / "my-works" / "publish.sh", "my-motor", '"power_in": 11.3']
            subprocess.run(again, check=False, timeout=30)

    # No secret is where others can read it.
    listed, hidden = process_list(), secrets_of(running.state)
    assert str(running.state) in listed
    assert len(hidden) >= 8
    logs = [running.output, *(running.state / "log").iterdir()]
    for text in (listed, *(path.read_text() for path in logs)):
        assert [secret for secret in hidden if secret in text] == []

    # The same by another client, and a bad reading: the count stays, the dead letter gives the reason.
    env = running.env
    port = env["QILU_BROKER"].rsplit(":", 1)[1]
    topic = "qilu/v1/370202/my-works/my-motor/telemetry"
    login = [
        "-V",
        "mqttv5",
        "-h",
        "127.0.0.1",
        "-p",
        port,
        "-u",
        env["QILU_MQTT_USER"],
        "-P",
        env["QILU_MQTT_PASSWORD"],
    ]
    subprocess.run(
        ["mosquitto_pub", *login, "-q", "1", "-t", topic, "-m", '{"ts": 5, "power_in": 1}'],
        check=True,
        timeout=30,
    )
    deadline = time.monotonic() + START_S
    listed = ""
    while "bad_timestamp" not in listed and time.monotonic() < deadline:
        words = ("gateway", "dead-letters", "list", "--json", "--state")
        listed = qilu(*words, running.state / "gateway").stdout
    assert json.loads(listed.splitlines()[0])["reason"] == "bad_timestamp"
    # And the owner reads it, too, without access to this machine.
    problems: list[dict[str, Any]] = []
    while not problems and time.monotonic() < deadline:
        items = httpx.get(
            f"{env['QILU_PLATFORM']}/v1/units/my-motor/problems",
            headers={"Authorization": f"Bearer {env['QILU_API_KEY']}"},
            trust_env=False,
        ).json()["items"]
        problems = [each for each in items if each["reason"] == "bad_timestamp"]
    [told] = problems
    assert (told["enterprise"], told["reason"], told["count"]) == ("my-works", "bad_timestamp", 1)
    assert '{"ts": 5, "power_in": 1}' in told["excerpt"]
    assert running.interrupt() == 0
    last = re.search(r"([\d,]+) readings stored \(([\d,]+) of the", running.output.read_text())
    assert last is not None
    taken, of_the_equipment = (int(count.replace(",", "")) for count in last.groups())
    assert taken > of_the_equipment


def test_an_interrupt_stops_cleanly_and_a_second_start_goes_on(running: RunningStack) -> None:
    running.wait_for(lambda counts: on_cloud(counts) == 60)
    beside = qilu("up", "--state", running.state, "--units", "1", "--for", "1s")
    assert (beside.returncode, len(beside.stderr.splitlines())) == (2, 1)
    assert "runs in" in beside.stderr
    assert "Continuing" not in beside.stdout
    store = f"duckdb:///{running.state}/readings.duckdb"
    early = qilu("verify", "--run", running.state / "devices", "--store", store)
    assert early.returncode == 2
    assert "stop that one first" in early.stderr
    assert running.interrupt() == 0
    assert (
        "Stopping: what is on its way is stored first (Ctrl-C again: no longer)" in running.output.read_text()
    )
    assert "0 lost" in running.output.read_text()
    verified = qilu("verify", "--run", running.state / "devices", "--store", store)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    for line in subprocess.run(
        ["ps", "-eo", "args"], capture_output=True, text=True, check=True
    ).stdout.splitlines():
        assert str(running.state) not in line, f"left behind: {line}"
    again = RunningStack(running.state, "--units", "70", "--for", "1s")
    assert again.process.wait(60) == 0, again.output.read_text()
    assert "70 of 70 units on cloud" in again.output.read_text()
    assert f"Continuing with the units and readings in {running.state}" in again.output.read_text()


def test_dead_letters_of_the_equipment_are_reported_with_exit_code_1(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    report = tmp_path / "report.json"
    ports = ["--port", str(free_port()), "--mqtt-port", str(free_port()), "--metrics-port", "0"]
    stack = RunningStack(
        tmp_path / "state", "--broker", "builtin", "--units", "5", *ports, "--report", str(report)
    )
    stack.wait_for(lambda counts: on_cloud(counts) == 5)
    key = {"Authorization": f"Bearer {stack.env['QILU_API_KEY']}"}
    with httpx.Client(base_url=stack.env["QILU_PLATFORM"], headers=key, trust_env=False) as http:
        for enterprise in http.get("/v1/enterprises").json()["items"]:
            http.post(f"/v1/enterprises/{enterprise['id']}/suspend").raise_for_status()
    letters = ("gateway", "dead-letters", "list", "--json", "--state", stack.state / "gateway")
    deadline = time.monotonic() + START_S
    while "unknown_unit" not in qilu(*letters).stdout:
        assert time.monotonic() < deadline
    assert stack.interrupt() == 1
    told = json.loads(report.read_text())
    assert told["lost"] == 0
    assert told["refused"] == told["dead_lettered"] > 0
    said = stack.output.read_text()
    assert f"{told['dead_lettered']:,} dead-lettered, 0 lost" in said
    assert f"{told['refused']} of the simulated equipment are dead letters" in " ".join(said.split())


def test_what_was_acknowledged_and_is_missing_is_reported_with_exit_code_1(
    influxdb: Any, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    report = tmp_path / "report.json"
    stack = RunningStack(
        tmp_path / "state",
        *("--broker", "builtin", "--store", influxdb.url, "--units", "60", "--for", "12s"),
        *("--port", str(free_port()), "--mqtt-port", str(free_port()), "--report", str(report)),
    )
    stack.wait_for(lambda counts: on_cloud(counts) == 60)
    # Somebody destroys stored data behind our back.
    gone = httpx.post(
        f"{influxdb.http}/query",
        data={"db": influxdb.database, "q": "DROP MEASUREMENT motor"},
        trust_env=False,
    )
    assert gone.status_code == 200
    assert stack.process.wait(120) == 1
    assert json.loads(report.read_text())["lost"] > 0
    assert "missing" in stack.output.read_text()
    verified = qilu("verify", "--run", stack.state / "devices", "--store", influxdb.url, "--json")
    assert verified.returncode == 1
    assert json.loads(verified.stdout)["lost"] >= json.loads(report.read_text())["lost"]
