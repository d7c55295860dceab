"""`qilu dashboards`: Grafana dashboards as code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from qilu_contract.errors import ConfigError, QiluError

from qilu import flags
from qilu.commands.options import Classes, Json, use_classes
from qilu.output import console, print_json

app = typer.Typer(no_args_is_help=True, help="Grafana dashboards as code.")


@app.command()
def build(
    to: Annotated[
        Path | None, typer.Option(help="Write the dashboards into this folder; default: that of the checkout")
    ] = None,
    classes: Classes = None,
) -> None:
    """Generate the dashboards as JSON files for Grafana.

    In a checkout, without --to, the files of the repository and its alert rules are replaced. With your own
    classes, and in an installed package, --to names the folder.

    Example: qilu dashboards build --classes kiln.yaml --to my-dashboards
    """
    use_classes(classes)
    from qilu_contract.catalogue.classes import OWN
    from qilu_dashboards.alerts import ALERTS_FOLDER
    from qilu_dashboards.build import checkout_folder, write, write_alerts

    if to is None and OWN:
        raise ConfigError(
            "The repository's dashboards do not cover your own classes: give another folder with --to."
        )
    written = [*write(checkout_folder()), write_alerts(ALERTS_FOLDER)] if to is None else write(to)
    for path in written:
        console().print(str(path), highlight=False)


@app.command()
def check() -> None:
    """Check the dashboards of a checkout.

    The files must be what the code generates, and every query must refer to a measurement and field that
    exist.

    Example: qilu dashboards check
    """
    from qilu_dashboards.build import checkout_folder
    from qilu_dashboards.check import problems

    found = problems(checkout_folder())
    for problem in found:
        console().print(problem, highlight=False, markup=False, soft_wrap=True)
    if found:
        raise QiluError(f"the dashboards have {len(found)} problems.")
    console().print("The dashboards' files are what the code makes, and every query finds its fields.")


@app.command()
def picture(
    dashboard: Annotated[str, typer.Argument(help="Uid of a dashboard, such as programme or unit-motor")],
    store: Annotated[str, typer.Option(help="Store URL: influxdb://host:8086/database")],
    out: Annotated[Path, typer.Option(help="File to write: .svg or .png")],
    hours: Annotated[float, typer.Option(min=0.01, help="Length of the time range in hours")] = 1.0,
    until: Annotated[
        str | None,
        typer.Option(help="End of the time range, such as 2026-11-19T08:00:00+08:00; default: now"),
    ] = None,
    chosen: Annotated[
        list[str] | None, typer.Option("--set", help="Value of a variable, such as city=370200")
    ] = None,
    classes: Classes = None,
) -> None:
    """Draw a dashboard without Grafana, from its own queries.

    The store's token comes from QILU_INFLUX_TOKEN.

    Example: qilu dashboards picture unit-motor --store influxdb://127.0.0.1:8086/qilu --out motor.svg
    """
    use_classes(classes)
    from qilu_common.secrets import secret
    from qilu_contract.wire.clock import wall_ms
    from qilu_dashboards import pictures
    from qilu_dashboards.asking import Time

    end_ms = wall_ms() if until is None else flags.time_ms(until)
    time = Time(end_ms - int(hours * 3_600_000), end_ms)
    variables = pictures.chosen_of(chosen or [])
    pictures.picture(dashboard, store, secret("QILU_INFLUX_TOKEN"), time, variables, out)
    console().print(str(out), highlight=False)


@app.command()
def push(
    url: Annotated[str, typer.Option(envvar="QILU_GRAFANA_URL", help="Grafana URL")],
    store: Annotated[
        str | None,
        typer.Option(
            help="Store URL, influxdb://host:8086/database; needed until Grafana has our data source"
        ),
    ] = None,
    classes: Classes = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the changes; make none")] = False,
    as_json: Json = False,
) -> None:
    """Create or update data source, folder and dashboards in Grafana.

    The token of Grafana's service account comes from QILU_GRAFANA_TOKEN, the store's from QILU_INFLUX_TOKEN.
    Idempotent: only differences are written.

    Example: qilu dashboards push --url http://127.0.0.1:3000 --store influxdb://127.0.0.1:8086/qilu
    """
    use_classes(classes)
    from qilu_common.secrets import secret
    from qilu_dashboards.push import Push

    token = secret("QILU_GRAFANA_TOKEN")
    if token is None:
        raise ConfigError("QILU_GRAFANA_TOKEN is not set: make a service account's token in Grafana.")
    for change in Push(url, token, store, secret("QILU_INFLUX_TOKEN"), dry_run).run():
        if as_json:
            print_json(change)
            continue
        console().print(f"{change.done:<9} {change.what}", highlight=False, markup=False, soft_wrap=True)
        if dry_run and change.difference:
            console().print(change.difference, highlight=False, markup=False, soft_wrap=True)
