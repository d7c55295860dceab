"""Mistakes on the command line: one sentence, exit code 2, and nothing starts."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from qilu.cli import main

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
        ("up --broker nope://me:secret@host", "//…@host"),
        ("gateway run --port 99999", "--port"),
        ("gateway run --broker wss://broker.example/mqtt", "WebSockets is not supported"),
        ("platform run --port 99999", "--port"),
        ("platform audit --db postgresql://127.0.0.1:1/nope", "--db"),
        ("platform audit --db sqlite:///junk.sqlite", "junk.sqlite"),
        ("programme run --live --report folder", "--report"),
    ],
)
def test_a_mistake_is_one_sentence_and_nothing_starts(
    folder: Path, line: str, word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
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
