"""Copies Mosquitto's rules for edge nodes from the platform to a folder, for a broker that shares no disk
with the platform."""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog
from qilu_common.backoff import Backoff
from qilu_common.platform_http import KeyRefused, PlatformError, PlatformHttp
from qilu_common.private_files import private_folder, write_private
from qilu_common.secrets import secret

from qilu.process import stop_signal, until_stopped

log = structlog.get_logger()

ASK_AGAIN_S = 1.0
RETRY_MOST_S = 10.0


async def keep(platform: str, folder: Path) -> None:
    """Fetch what has changed every second, until the process is stopped. If the platform is unavailable or
    the disk is full, the files stay as they are. Raises ConfigError for an unusable URL or key."""
    http = PlatformHttp(platform, secret("QILU_API_KEY"), "ingest")
    try:
        await until_stopped(_follow(http, folder), stop_signal())
    finally:
        await http.close()


async def _follow(http: PlatformHttp, folder: Path) -> None:
    version, backoff = "", Backoff(most_s=RETRY_MOST_S)
    while True:
        try:
            version = await _fetch(http, folder, version)
        except KeyRefused:
            raise
        except (PlatformError, OSError) as error:
            delay_s = backoff.delay_s()
            log.warning("broker rules are as they were", reason=str(error), again_in_s=round(delay_s, 1))
            await asyncio.sleep(delay_s)
        else:
            backoff.reset()
            await asyncio.sleep(ASK_AGAIN_S)


async def _fetch(http: PlatformHttp, folder: Path, known: str) -> str:
    """The version that the files are of now. Raises PlatformError, OSError."""
    answer = await http.send("GET", "/v1/broker/rules", params={"known": known})
    if answer.status_code == 204:
        return known
    try:
        found = answer.json()
        files = {name: str(found["files"][name]) for name in ("crl.pem", "devices.passwords", "nodes.acl")}
        version = str(found["version"])
    except (ValueError, KeyError, TypeError) as error:
        raise PlatformError(f"{http.url} answered something else: is it our platform?") from error
    private_folder(folder)
    for name, content in files.items():
        write_private(folder / name, content)
    log.info("broker rules written", version=version)
    return version
