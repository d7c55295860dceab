"""Settings of the platform."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict
from qilu_common.addresses import LOCAL_BROKER_TLS, PLATFORM_PORT
from qilu_common.secrets import secret


def _from_secret(name: str) -> SecretStr | None:
    value = secret(name)
    return None if value is None else SecretStr(value)


class Settings(BaseSettings):
    """Flags first, then `QILU_PLATFORM_…` variables (`QILU_PLATFORM_DB_URL`). Secrets come as NAME or
    NAME_FILE."""

    model_config = SettingsConfigDict(env_prefix="QILU_PLATFORM_", frozen=True)

    db_url: str = "sqlite:///var/platform.db"
    """`sqlite:///path` or `postgresql://user@host/database` (password from QILU_DB_PASSWORD)."""
    store_url: str | None = None
    """Where readings are; without one the endpoints that need readings answer 503."""
    cells: Path | None = None
    """List of cells, whose stores and brokers are used instead of `store_url` and `broker`."""
    broker: str | None = None
    """`mqtt://host:1883`, log-in from the URL or QILU_MQTT_USER and QILU_MQTT_PASSWORD; without one commands
    are answered 503."""
    host: str = "127.0.0.1"
    port: int = Field(default=PLATFORM_PORT, ge=0, le=65535)
    """0 takes any free port; the service tells which."""
    rate_per_s: float = Field(default=500.0, ge=0)
    """Requests a second that one key may make of this replica; 0 for no limit. Far above what a gateway or a
    simulator needs: it stops a program that runs wild."""

    ca: Path | None = None
    """The certificate authority's folder, made on first use; all replicas share one. Without it `ca` beside a
    SQLite file, else `var/ca`."""
    broker_rules: Path | None = None
    """Where the rules for Mosquitto are written, if anywhere."""
    broker_for_nodes: str | None = LOCAL_BROKER_TLS
    """The broker's TLS listener as edge nodes reach it; used in the example that comes with a certificate.
    None when it has no such listener: then no certificates are issued."""

    broker_for_devices: str | None = None
    """The broker's TLS listener for devices that have a password, as they reach it. None: devices get
    none."""

    rabbitmq: tuple[str, ...] = ()
    """URLs of RabbitMQ's management API, a JSON list in QILU_PLATFORM_RABBITMQ: this platform decides which
    certificates and devices may log in there, and closes connections. Needs `rabbitmq_password`."""

    assumptions: Path | None = None
    """The programme model's figures, a CSV file that the console shows."""

    data_licence: str | None = None
    """URL of the licence of the data sets in the catalogue. None: no licence is granted."""

    webhooks: tuple[str, ...] = ()
    """URLs that are notified of alarms: a JSON list in QILU_PLATFORM_WEBHOOKS. Needs `webhook_secret`."""

    model: tuple[str, ...] = ()
    """Command that computes a policy's outcome: JSON on stdin, JSON on stdout. Empty: there is no model."""
    replay_scenarios: tuple[str, ...] = ()
    """Scenarios of the programme with which the stack around this platform can begin again; the present one
    first. Empty: it cannot."""
    gateway_state: Path | None = None
    """State directory of a gateway on this machine, whose dead letters the API then lists and replays."""
    gateways: tuple[str, ...] = Field(default=(), max_length=100)
    """Addresses of gateways, for the same: a JSON list in QILU_PLATFORM_GATEWAYS. Needs `gateway_key`."""

    db_password: SecretStr | None = Field(default_factory=lambda: _from_secret("QILU_DB_PASSWORD"))
    store_token: SecretStr | None = Field(default_factory=lambda: _from_secret("QILU_INFLUX_TOKEN"))
    webhook_secret: SecretStr | None = Field(default_factory=lambda: _from_secret("QILU_WEBHOOK_SECRET"))
    gateway_key: SecretStr | None = Field(default_factory=lambda: _from_secret("QILU_GATEWAY_KEY"))
    rabbitmq_password: SecretStr | None = Field(
        default_factory=lambda: _from_secret("QILU_RABBITMQ_PASSWORD")
    )
    # Keys that others hold already when the platform starts: it makes sure that it knows them.
    api_key: SecretStr | None = Field(default_factory=lambda: _from_secret("QILU_API_KEY"))
    ingest_key: SecretStr | None = Field(default_factory=lambda: _from_secret("QILU_INGEST_KEY"))
    fleet_key: SecretStr | None = Field(default_factory=lambda: _from_secret("QILU_FLEET_KEY"))
    viewer_key: SecretStr | None = Field(default_factory=lambda: _from_secret("QILU_VIEWER_KEY"))

    @property
    def ca_folder(self) -> Path:
        if self.ca is not None:
            return self.ca
        beside = self.db_url.startswith("sqlite:///")
        return Path(self.db_url.removeprefix("sqlite:///")).parent / "ca" if beside else Path("var/ca")
