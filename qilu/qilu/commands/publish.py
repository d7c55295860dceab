"""`qilu publish`: one reading by hand."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from qilu_common.addresses import LOCAL_BROKER, LOCAL_PLATFORM
from qilu_contract.errors import ConfigError

from qilu.commands.options import Broker, Platform
from qilu.output import console


def publish(
    unit: Annotated[str, typer.Argument(help="Id of a registered unit")],
    values: Annotated[list[str], typer.Argument(help="Signals and values: power_in=11.2 speed=1470")],
    broker: Broker = LOCAL_BROKER,
    platform: Platform = LOCAL_PLATFORM,
    ts: Annotated[int | None, typer.Option(help="Time in ms since 1970, UTC; default: now")] = None,
) -> None:
    """Publish one JSON reading of a registered unit.

    The key comes from QILU_API_KEY, the login to the broker from QILU_MQTT_USER and QILU_MQTT_PASSWORD:
    `. var/env` sets them for the stack of `qilu up`.

    Example: qilu publish my-motor power_in=11.2 speed=1470
    """
    from qilu_common.secrets import secret

    from qilu import publish as publishing

    reading = publishing.parse_values(values)
    key = secret("QILU_API_KEY")
    if key is None:
        raise ConfigError("QILU_API_KEY is not set: `. var/env` sets it for the stack of `make up`.")
    topic = publishing.telemetry_topic(platform, key, unit)
    body = asyncio.run(publishing.publish(broker, topic, reading, ts))
    console().print(f"{topic} {body.decode()}", soft_wrap=True, highlight=False, markup=False)
