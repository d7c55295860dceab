"""Prepare InfluxDB: create the bucket and two tokens with least privileges. Idempotent: existing items stay.

    python -m qilu_gateway.setup_influx --url http://influxdb:8086 --org qilu --database qilu \\
        --token-file /secrets/admin --write-token-file /secrets/write --read-token-file /secrets/read

On 2.x the write token writes and reads the one bucket, the read token reads it. On 1.x the database is made.
If 1.x has authentication enabled, --token-file holds an administrator's user:password, and the files get
those of two users with the same rights; otherwise they get random text, so that services that wait for the
files start.
"""

from __future__ import annotations

import argparse
import importlib
import json
import secrets
import sys
import time
from pathlib import Path
from typing import Any

import httpx2
import structlog
from qilu_common.private_files import write_private
from qilu_contract.errors import ConfigError, QiluError

log = structlog.get_logger()

# Its types are incomplete: names that it does not export, calls without annotations.
influx: Any = importlib.import_module("influxdb_client")

DAY_S = 86_400
WAIT_S = 120.0
"""Time to wait for a server that is starting."""


def main(arguments: list[str] | None = None) -> int:
    """Exit codes: 0 fine, 1 failed, 2 wrong usage."""
    options = _parser().parse_args(arguments)
    try:
        token = None if options.token_file is None else _read(options.token_file)
        if _version(options.url, options.wait).startswith("1."):
            # A token of 2.x is no log-in: this server was put in its place.
            _prepare_1x(options, token if token and ":" in token else None)
        elif token is None:
            raise ConfigError("InfluxDB 2.x wants an admin token: give --token-file.")
        else:
            _prepare_2x(options, token)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except (QiluError, influx.rest.ApiException, httpx2.HTTPError) as error:
        sys.stderr.write(f"InfluxDB at {options.url} could not be prepared: {_sentence(error, options)}\n")
        return 1
    return 0


def _sentence(error: Exception, options: argparse.Namespace) -> str:
    status = getattr(error, "status", None)
    if status is None:
        return str(error)
    try:
        message = json.loads(getattr(error, "body", None) or "{}").get("message", "")
    except (ValueError, AttributeError):
        message = ""
    hint = f" (is the token in {options.token_file} an administrator's?)" if status in (401, 403) else ""
    return f"it answered {status}{f': {message}' if message else ''}{hint}."


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m qilu_gateway.setup_influx", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--url", required=True, help="http://host:8086")
    parser.add_argument("--database", required=True, help="the bucket's (1.x: the database's) name")
    parser.add_argument("--org", default="qilu", help="the organisation on 2.x")
    parser.add_argument(
        "--token-file", type=Path, help="holds 2.x's admin token, or an administrator's user:password on 1.x"
    )
    parser.add_argument("--write-token-file", type=Path, required=True, help="made: for the gateway")
    parser.add_argument("--read-token-file", type=Path, required=True, help="made: for platform and Grafana")
    parser.add_argument(
        "--retention-days", type=int, help="0 keeps data forever; default: an existing bucket is not changed"
    )
    parser.add_argument("--wait", type=float, default=WAIT_S, help="seconds to wait for the server")
    return parser


def _version(url: str, wait_s: float) -> str:
    """The server's version, once it answers."""
    deadline = time.monotonic() + wait_s
    while True:
        try:
            answer = httpx2.get(f"{url}/ping", timeout=5, trust_env=False)
        except httpx2.HTTPError as error:
            if time.monotonic() > deadline:
                raise QiluError(f"no answer within {wait_s:.0f} s ({error})") from error
        else:
            if answer.is_success:
                return str(answer.headers.get("X-Influxdb-Version", "")).removeprefix("v")
            if time.monotonic() > deadline:
                raise QiluError(f"/ping answered {answer.status_code}")
        time.sleep(0.5)


def _prepare_1x(options: argparse.Namespace, admin: str | None) -> None:
    name, files = (
        options.database,
        [("gateway", options.write_token_file), ("reader", options.read_token_file)],
    )
    _execute_1x(options, admin, f"CREATE DATABASE {_quoted(name)}")
    log.info("database is there", database=name)
    for who, path in files:
        if _filled(path):
            continue
        password = secrets.token_urlsafe(32)
        if admin is None:
            _save(path, password)
            continue
        user, right = f"{name}-{who}", "ALL" if who == "gateway" else "READ"
        # The password of an existing user is lost with its file.
        _execute_1x(options, admin, f"DROP USER {_quoted(user)}", may_fail=True)
        _execute_1x(options, admin, f"CREATE USER {_quoted(user)} WITH PASSWORD '{password}'")
        _execute_1x(options, admin, f"GRANT {right} ON {_quoted(name)} TO {_quoted(user)}")
        _save(path, f"{user}:{password}")
        log.info("user made", user=user, file=str(path))


