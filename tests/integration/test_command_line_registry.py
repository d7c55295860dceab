"""`qilu platform import` and `qilu platform keys`, against a platform in a separate process."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from qilu.cli import main
from qilu.output import console
from qilu_platform.client import KeyRefused, PlatformError
from qilu_platform.client import Platform as Client

QILU = Path(sys.executable).parent / "qilu"
ADMIN = "the-admin-key-of-this-test"
OWNER = "370202-e00007"
HUNG_S = 120
ENVIRONMENT = os.environ | {"QILU_API_KEY": ADMIN}


class Platform:
    """One on SQLite that can be killed and brought back."""

    def __init__(self, folder: Path, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._command = [
            *(str(QILU), "platform", "run", "--db", f"sqlite:///{folder}/registry.sqlite"),
            *("--port", str(port)),
        ]
        self._log = folder / "platform.log"
        self.client = httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {ADMIN}"}, timeout=HUNG_S, trust_env=False
        )

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, env=ENVIRONMENT, stdout=log, stderr=log)
        deadline = time.monotonic() + HUNG_S
        while True:
            try:
                if self.client.get("/readyz").status_code == 200:
                    return
            except httpx.TransportError:
                assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(HUNG_S)


@pytest.fixture
def platform(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Platform]:
    started = Platform(tmp_path, free_port())
    started.start()
    body = {"id": OWNER, "name": "Qingdao Iron", "county": "370202", "industry": "C31"}
    assert started.client.post("/v1/enterprises", json=body).status_code == 201
    yield started
    started.kill()
    started.client.close()


def qilu(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [str(QILU), "platform", *map(str, words)]
    return subprocess.run(
        command, env=ENVIRONMENT, capture_output=True, text=True, timeout=HUNG_S, check=False
    )


ByHand = Callable[..., tuple[object, str, str]]


@pytest.fixture
def by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[ByHand]:
    """Commands with nothing but what a stack left in its state folder: exit code, output, errors."""
    for name in ("QILU_API_KEY", "QILU_PLATFORM"):
        monkeypatch.delenv(name, raising=False)

    def run(*words: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["qilu", *words, "--state", str(tmp_path / "state")])
        with pytest.raises(SystemExit) as ended:
            main()
        said, wrong = capsys.readouterr()
        return ended.value.code, said, wrong

    console.cache_clear()  # a new console writes to the captured output
    yield run
    console.cache_clear()


def write_units(path: Path, number: int) -> None:
    lines = ["id,class,enterprise", *(f"370202-motor-{n:07d},motor,{OWNER}" for n in range(number))]
    path.write_text("\n".join(lines) + "\n")


def test_an_import_goes_on_by_itself_when_the_platform_dies_and_comes_back(
    platform: Platform, tmp_path: Path
) -> None:
    file, number = tmp_path / "units.csv", 150_000
    write_units(file, number)
    command = [str(QILU), "platform", "import", str(file), "--platform", platform.url, "--json"]
    with subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        deadline = time.monotonic() + HUNG_S

        def offset() -> int:
            jobs: list[dict[str, Any]] = platform.client.get("/v1/imports").json()["items"]
            return int(jobs[0]["offset"]) if jobs else 0

        while not offset():
            assert time.monotonic() < deadline
        platform.kill()
        assert running.poll() is None
        platform.start()
        assert offset() < file.stat().st_size
        out, errors = running.communicate(timeout=HUNG_S)
    assert running.returncode == 0, errors
    job = json.loads(out)
    assert (job["state"], job["created"], job["existing"], job["bad"]) == ("done", number, 0, 0)
    assert platform.client.get("/v1/programme").json()["registered"]["units"] == number


def test_an_import_tells_what_was_bad_and_takes_gzip(platform: Platform, tmp_path: Path) -> None:
    file, bad = tmp_path / "units.csv.gz", tmp_path / "bad.ndjson"
    lines = ["id,class,enterprise", f"u-1,motor,{OWNER}", f"u-2,toaster,{OWNER}"]
    file.write_bytes(gzip.compress("\n".join(lines).encode()))
    unnamed = tmp_path / "units.csv"
    unnamed.write_bytes(gzip.compress(f"id,class,enterprise\nu-9,motor,{OWNER}\n".encode()))
    assert qilu("import", unnamed, "--platform", platform.url).returncode == 0
    done = qilu("import", file, "--platform", platform.url, "--errors", bad)
    assert done.returncode == 1
    assert "1 registered, 0 there already, 1 bad lines." in done.stdout
    assert str(bad) in "".join(done.stderr.split("\n"))
    (told,) = [json.loads(line) for line in bad.read_text().splitlines()]
    assert (told["line"], told["column"]) == (3, "class")


def test_an_import_that_cannot_be_is_refused_in_a_sentence(platform: Platform, tmp_path: Path) -> None:
    header, sheet = tmp_path / "units.csv", tmp_path / "units.xlsx"
    text, cut = tmp_path / "units.txt", tmp_path / "cut.csv.gz"
    header.write_text("id,colour\n")
    sheet.write_text("")
    text.write_text("")
    cut.write_bytes(gzip.compress(b"id,class,enterprise\n", mtime=0)[:-9])
    for words, code, said in [
        (("import", header, "--platform", platform.url), 1, "'colour' is not known"),
        (("import", sheet, "--platform", platform.url), 2, "save it as CSV UTF-8"),
        (("import", text, "--platform", platform.url), 2, "neither .csv nor .ndjson"),
        (("import", cut, "--platform", platform.url), 2, "is damaged gzip"),
        (("import", header, "--kind", "cars"), 2, "use units or enterprises"),
    ]:
        done = qilu(*words)
        assert done.returncode == code, done.stderr
        assert said in done.stderr
        assert "Traceback" not in done.stderr


def test_of_a_wrong_file_only_the_beginning_is_sent(platform: Platform, tmp_path: Path) -> None:
    file, sent = tmp_path / "units.csv", list[int]()
    file.write_text("id,colour\n" + "u-1,red\n" * 200_000)
    with Client(platform.url, ADMIN) as client:
        job = client.open_import("units")
        with pytest.raises(PlatformError, match="'colour' is not known"):
            client.import_file(file, job.id, sent.append)
    assert max(sent, default=0) < file.stat().st_size / 2


def test_keys_are_made_listed_rotated_and_revoked(platform: Platform) -> None:
    def works(key: str) -> bool:
        headers = {"Authorization": f"Bearer {key}"}
        return platform.client.get("/v1/units", headers=headers).status_code == 200

    at = ("--platform", platform.url)
    made = json.loads(qilu("keys", "create", "reader", "--role", "viewer", "--json", *at).stdout)
    assert works(made["key"])
    new = json.loads(qilu("keys", "rotate", made["id"], "--grace", "1h", "--json", *at).stdout)
    assert works(made["key"])
    assert works(new["key"])
    assert qilu("keys", "revoke", made["id"], *at).returncode == 0
    assert not works(made["key"])
    listed = qilu("keys", "list", *at).stdout
    assert "reader" in listed
    assert new["key"] not in listed
    wrong = qilu("keys", "create", "x", "--role", "king", *at)
    assert wrong.returncode == 1
    assert "role" in wrong.stderr


def test_works_and_a_motor_are_registered_by_hand_with_the_stacks_own_key(
    platform: Platform, by_hand: ByHand, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    (state / "keys").mkdir(parents=True)
    (state / "keys" / "admin.key").write_text(ADMIN + "\n")
    (state / "env").write_text(f"export QILU_PLATFORM={platform.url}\nexport QILU_API_KEY=x\n")
    works = ("enterprise", "add", "我的工厂", "--county", "370202", "--industry", "C34", "--id", "my-works")
    for _ in range(2):  # the second time it is there already
        code, said, wrong = by_hand(*works, "--json")
        assert (code, wrong) == (0, "")
        assert json.loads(said)["name"] == "我的工厂"
    said = by_hand("unit", "add", "--class", "motor", "--enterprise", "my-works", "--id", "my-motor")[1]
    assert said.startswith("Unit my-motor (motor of my-works) is registered; it is 88.")
    listed = by_hand("unit", "list", "--enterprise", "my-works", "--limit", "1", "--json")[1]
    assert [each["id"] for each in json.loads(listed)] == ["my-motor"]
    assert "我的工厂" in by_hand("enterprise", "list", "--name", "我")[1]
    problem = {"unit": "my-motor", "enterprise": "my-works", "county": "370202", "reason": "bad_timestamp"}
    problem |= {"count": 3, "last_ms": 1767225600000, "excerpt": "looks like seconds"}
    platform.client.post("/v1/problems", json={"problems": [problem]})
    for words in (("unit", "problems", "my-motor"), ("enterprise", "problems", "my-works")):
        assert [each["count"] for each in json.loads(by_hand(*words, "--json")[1])] == [3]
    for words, word in (
        (("unit", "add", "--class", "toaster", "--enterprise", "my-works"), "there are"),
        (("unit", "add", "--class", "motor", "--enterprise", "nobody"), "register it first"),
        ((*works[:4], "370299", *works[5:]), "Qingdao has 370202"),
        ((*works[:2], "Another", *works[3:]), "exists with other content"),
        (("unit", "latest", "my-motor"), "without a store"),
    ):
        code, said, wrong = by_hand(*words)
        assert (code, said) == (1, "")
        assert len(wrong.splitlines()) == 1
        assert word in wrong


def test_the_client_reads_the_catalogue_and_renames(platform: Platform) -> None:
    with Client(platform.url) as anybody:
        assert "motor" in {each.name for each in anybody.classes()}
        assert "370202" in {each.code for each in anybody.counties()}
        assert "C31" in {each.code for each in anybody.industries()}
        with pytest.raises(KeyRefused):
            anybody.whoami()
    with Client(platform.url, ADMIN) as client:
        assert client.whoami().role == "admin"
        assert client.rename_enterprise(OWNER, "Renamed").name == "Renamed"
        unit = client.create_unit("motor", OWNER)
        assert client.rename_unit(unit.id, "Pump 3").name == "Pump 3"
        assert client.create_provider("Provider").id == "provider-1"
        (only,) = client.keys()
        assert only.role == "admin"
