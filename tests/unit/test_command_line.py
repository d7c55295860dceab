"""The command line: the meaning of flags, and the answers to mistakes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
from qilu.brokers import choose_broker
from qilu.cli import main
from qilu.keyring import API_KEYS, Keyring
from qilu.publish import parse_values
from qilu.stack_config import set_aside, sole_stack
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.errors import ConfigError

from qilu import flags

QILU = Path(sys.executable).parent / "qilu"
Qilu = Callable[..., str]


@pytest.fixture
def qilu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Qilu:
    """Runs a command in this process, and returns what it prints."""

    def run(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["qilu", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        printed, wrong = capsys.readouterr()
        assert ended.value.code in (None, 0), wrong
        return printed

    return run


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("5m", 300), ("2h", 7200), ("30d", 2_592_000), ("1.5s", 1.5)]
)
def test_durations(text: str, seconds: float) -> None:
    assert flags.duration_s(text) == seconds


@pytest.mark.parametrize(
    ("text", "speed"), [("1", 1), ("0.5", 0.5), ("1day/s", 86_400), ("1month/s", 2_629_800), ("max", None)]
)
def test_speeds(text: str, speed: float | None) -> None:
    assert flags.speed(text) == speed


def test_times_and_shards() -> None:
    assert flags.time_ms("2022-06-01T08:00:00+08:00") == flags.time_ms("2022-06-01") == 1_654_041_600_000
    assert flags.shard("2/7") == (2, 7)


@pytest.mark.parametrize("value", ["power_in", "power_in=warm"])
def test_a_value_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="power_in"):
        parse_values([value])


def test_values_have_the_type_that_is_written() -> None:
    values = parse_values(["a=1", "b=1.5", "c=true", "d=-2", "e=1e3"])
    assert values == {"a": 1, "b": 1.5, "c": True, "d": -2, "e": 1000.0}
    assert [type(value) for value in values.values()] == [int, float, bool, int, float]


def test_the_catalogue_for_programs(qilu: Qilu) -> None:
    printed = json.loads(qilu("devices", "catalogue", "--json"))
    assert [entry["class"] for entry in printed] == list(CATALOGUE)
    motor = next(entry for entry in printed if entry["class"] == "motor")
    assert motor["signals"][0].keys() == {"name", "unit", "type", "low", "high", "interval_s", "mark"}
    for entry in printed:
        assert len(entry["faults"]) >= 3
        assert entry["faults"][0].keys() == {"name", "signature", "source"}


def test_the_catalogue_of_one_class(qilu: Qilu) -> None:
    printed = qilu("devices", "catalogue", "motor")
    motor = CATALOGUE["motor"]
    assert motor.title_zh in printed
    for row in (*motor.signals, *motor.faults):
        assert f" {row.name} " in printed
    assert "IDV1" not in printed
    [data] = json.loads(qilu("devices", "catalogue", "motor", "--json"))
    assert data["class"] == "motor"


def test_the_digest_of_a_run_is_the_same_at_every_call(qilu: Qilu) -> None:
    words = ("devices", "run", "--digest", "--units", "10", "--start", "2022-06-01", "--for", "1m")
    first = qilu(*words)
    assert len(first.strip()) == 64
    assert qilu(*words) == first
    assert qilu(*words, "--seed", "7") != first


def test_doctor_says_what_is_there_and_what_is_not(qilu: Qilu) -> None:
    findings = json.loads(qilu("doctor", "--json"))
    assert {finding["verdict"] for finding in findings} <= {"good", "note", "bad"}
    assert any("Python" in finding["what"] for finding in findings)


def fake_mosquitto(folder: Path, version: str) -> None:
    """A program that says it is that version: an old Mosquitto cannot be had beside the new one."""
    program = folder / "sbin" / "mosquitto"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\necho 'mosquitto version {version}'\n")
    program.chmod(0o755)


def test_an_old_mosquitto_is_refused_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_mosquitto(tmp_path, "2.0.11")
    monkeypatch.setenv("PATH", str(tmp_path / "sbin"), prepend=":")
    kind, why = choose_broker("auto")
    assert kind == "builtin"
    assert "2.0.21" in why
    with pytest.raises(ConfigError, match=r"older than 2\.0\.21"):
        choose_broker("mosquitto")
    fake_mosquitto(tmp_path, "2.0.21")
    with pytest.raises(ConfigError, match="dynamic security plugin"):
        choose_broker("mosquitto")
    plugin = tmp_path / "lib" / "x86_64-linux-gnu" / "mosquitto_dynamic_security.so"
    plugin.parent.mkdir(parents=True)
    plugin.touch()
    assert choose_broker("auto")[0] == "mosquitto"


def test_the_keyring_is_made_once_and_private(tmp_path: Path) -> None:
    keyring = Keyring(tmp_path / "keys")
    keyring.make()
    keys = {role: keyring.key(role) for role in API_KEYS}
    assert len(set(keys.values())) == len(API_KEYS)
    keyring.make()
    assert {role: keyring.key(role) for role in API_KEYS} == keys
    assert all(file.stat().st_mode & 0o077 == 0 for file in keyring.directory.iterdir())
    hashed = keyring.mosquitto_passwords()
    assert all(keyring.password(user) not in hashed for user in ("gateway", "devices", "operator"))


def test_a_service_starts_without_what_it_does_not_need() -> None:
    code = "import sys, qilu.cli, qilu_gateway.service; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = {"rich", "pygments", "pydantic", "yaml"} & set(loaded.stdout.split())
    assert not found, "a killed gateway needs two seconds to be back: most of that are imports"


def test_the_version_is_that_of_the_package() -> None:
    done = subprocess.run([QILU, "--version"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, f"qilu {metadata.version('clouds-in-qilu')}\n")


def test_a_fresh_stack_sets_the_earlier_one_aside(tmp_path: Path) -> None:
    state = tmp_path / "var"
    assert set_aside(state) is None
    state.mkdir()
    assert set_aside(state) is None
    (state / "registry.sqlite").write_text("earlier")
    aside = set_aside(state)
    assert aside is not None
    assert (aside / "registry.sqlite").read_text() == "earlier"
    assert not state.exists()
    state.mkdir()
    (state / "registry.sqlite").write_text("in use")
    with sole_stack(state), pytest.raises(ConfigError, match="stop it"):
        set_aside(state)
    assert (state / "registry.sqlite").read_text() == "in use"


def test_publishing_needs_no_package_of_an_extra() -> None:
    code = "import sys, qilu.publish; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"aiomqtt", "paho", "fastapi", "sqlalchemy", "duckdb"} & set(loaded.split())
