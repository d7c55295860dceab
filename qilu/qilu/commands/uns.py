"""`qilu uns`: the readings of equipment as a unified namespace."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from qilu_common.addresses import LOCAL_BROKER, LOCAL_PLATFORM
from qilu_contract.errors import ConfigError

from qilu.commands.options import Broker, Classes, Platform, use_classes
from qilu.logfile import log_to_stderr
from qilu.process import become_service, stop_signal

app = typer.Typer(no_args_is_help=True, help="Unified namespace: republish readings by ISA-95.")


@app.callback()
def _group() -> None:
    pass


@app.command()
def run(
    broker: Broker = LOCAL_BROKER,
    to: Annotated[str | None, typer.Option(help="Broker URL to publish to; default: --broker")] = None,
    platform: Platform = LOCAL_PLATFORM,
    classes: Classes = None,
) -> None:
    """Republish the readings of registered units by ISA-95.

    Topics are uns/v1/<enterprise>/<county>/<industry>/<class>/<unit>.

    The key comes from QILU_API_KEY. The broker's user needs to read spBv1.0/# and qilu/v1/#, and to write
    uns/v1/# and spBv1.0/+/NCMD/+.

    Example: qilu uns run --broker mqtt://127.0.0.1:1883
    """
    use_classes(classes)
    from qilu_common.broker import BrokerAddress
    from qilu_common.secrets import secret
    from qilu_platform.client import Platform as Client

    from qilu import uns

    key = secret("QILU_API_KEY")
    if key is None:
        raise ConfigError("QILU_API_KEY is not set: `. var/env` sets it for the stack of `make up`.")
    source = BrokerAddress.from_url(broker)
    target = source if to is None else BrokerAddress.from_url(to)
    become_service()
    log_to_stderr()

    async def until_signal() -> None:
        with Client(platform, key) as client:
            await uns.run(source, target, client, stop_signal())

    asyncio.run(until_signal())
