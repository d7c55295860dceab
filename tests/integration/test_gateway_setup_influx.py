"""Preparing InfluxDB: a real 1.x, and a fake 2.x that keeps buckets and tokens in lists."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from json_server import Answer, Asked, JsonServer
from qilu_gateway.setup_influx import main

NOT_FOUND = "not found"


class FakeInflux2:
    """The few paths of the API of 2.x that are asked here, answered as 2.7.12 does."""

    def __init__(self) -> None:
        self.orgs = [{"id": "0000000000000001", "name": "qilu"}, {"id": "0000000000000002", "name": "other"}]
        self.buckets: list[dict[str, Any]] = []
        self.tokens: list[dict[str, Any]] = []
        self.server = JsonServer(self._answer, {"X-Influxdb-Version": "v2.7.12"})
        self.url = self.server.url

    def _answer(self, asked: Asked) -> Answer:
        target = urlsplit(asked.path)
        if asked.method == "PATCH":
            [bucket] = [each for each in self.buckets if asked.path.endswith(each["id"])]
            bucket.update(asked.body)
            return 200, bucket
        if target.path == "/ping":
            return 204, None
        value = asked.headers["Authorization"].removeprefix("Token ")
        known = [{"token": "admin"}, *self.tokens]
        token = next((token for token in known if token["token"] == value), None)
        if not token:
            return refusal(401, "unauthorized", "unauthorized access")
        given = {name: values[0] for name, values in parse_qs(target.query).items()}
        if target.path == "/write":
            return self._write(token, given["db"])
        if asked.method == "POST":
            kept = self.buckets if target.path == "/api/v2/buckets" else self.tokens
            made = asked.body | {"id": f"{len(kept) + 1:016x}", "token": f"token-{len(kept) + 1}"}
            kept.append(made)
            return 201, made
        if target.path == "/api/v2/orgs":
            found = [org for org in self.orgs if given.get("org", org["name"]) == org["name"]]
            if not found:
                return refusal(404, NOT_FOUND, f'organization name "{given["org"]}" not found')
            return 200, {"orgs": found}
        found = [
            bucket
            for bucket in self.buckets
            if bucket["name"] == given["name"]
            and given.get("orgID", bucket["orgID"]) == bucket["orgID"]
            and may(token, "read", bucket)
        ]
        if not found:
            return refusal(404, NOT_FOUND, f'bucket "{given["name"]}" not found')
        return 200, {"buckets": found}

    def _write(self, token: dict[str, Any], database: str) -> Answer:
        found = [each for each in self.buckets if each["name"] == database and may(token, "read", each)]
        if not found:
            return refusal(404, NOT_FOUND, "no dbrp mapping found")
        if not may(token, "write", found[0]):
            return refusal(403, "forbidden", "insufficient permissions for write")
        return refusal(400, "invalid", "writing requires points")


def refusal(status: int, code: str, message: str) -> Answer:
    return status, {"code": code, "message": message}


def may(token: dict[str, Any], action: str, bucket: dict[str, Any]) -> bool:
    return token["token"] == "admin" or any(
        permission["action"] == action and permission["resource"]["id"] == bucket["id"]
        for permission in token["permissions"]
    )


@pytest.fixture
def influx2() -> Iterator[FakeInflux2]:
    fake = FakeInflux2()
    yield fake
    fake.server.close()


def arguments(url: str, database: str, folder: Path, *more: str) -> list[str]:
    files = ["--write-token-file", str(folder / "write"), "--read-token-file", str(folder / "read")]
    return ["--url", url, "--database", database, *files, "--wait", "10", *more]


def test_a_bucket_and_two_tokens_are_made_once(influx2: FakeInflux2, tmp_path: Path) -> None:
    admin = tmp_path / "admin"
    admin.write_text("admin\n")
    given = arguments(influx2.url, "qilu", tmp_path, "--token-file", str(admin), "--retention-days", "7")
    assert main(given) == 0
    [bucket] = influx2.buckets
    assert bucket["name"] == "qilu"
    assert keeps_days(bucket) == 7
    gateway, reader = influx2.tokens
    may = [[permission["action"] for permission in token["permissions"]] for token in (gateway, reader)]
    assert may == [["read", "write"], ["read"]]
    resources = [permission["resource"] for token in influx2.tokens for permission in token["permissions"]]
    assert all((found["type"], found["id"]) == ("buckets", bucket["id"]) for found in resources)
    assert (tmp_path / "write").read_text() == "token-1\n"
    assert (tmp_path / "read").read_text() == "token-2\n"
    assert (tmp_path / "write").stat().st_mode & 0o077 == 0

    assert main(given) == 0
    assert len(influx2.buckets) == 1
    assert len(influx2.tokens) == 2
    (tmp_path / "read").write_text("forgotten by the server")
    assert main(given) == 0
    assert (tmp_path / "read").read_text() == "token-3\n"


def keeps_days(bucket: dict[str, Any]) -> float:
    return float(sum(rule["everySeconds"] for rule in bucket["retentionRules"]) / 86_400)


def with_admin(influx2: FakeInflux2, folder: Path, *more: str) -> list[str]:
    (folder / "admin").write_text("admin\n")
    return arguments(influx2.url, "qilu", folder, "--token-file", str(folder / "admin"), *more)


def test_an_organisation_that_is_not_there_is_named_with_those_that_are(
    influx2: FakeInflux2, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(with_admin(influx2, tmp_path, "--org", "nope")) == 2
    told = capsys.readouterr().err
    assert "no organisation 'nope'" in told
    assert "(other, qilu)" in told
    assert told.count("\n") == 1


def test_a_bucket_of_that_name_in_another_organisation_is_not_ours(
    influx2: FakeInflux2, tmp_path: Path
) -> None:
    assert main(with_admin(influx2, tmp_path)) == 0
    # Tokens for the other one are no longer the right ones either.
    assert main(with_admin(influx2, tmp_path, "--org", "other")) == 0
    assert [bucket["orgID"] for bucket in influx2.buckets] == ["0000000000000001", "0000000000000002"]
    assert (tmp_path / "write").read_text() == "token-3\n"
    resources = [token["permissions"][0]["resource"] for token in influx2.tokens]
    assert [each["orgID"][-1] for each in resources] == ["1", "1", "2", "2"]


def test_the_retention_of_a_bucket_that_is_there_is_changed_when_it_is_given(
    influx2: FakeInflux2, tmp_path: Path
) -> None:
    assert main(with_admin(influx2, tmp_path)) == 0
    for days, wanted in [("30", 30), (None, 30), ("1", 1), ("0", 0)]:
        more = [] if days is None else ["--retention-days", days]
        assert main(with_admin(influx2, tmp_path, *more)) == 0
        [bucket] = influx2.buckets
        assert keeps_days(bucket) == wanted
        if wanted:  # else the server refuses it
            assert bucket["retentionRules"][0]["shardGroupDurationSeconds"] <= wanted * 86_400


def test_a_token_that_may_only_read_is_not_kept_for_writing(influx2: FakeInflux2, tmp_path: Path) -> None:
    assert main(with_admin(influx2, tmp_path)) == 0
    (tmp_path / "write").write_text((tmp_path / "read").read_text())
    assert main(with_admin(influx2, tmp_path)) == 0
    assert (tmp_path / "write").read_text() == "token-3\n"
    assert [each["action"] for each in influx2.tokens[2]["permissions"]] == ["read", "write"]


def test_an_admin_token_that_is_none_is_told_in_one_sentence(
    influx2: FakeInflux2, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = with_admin(influx2, tmp_path)
    (tmp_path / "admin").write_text("wrong")
    assert main(given) == 1
    told = capsys.readouterr().err
    assert "answered 401: unauthorized access" in told
    assert str(tmp_path / "admin") in told
    assert told.count("\n") == 1


def test_without_an_admin_token_the_user_is_told(
    influx2: FakeInflux2, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(influx2.url, "qilu", tmp_path)) == 2
    assert "--token-file" in capsys.readouterr().err


def test_a_database_is_made_on_1x(influxdb: Any, tmp_path: Path) -> None:
    given = arguments(influxdb.http, influxdb.database, tmp_path)
    assert main(given) == 0
    answer = httpx.get(f"{influxdb.http}/query", params={"q": "SHOW DATABASES"}, trust_env=False).json()
    [series] = answer["results"][0]["series"]
    assert [influxdb.database] in series["values"]
    token = (tmp_path / "write").read_text()
    assert token.strip()
    assert main(given) == 0
    assert (tmp_path / "write").read_text() == token
    # In the place of a 2.x, whose admin token is given: it has no users, and none is made.
    (tmp_path / "admin").write_text("admin-token-of-2\n")
    (tmp_path / "write").unlink()
    assert main([*given, "--token-file", str(tmp_path / "admin")]) == 0
    assert ":" not in (tmp_path / "write").read_text()


def test_a_server_that_stays_away_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = arguments("http://127.0.0.1:9", "qilu", tmp_path)
    given[given.index("--wait") + 1] = "0"
    assert main(given) == 1
    assert "no answer" in capsys.readouterr().err
