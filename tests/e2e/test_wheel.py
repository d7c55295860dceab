"""The wheel in a new environment: `qilu up` and the README's commands without a checkout."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).parent / "uv"
START_S = 90

pytestmark = pytest.mark.skipif(not UV.exists(), reason="uv, which `make setup` installs, is missing")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the programs of an environment that holds the wheel and what the stack needs."""
    home = tmp_path_factory.mktemp("environment") / "venv"
    lock = ["--only-binary", ":all:", "--constraint", str(ROOT / "requirements.lock")]
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, home], check=True, timeout=60)
    install = [UV, "pip", "install", "--quiet", "--python", home / "bin" / "python", *lock]
    subprocess.run([*install, f"clouds-in-qilu[stack] @ {wheel.as_uri()}"], check=True, timeout=300)
    return home / "bin"


def blocks(page: str, language: str) -> list[str]:
    """The code blocks of a page in `language`, in their order."""
    return [block.partition("```")[0] for block in page.split(f"```{language}\n")[1:]]


def test_every_file_of_the_packages_is_in_the_wheel(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    parts = [line.partition("/")[2] for line in tracked.splitlines()]
    packages = {name.partition("/")[0] for name in names if not name.partition("/")[0].endswith(".dist-info")}
    assert len(packages) == 9
    assert {part for part in parts if part.partition("/")[0] in packages} == {
        name for name in names if name.partition("/")[0] in packages
    }


def test_the_stack_runs_from_any_folder(programs: Path, tmp_path: Path, free_port: Callable[[], int]) -> None:
    # As in a login shell: none of the variables by which tests and developers reach the checkout.
    environment = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
    environment["PATH"] = f"{programs}:/usr/sbin:/usr/bin:/sbin:/bin"
    flags = ["--broker", "builtin", "--units", "20", "--port", str(free_port())]
    flags += ["--mqtt-port", str(free_port()), "--metrics-port", "0"]
    with (tmp_path / "out").open("wb") as out:
        stack = subprocess.Popen(
            [programs / "qilu", "up", *flags], cwd=tmp_path, env=environment, stdout=out, stderr=out
        )
    try:
        deadline = time.monotonic() + START_S
        while "is up: " not in (told := (tmp_path / "out").read_text()):
            assert stack.poll() is None, told
            assert time.monotonic() < deadline, told
            time.sleep(0.1)
        console = told.partition("is up: ")[2].split()[0]
        for page in ("/", "/docs", "/v1/programme"):
            assert httpx.get(console + page, trust_env=False, follow_redirects=True).status_code == 200, page
        readme = (ROOT / "README.md").read_text().partition("## Connect your own device")[2]
        (enter, commands), *_ = [block.split("\n", 1) for block in blocks(readme, "sh")]
        assert enter.endswith(". var/env")
        (tmp_path / "client.py").write_text(
            blocks((ROOT / "docs" / "own-devices.md").read_text(), "python")[0]
        )
        api = "".join(blocks((ROOT / "docs" / "api.md").read_text(), "sh"))
        shell = subprocess.run(
            ["bash", "-euxo", "pipefail", "-c", f". var/env\n{commands}\npython client.py\n{api}"],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert shell.returncode == 0, shell.stdout + shell.stderr
        assert "11.2" in shell.stdout
        assert '"columns":["ts_ms","power_in"]' in shell.stdout
        assert '"id":"api-motor"' in shell.stdout
        assert '"detail"' not in shell.stdout, shell.stdout
        stack.send_signal(signal.SIGINT)
        assert stack.wait(60) == 0
    finally:
        stack.kill()
        stack.wait()
    assert ", 0 lost;" in (tmp_path / "out").read_text()
    words = ["verify", "--run", "var/devices", "--store", "duckdb:///var/readings.duckdb"]
    verified = subprocess.run(
        [programs / "qilu", *words],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert verified.returncode == 0, verified.stderr


def test_a_command_whose_packages_are_not_installed_names_them(programs: Path, tmp_path: Path) -> None:
    for words in (["dashboards", "build", "--to", "boards"], ["devices", "catalogue", "--write", "pages"]):
        done = subprocess.run(
            [programs / "qilu", *words], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
        assert "pip install 'clouds-in-qilu[" in done.stderr


def test_uvx_runs_the_wheel_without_installing_it(wheel: Path, tmp_path: Path) -> None:
    words = ["tool", "run", "--quiet", "--python", sys.executable, "--from", str(wheel), "qilu"]
    environment = os.environ | {"UV_CONSTRAINT": str(ROOT / "requirements.lock")}
    for command, code, told in (
        (["--version"], 0, "qilu "),
        (["up"], 2, "pip install 'clouds-in-qilu[stack]'"),
    ):
        done = subprocess.run(
            [UV, *words, *command], cwd=tmp_path, env=environment,
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        assert told in done.stdout + done.stderr
