"""`qilu gateway`: the gateway and its dead letters."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from qilu_common.addresses import GATEWAY_PORT, LOCAL_BROKER, LOCAL_INFLUX, LOCAL_PLATFORM
from qilu_contract.errors import ConfigError

from qilu.commands import dead_letters, options
from qilu.logfile import log_to_stderr
from qilu.process import become_service, on_stop_signals

if TYPE_CHECKING:
    from qilu_gateway.settings import Settings

app = typer.Typer(no_args_is_help=True, help="The gateway: from MQTT to the store.")
app.add_typer(dead_letters.app, name="dead-letters")


@app.command()
def run(
    broker: options.Broker = LOCAL_BROKER,
    store: options.StoreUrl = LOCAL_INFLUX,
    platform: options.Platform = LOCAL_PLATFORM,
    state: options.State = Path("var/gateway"),
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port of /metrics and /healthz")
    ] = GATEWAY_PORT,
    host: Annotated[str, typer.Option(help="Address of /metrics and /healthz")] = "127.0.0.1",
    classes: options.Classes = None,
    shard: Annotated[
        str, typer.Option(help="Part of the counties that this gateway has, i/n: 1/4 is the first of four")
    ] = "1/1",
    shards: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=100,
            help="Share this number of shards with all gateways that are given the same number; instead of "
            "--shard. Start or stop gateways at any time",
        ),
    ] = None,
    cells: options.CellsFile = None,
    cell: Annotated[str | None, typer.Option(help="With --cells: the cell whose shards to share")] = None,
    profile: options.Profile = "reliable",
    also: Annotated[
        str,
        typer.Option(
            envvar="QILU_ALSO",
            help="Kafka topic to which stored readings are published as well, at least once: "
            "kafka://a,b,c/topic (extra kafka)",
        ),
    ] = "",
) -> None:
    """Receive readings from the broker and store them.

    Secrets come from QILU_API_KEY, QILU_INFLUX_TOKEN, QILU_MQTT_USER, QILU_MQTT_PASSWORD and
    QILU_KAFKA_CONFIG.

    Example: qilu gateway run --broker mqtt://127.0.0.1 --store influxdb://127.0.0.1/qilu
    """
    options.use_classes(classes)
    from qilu_gateway.settings import Settings

    become_service()
    log_to_stderr()
    settings = Settings.load(
        broker=broker,
        store=store,
        platform=platform,
        state=state,
        http_port=port,
        http_host=host,
        shard=shard,
        profile=profile,
        also=also,
    )
    if shards is not None and shard != "1/1":
        raise ConfigError("--shard and --shards exclude each other: give one of them.")
    wanted, of = (range(1, shards + 1), shards) if shards is not None else ([], 1)
    if cells is not None:
        from qilu_common.cells import load_cells

        if cell is None or of != 1 or shard != "1/1":
            raise ConfigError("--cells needs --cell, the name of one of them, and no --shard or --shards.")
        listed = load_cells(cells)
        mine = listed.named(cell)
        settings = settings.model_copy(update={"broker": mine.broker, "store": mine.store})
        wanted, of = listed.shards_of(mine), listed.all_shards
    elif cell is not None:
        raise ConfigError("--cell needs --cells, the list of cells.")
    asyncio.run(_serve(settings, wanted, of))


@app.command("broker-rules")
def broker_rules(
    to: Annotated[Path, typer.Option(help="Folder for the files; made if it is missing")],
    platform: options.Platform = LOCAL_PLATFORM,
) -> None:
    """Keep a broker's rules for edge nodes up to date: who may publish what, and which certificates are
    revoked (key of role ingest in QILU_API_KEY). For a Mosquitto that shares no disk with the platform.

    Example: qilu gateway broker-rules --platform http://platform:8000 --to /mosquitto/rules
    """
    from qilu.broker_rules import keep

    become_service()
    log_to_stderr()
    asyncio.run(keep(platform, to))


async def _serve(settings: Settings, wanted: Sequence[int], of: int) -> None:
    from qilu_gateway.sharing import Sharing, of_partition

    sharing = Sharing(settings, wanted, of, fixed=False) if wanted else of_partition(settings)
    on_stop_signals(sharing.stop)
    await sharing.run()
