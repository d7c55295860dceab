"""Options that several commands share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer

Broker = Annotated[
    str,
    typer.Option(
        envvar="QILU_BROKER",
        help="Broker URL: mqtt://host:1883, or mqtts://host:8883 with TLS; of a cluster mqtt://a,b,c",
    ),
]
CellsFile = Annotated[
    Path | None,
    typer.Option(
        "--cells", envvar="QILU_CELLS", help="List of cells (YAML); instead of --broker and --store"
    ),
]
StoreUrl = Annotated[
    str,
    typer.Option(
        "--store",
        envvar="QILU_STORE",
        help="Store URL: duckdb:///path or influxdb://host:8086/database",
    ),
]
Db = Annotated[
    str,
    typer.Option(
        "--db", envvar="QILU_DB", help="Registry URL: sqlite:///path or postgresql://user@host/name"
    ),
]
Platform = Annotated[str, typer.Option("--platform", envvar="QILU_PLATFORM", help="Platform URL")]
State = Annotated[Path, typer.Option(envvar="QILU_STATE", help="State directory, kept over restarts")]
Scenario = Annotated[
    Path | None,
    typer.Option(
        envvar="QILU_SCENARIO", help="Scenario: a YAML file, or the name of one that ships; default: default"
    ),
]
Seed = Annotated[int | None, typer.Option(help="Random seed; default: the scenario's")]
Units = Annotated[
    int | None,
    typer.Option(
        min=1, max=100_000_000, help="Number of units; default: the scenario's (2,000 in the default one)"
    ),
]
Start = Annotated[
    str | None,
    typer.Option(
        help="Start of simulated time, such as 2022-06-01T08:00:00+08:00 (without an offset: UTC); "
        "default: the scenario's, or now"
    ),
]
Speed = Annotated[
    str, typer.Option(help="Simulated seconds per second, such as 60; or 1day/s, 1month/s, max")
]
For = Annotated[
    str | None,
    typer.Option("--for", help="Simulated duration, such as 90s, 2h or 30d; default: until stopped"),
]
Profile = Annotated[
    Literal["reliable", "strict"],
    typer.Option(help="strict follows Sparkplug to the letter: data at QoS 0, so the broker may lose some"),
]
ReportFile = Annotated[
    Path | None, typer.Option("--report", help="Write a JSON report to this file at the end")
]
Classes = Annotated[
    str | None,
    typer.Option(
        envvar="QILU_CLASSES", help="Your own equipment classes: a YAML file, or a folder of YAML files"
    ),
]
Shard = Annotated[str, typer.Option(help="Slice of the fleet by edge node, i/n: 1/4 is the first of four")]
Digest = Annotated[bool, typer.Option("--digest", help="Publish nothing; print one SHA-256 over all samples")]
CommandsOf = Annotated[
    Path | None,
    typer.Option(
        "--commands", help="run.json of an earlier run: repeat its commands at their simulated times"
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON")]


def use_classes(sources: str | None) -> None:
    """Set the user's own classes. Call it before anything imports the catalogue, which reads the variable;
    child processes inherit it."""
    if sources is not None:
        os.environ["QILU_CLASSES"] = sources


def write_report(path: Path | None, content: object) -> None:
    """Write `content` as indented JSON, if there is a `path`."""
    if path is not None:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")
