"""Prepare InfluxDB: the bucket, and two tokens that can do no more than they must. Run it as often as you
like; what is there stays.

    python -m qilu_gateway.setup_influx --url http://influxdb:8086 --org qilu --database qilu \\
        --token-file /secrets/admin --write-token-file /secrets/write --read-token-file /secrets/read

On 2.x the write token writes and reads the one bucket, the read token reads it. On 1.x, which knows no
tokens, the database is made and the files get random text, so that what waits for them goes on.
"""

from __future__ import annotations

import argparse
import importlib
import os
import secrets
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import structlog
from qilu_contract.errors import ConfigError, QiluError

log = structlog.get_logger()

# Its types are incomplete: names that it does not export, calls without annotations.
influx: Any = importlib.import_module("influxdb_client")

WAIT_S = 120.0
"""How long to wait for a server that is starting."""


def main(arguments: list[str] | None = None) -> int:
    """Exit codes: 0 fine, 1 failed, 2 wrong usage."""
    given = _parser().parse_args(arguments)
    try:
        if _version(given.url, given.wait).startswith("1."):
            _prepare_1x(given.url, given.database)
            for path in (given.write_token_file, given.read_token_file):
                if not _filled(path):
                    _save(path, secrets.token_urlsafe(32))
        else:
            _prepare_2x(given)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except (QiluError, influx.rest.ApiException, httpx.HTTPError) as error:
        sys.stderr.write(f"InfluxDB at {given.url} could not be prepared: {error}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m qilu_gateway.setup_influx", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--url", required=True, help="http://host:8086")
    parser.add_argument("--database", required=True, help="the bucket's (1.x: the database's) name")
    parser.add_argument("--org", default="qilu", help="the organisation on 2.x")
    parser.add_argument("--token-file", type=Path, help="holds 2.x's admin token")
    parser.add_argument("--write-token-file", type=Path, required=True, help="made: for the gateway")
    parser.add_argument("--read-token-file", type=Path, required=True, help="made: for platform and Grafana")
    parser.add_argument("--retention-days", type=int, default=0, help="0 keeps for ever")
    parser.add_argument("--wait", type=float, default=WAIT_S, help="seconds to wait for the server")
    return parser


def _version(url: str, wait_s: float) -> str:
    """The server's version, once it answers."""
    deadline = time.monotonic() + wait_s
    while True:
        try:
            answer = httpx.get(f"{url}/ping", timeout=5, trust_env=False)
        except httpx.HTTPError as error:
            if time.monotonic() > deadline:
                raise QiluError(f"no answer within {wait_s:.0f} s ({error})") from error
        else:
            if answer.is_success:
                return str(answer.headers.get("X-Influxdb-Version", "")).removeprefix("v")
            if time.monotonic() > deadline:
                raise QiluError(f"/ping answered {answer.status_code}")
        time.sleep(0.5)


def _prepare_1x(url: str, database: str) -> None:
    quoted = database.replace("\\", "\\\\").replace('"', '\\"')
    query = {"q": f'CREATE DATABASE "{quoted}"'}
    httpx.post(f"{url}/query", data=query, timeout=30, trust_env=False).raise_for_status()
    log.info("database is there", database=database)


def _prepare_2x(given: argparse.Namespace) -> None:
    if given.token_file is None:
        raise ConfigError("InfluxDB 2.x wants an admin token: give --token-file.")
    try:
        token = given.token_file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"--token-file {given.token_file} cannot be read: {error.strerror}.") from error
    with influx.InfluxDBClient(url=given.url, token=token, org=given.org, timeout=30_000) as client:
        bucket = _find_bucket(client, given.database)
        if bucket is None:
            rules = None
            if given.retention_days:
                rules = influx.BucketRetentionRules(
                    type="expire", every_seconds=given.retention_days * 86_400
                )
            bucket = client.buckets_api().create_bucket(
                bucket_name=given.database, org=given.org, retention_rules=rules
            )
            log.info("bucket made", bucket=given.database)
        wanted = [
            (given.write_token_file, "gateway", ("read", "write")),
            (given.read_token_file, "reader", ("read",)),
        ]
        for path, who, actions in wanted:
            # A token that is there already and is valid stays: others may be using it.
            if not _still_valid(given.url, given.database, path):
                _save(path, _make_token(client, bucket, f"qilu {who} {given.database}", actions))
                log.info("token made", of=who, file=str(path))


def _find_bucket(client: Any, name: str) -> Any:
    try:
        return client.buckets_api().find_bucket_by_name(name)
    except influx.rest.ApiException as error:
        if error.status == 404:
            return None
        raise


def _make_token(client: Any, bucket: Any, description: str, actions: tuple[str, ...]) -> str:
    resource = influx.PermissionResource(type="buckets", id=bucket.id, org_id=bucket.org_id)
    authorization = influx.Authorization(
        org_id=bucket.org_id,
        permissions=[influx.Permission(action=action, resource=resource) for action in actions],
        description=description,
    )
    return str(client.authorizations_api().create_authorization(authorization=authorization).token)


def _still_valid(url: str, database: str, path: Path) -> bool:
    """Whether the file holds a token that sees the bucket."""
    if not _filled(path):
        return False
    answer = httpx.get(
        f"{url}/api/v2/buckets",
        params={"name": database},
        headers={"Authorization": f"Token {path.read_text(encoding='utf-8').strip()}"},
        timeout=30,
        trust_env=False,
    )
    return answer.is_success and bool(answer.json().get("buckets"))


def _filled(path: Path) -> bool:
    return path.is_file() and bool(path.read_text(encoding="utf-8").strip())


def _save(path: Path, token: str) -> None:
    """Whole or not at all, and for its owner's eyes only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.new")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        out.write(f"{token}\n")
    temporary.replace(path)


if __name__ == "__main__":
    sys.exit(main())