def _execute_1x(
    options: argparse.Namespace, admin: str | None, statement: str, *, may_fail: bool = False
) -> None:
    """Execute a statement. Raises QiluError when the server rejects it."""
    user, _, password = (admin or "").partition(":")
    auth = (user, password) if admin else None
    answer = httpx2.post(
        f"{options.url}/query", data={"q": statement}, auth=auth, timeout=30, trust_env=False
    )
    try:
        body = answer.json()
    except ValueError:
        body = {}
    error = body.get("error") or next(
        (each["error"] for each in body.get("results", []) if "error" in each), ""
    )
    if answer.status_code in (401, 403):
        who = "it has users" if admin is None else f"the user in {options.token_file} is no administrator"
        raise QiluError(f"{who}: put an administrator's user:password into --token-file ({error}).")
    if not may_fail and (error or not answer.is_success):
        raise QiluError(f"it answered {answer.status_code}: {error}")


def _quoted(name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _prepare_2x(options: argparse.Namespace, token: str) -> None:
    with influx.InfluxDBClient(url=options.url, token=token, org=options.org, timeout=30_000) as client:
        org = _find_org(client, options)
        bucket = _find_bucket(client, options.database, org.id)
        if bucket is None:
            rules = _retention(options.retention_days) if options.retention_days else None
            bucket = client.buckets_api().create_bucket(
                bucket_name=options.database, org=org, retention_rules=rules
            )
            log.info("bucket made", bucket=options.database)
        elif options.retention_days is not None and _keeps_s(bucket) != options.retention_days * DAY_S:
            bucket.retention_rules = [_retention(options.retention_days)]
            client.buckets_api().update_bucket(bucket=bucket)
            log.info("retention changed", bucket=options.database, days=options.retention_days)
        wanted = [
            (options.write_token_file, "gateway", ("read", "write")),
            (options.read_token_file, "reader", ("read",)),
        ]
        for path, who, actions in wanted:
            # An existing valid token stays, because other services may use it.
            if not _still_valid(options, bucket, path, actions):
                _save(path, _make_token(client, bucket, f"qilu {who} {options.database}", actions))
                log.info("token made", of=who, file=str(path))


def _find_org(client: Any, options: argparse.Namespace) -> Any:
    """Raises ConfigError, which lists the existing organisations."""
    orgs = client.organizations_api().find_organizations()
    for org in orgs:
        if org.name == options.org:
            return org
    there = ", ".join(sorted(org.name for org in orgs)) or "none"
    raise ConfigError(
        f"InfluxDB at {options.url} has no organisation {options.org!r}: set --org to one that "
        f"the token in {options.token_file} sees ({there})."
    )


def _find_bucket(client: Any, name: str, org_id: str) -> Any:
    try:
        found = client.buckets_api().find_buckets(name=name, org_id=org_id).buckets
    except influx.rest.ApiException as error:
        if error.status == 404:
            return None
        raise
    return found[0] if found else None


def _keeps_s(bucket: Any) -> int:
    """Retention of the bucket in seconds; 0: forever."""
    return int(bucket.retention_rules[0].every_seconds) if bucket.retention_rules else 0


def _retention(days: int) -> Any:
    # InfluxDB's default shards for this retention; the existing shards of a bucket may be longer than its new
    # retention.
    shard_s = 3600 if 0 < days < 2 else DAY_S if 0 < days < 180 else 7 * DAY_S
    return influx.BucketRetentionRules(
        type="expire", every_seconds=days * DAY_S, shard_group_duration_seconds=shard_s
    )


def _make_token(client: Any, bucket: Any, description: str, actions: tuple[str, ...]) -> str:
    resource = influx.PermissionResource(type="buckets", id=bucket.id, org_id=bucket.org_id)
    authorization = influx.Authorization(
        org_id=bucket.org_id,
        permissions=[influx.Permission(action=action, resource=resource) for action in actions],
        description=description,
    )
    return str(client.authorizations_api().create_authorization(authorization=authorization).token)


def _still_valid(options: argparse.Namespace, bucket: Any, path: Path, actions: tuple[str, ...]) -> bool:
    """Whether the file holds a token with access to the bucket, including write access if required."""
    if not _filled(path):
        return False
    headers = {"Authorization": f"Token {_read(path)}"}
    with httpx2.Client(base_url=options.url, headers=headers, timeout=30, trust_env=False) as http:
        answer = http.get("/api/v2/buckets", params={"name": options.database})
        if not answer.is_success or bucket.id not in [each["id"] for each in answer.json()["buckets"]]:
            return False
        if "write" not in actions:
            return True
        # An empty body is rejected as malformed (400), after the permission check.
        return http.post("/write", params={"db": options.database}).status_code not in (401, 403, 404)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error


def _filled(path: Path) -> bool:
    return path.is_file() and bool(path.read_text(encoding="utf-8").strip())


def _save(path: Path, token: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_private(path, f"{token}\n")


if __name__ == "__main__":
    sys.exit(main())
