"""Mistakes on the command line: one sentence, exit code 2, and nothing starts."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from qilu.cli import app, main
from typer.main import get_command

QILU = Path(sys.executable).parent / "qilu"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("text")
    (tmp_path / "bad.yaml").write_text("units: [\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "junk.sqlite").write_text("not a database" * 100)
    return tmp_path


def qilu(folder: Path, line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [QILU, *shlex.split(line)], cwd=folder, env={**os.environ, **environment},
        capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("up --scenario nofile.yaml", "nofile.yaml"),
        ("up --scenario bad.yaml", "bad.yaml, line"),
        ("up --port 99999", "--port"),
        ("up --mqtt-port x", "--mqtt-port"),
        ("up --nonsense", "--nonsense"),
        ("up --db postgresql://127.0.0.1:1/nope", "--db"),
        ("up --db sqlite:///junk.sqlite", "junk.sqlite"),
        ("up --store nowhere", "--store"),
        ("up --broker ws://broker.example/mqtt", "WebSockets is not supported"),
        ("up --mqtts nonsense", "--mqtts"),
        ("up --state file", "--state file"),
        ("up --report nodir/report.json", "--report"),
        ("devices run --state file", "--state file"),
        ("devices run --scenario folder", "folder"),
        ("devices backfill --days 1 --report folder", "--report folder"),
        ("devices serve", "Nothing to serve"),
        ("devices serve --modbus nowhere", "127.0.0.1:5020"),
        ("devices serve --modbus 127.0.0.1:5020 --modbus-format ABDC", "ABCD, CDAB"),
        ("devices serve --modbus 127.0.0.1:5020 --modbus-format x=ABCD", "device id"),
        ("edge run nofile.yaml", "nofile.yaml"),
        ("edge run bad.yaml", "bad.yaml, line"),
        ("edge config", "either --opcua"),
        ("devices registers nothing", "no class 'nothing'"),
        ("devices serve --opcua 127.0.0.1:4840", "opc.tcp://"),
        ("devices serve --opcua opc.tcp://0.0.0.0:4840 --insecure", "loopback"),
        ("up --broker nope://me:secret@host", "//…@host"),
        ("gateway run --port 99999", "--port"),
        ("gateway run --broker wss://broker.example/mqtt", "WebSockets is not supported"),
        ("platform run --port 99999", "--port"),
        ("platform audit --db postgresql://127.0.0.1:1/nope", "--db"),
        ("platform audit --db sqlite:///junk.sqlite", "junk.sqlite"),
        ("programme run --live --report folder", "--report"),
        ("enterprise add X --county 370202", "--industry"),
        ("unit add --class motor --enterprise x", "There is no key"),
        ("upp", "Did you mean 'up'? See --help."),
        ("up --speed 1year", "1year"),
        ("up --mqtts 127.0.0.1:99999", "--mqtts"),
        ("up --db sqlite:///", "sqlite:///path"),
        ("devices backfill --days 1 --start 2099-01-01", "earlier --start"),
        ("devices export --out out --start 2022-13-01", "2022-13-01"),
        (
            "devices run --commands file --digest --start 2022-01-01 --for 1s",
            "file: this is not the manifest",
        ),
        ("devices run --digest", "--start and --for"),
        ("devices catalogue mill", "mill"),
        ("devices catalogue motor --write /dev/null/pages", "/dev/null/pages"),
        ("gateway dead-letters list --state nofolder", "nofolder"),
        ("gateway dead-letters replay", "--all"),
        ("gateway dead-letters show x", "'id'"),
        ("platform import nofile.csv", "nofile.csv"),
        ("platform import file", "neither .csv nor .ndjson"),
        ("platform import bad.yaml --kind apples", "apples"),
        ("platform backup copy --db sqlite:///nofile.sqlite", "nofile.sqlite"),
        ("platform run --db sqlite:////proc/x/y.sqlite", "--db"),
        ("platform keys rotate k --grace soon", "soon"),
        ("programme run nothere", "county-share-cut"),
        ("programme run --live --scale 0/5", "0/5"),
        ("programme run --live --until 2035-01", "2035-01"),
        ("programme report --out folder", "--out folder"),
        ("dashboards build --to file", "file"),
        ("dashboards picture nothere --store influxdb://127.0.0.1:1/x --out x.svg", "qilu-city"),
        ("dashboards picture unit-motor --store influxdb://127.0.0.1:1/x --out x.gif", "x.gif"),
        ("dashboards push --url nonsense", "QILU_GRAFANA_TOKEN"),
        ("publish x a", "power_in=11.2"),
        ("score file --truth file", "--truth file"),
        ("store check nonsense", "nonsense names no store"),
        ("verify --run folder --store influxdb://127.0.0.1:1/x", "folder/run.json"),
    ],
)
def test_a_mistake_is_one_sentence_and_nothing_starts(
    folder: Path, line: str, word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.delenv("QILU_API_KEY", raising=False)
    monkeypatch.setattr(sys, "argv", ["qilu", *shlex.split(line)])
    with pytest.raises(SystemExit) as ended:
        main()
    said, wrong = capsys.readouterr()
    assert ended.value.code == 2, wrong
    assert len(wrong.strip().splitlines()) == 1, wrong
    assert word in wrong
    assert "secret" not in wrong
    assert said == ""
    assert not (folder / "var" / "broker").exists()


def test_a_setting_from_the_environment_that_cannot_be_used_is_named(folder: Path) -> None:
    done = qilu(folder, "gateway run --store duckdb:///x.duckdb", QILU_BATCH_SIZE="many")
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1), done.stderr
    assert "QILU_BATCH_SIZE" in done.stderr


def test_a_terminal_without_unicode_shows_what_it_can(folder: Path) -> None:
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for line in ("devices catalogue motor", "programme assumptions"):
        done = qilu(folder, line, **ascii_only)
        assert done.returncode == 0, (line, done.stderr)
        assert done.stdout.isascii()
    found = json.loads(qilu(folder, "programme assumptions --json", **ascii_only).stdout)
    assert found == json.loads(qilu(folder, "programme assumptions --json").stdout)
    wrong = qilu(folder, "up --scenario 青岛.yaml", **ascii_only)
    assert (wrong.returncode, len(wrong.stderr.strip().splitlines())) == (2, 1), wrong.stderr


BAD = {
    "--broker": ("nope://x", "mqtt://", "mqtt://h:99999", "mqtt://host:port", "localhost:1883"),
    "--store": ("nowhere", "influxdb://h:99999/x", "influxdb://", "duckdb:///folder"),
    "--db": ("nowhere", "sqlite:///folder"),
    "--platform": ("nope", "ftp://x", "http://", "http://h:99999"),
    "--speed": ("x", "0", "-1"),
    "--for": ("x", "-1s", "90"),
    "--start": ("yesterday", "1970-01-01"),
    "--shard": ("0/0", "3/2", "x"),
    "--mqtts": ("nonsense",),
    "--scenario": ("nofile.yaml", "folder", "bad.yaml"),
    "--state": ("file",),
    "--report": ("folder", "nodir/x.json"),
    "--commands": ("nofile.json", "folder", "file"),
    "--run": ("nofile", "folder", "file"),
    "--class": ("x",),
    "--truth": ("nofile", "folder", "file"),
    "--tolerance": ("x", "-1s"),
}
HUGE = "99999999999999999999999"
SEEDED = (
    ("devices", "totals"),
    ("devices", "export"),
    ("up",),
    ("devices", "run"),
    ("devices", "serve"),
    ("devices", "backfill"),
    ("programme", "run"),
)
RIGHT = {("doctor", "--state"), *((*path, "--seed") for path in SEEDED)}
RIGHT |= {("programme", "run", name) for name in BAD}
RIGHT |= {("unit", name, "--class") for name in ("add", "list")}
"""Commands that take the option's worst: the doctor says what is wrong with a folder, any number is a seed,
the programme needs the others for --live only, and the platform knows its classes."""


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], list[Any]]]:
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, (*path, name))
    if not hasattr(command, "commands"):
        yield path, command.params


EVERY = dict(commands(get_command(app)))


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
def test_no_option_of_any_command_takes_nonsense(
    folder: Path,
    path: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("QILU_API_KEY", "k" * 24)
    for option in EVERY[path]:
        name = next((text for text in getattr(option, "opts", ()) if text.startswith("--")), "")
        values = ("x", HUGE) if option.type_descriptor.annotation is int else BAD.get(name, ())
        for value in values if (*path, name) not in RIGHT else ():
            line = [*path, f"{name}={value}"]
            for other in EVERY[path]:
                if other.required and other is not option:
                    filler = "1" if other.type_descriptor.annotation is int else "x"
                    line += [filler] if other.param_type_name == "argument" else [other.opts[0], filler]
            monkeypatch.setattr(sys, "argv", ["qilu", *line])
            with pytest.raises(SystemExit) as ended:
                main()
            said, wrong = capsys.readouterr()
            assert (ended.value.code, said) == (2, ""), (line, wrong)
            assert len(wrong.strip().splitlines()) == 1, (line, wrong)
