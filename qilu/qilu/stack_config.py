"""Settings of a stack, and its state directory."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from qilu_common.addresses import BROKER_PORT, GATEWAY_PORT, LOCAL_BROKER_TLS, PLATFORM_PORT
from qilu_common.broker import BrokerAddress
from qilu_common.private_files import sole_user
from qilu_common.secrets import secret
from qilu_contract.errors import ConfigError
from qilu_platform.database.engine import check_reachable
from qilu_stores import open_store

from qilu import flags
from qilu.brokers import choose_broker


@dataclass(frozen=True, slots=True)
class Child:
    """The command that fills a stack: `qilu` with `words`. It gets the addresses of broker and platform, a
    directory (`name`, in the stack's) as --state, the broker log-in of a fleet, and an API key of `role`. Its
    output goes to a log file unless it is `shown`; with `afresh` the run.json of an earlier one is deleted
    first."""

    name: str
    words: list[str]
    role: str = "fleet"
    shown: bool = False
    afresh: bool = True
    speed: float | None = None
    """Requested simulated seconds per second; None for full speed."""


@dataclass(frozen=True, slots=True)
class StackConfig:
    """Settings of a stack; None and empty mean the default."""

    state: Path
    broker: str = "auto"
    store: str | None = None
    db: str | None = None
    port: int = PLATFORM_PORT
    mqtt_port: int = BROKER_PORT
    metrics_port: int = GATEWAY_PORT
    mqtts: str = LOCAL_BROKER_TLS
    child: Child = field(default_factory=lambda: Child("devices", ["devices", "run"]))
    scenarios: tuple[str, ...] = ()
    """Scenarios of the programme that may be played again in it; the present one first."""
    bulk: bool = False
    """Thousands of units join per second: the platform has a separate process, and batches are large."""

    def check(self) -> None:
        """Raises ConfigError for what cannot work, before anything starts."""
        if "://" in self.broker:
            BrokerAddress.from_url(self.broker)
        else:
            choose_broker(self.broker)
        mqtts_address(self.mqtts)
        if self.store is not None:
            open_store(self.store)
        if self.db is not None:
            check_reachable(self.db, secret("QILU_DB_PASSWORD"))


def mqtts_address(address: str) -> tuple[str, int]:
    """Host and port of `--mqtts`. Raises ConfigError."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(f"--mqtts {address}: give address and port, such as {LOCAL_BROKER_TLS}.")
    return host, int(port)


def make_state(state: Path, child: str) -> None:
    """Make a stack's directories, accessible to the owner only. Raises ConfigError."""
    for folder in (state, state / "log", state / child, state / "gateway"):
        flags.state_folder(folder)


def set_aside(state: Path) -> Path | None:
    """Rename a stack's directory to `var-20261127-164210`, so that the next stack starts empty. Returns
    the new name, or None where there is nothing. Raises ConfigError while a stack runs in it."""
    if not state.is_dir() or not any(state.iterdir()):
        return None
    aside = state.with_name(f"{state.resolve().name}-{datetime.now():%Y%m%d-%H%M%S}")
    try:
        with sole_stack(state):
            return state.rename(aside)
    except OSError as error:
        raise ConfigError(f"{state} cannot be renamed to {aside}: {error.strerror}.") from error


def sole_stack(state: Path) -> AbstractContextManager[None]:
    """Lock a stack's directory, because two brokers would write the same file."""
    return sole_user(
        state / "lock", f"A stack runs in {state} already: stop it, or choose another directory with --state."
    )
