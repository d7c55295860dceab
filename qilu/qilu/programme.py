"""`qilu programme`: run the programme's model, compare two policies, write a report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import structlog
import typer
from qilu_contract.errors import ConfigError

from qilu.logfile import log_as_json, log_file
from qilu.output import console, print_json

if TYPE_CHECKING:
    from qilu_programme.runs import Comparison, Ensemble
    from qilu_programme.scenario import Scenario

    from qilu.live import LiveConfig

programme_app = typer.Typer(
    no_args_is_help=True, help="The policy programme as a model: run, compare, report."
)

Which = Annotated[
    str | None,
    typer.Argument(help="a YAML file, or one that ships: default, county-share-cut, west-centres, slow"),
]
Runs = Annotated[
    int,
    typer.Option(min=1, max=1000, help="runs with different seeds and parameter sets, for median and band"),
]
Seed = Annotated[int | None, typer.Option(min=0, help="of everything random, instead of the scenario's")]
Json = Annotated[bool, typer.Option("--json", help="print JSON, for programs")]


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr, on a terminal only."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    screen = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task("runs", total=total)
        yield lambda done, of: bar.update(task, completed=done, total=of)


@programme_app.command("run")
def programme_run(
    scenario: Which = None,
    runs: Runs = 1,
    seed: Seed = None,
    as_json: Json = False,
    live: Annotated[
        bool,
        typer.Option("--live", help="play it through the real pipeline, until its counts are the model's"),
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", help="with --live: every enterprise, as fast as it goes")
    ] = False,
    scale: Annotated[
        str | None, typer.Option(help="with --live: the share of enterprises, such as 1/1000 (else 1/100)")
    ] = None,
    speed: Annotated[
        str | None, typer.Option(help="with --live: simulated time in a second: 1month/s (the default), max")
    ] = None,
    until: Annotated[str | None, typer.Option(help="with --live: the last month, such as 2019-12")] = None,
    state: Annotated[
        Path, typer.Option(help="with --live: where the run is kept; the same command goes on with it")
    ] = Path("var/live"),
    platform: Annotated[
        str | None, typer.Option(help="with --live: a running platform, instead of a stack of its own")
    ] = None,
    broker: Annotated[
        str, typer.Option(help="with --live: auto, mosquitto, builtin, or (with --platform) mqtt://host:1883")
    ] = "auto",
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="of the stack's platform; another one if it is taken")
    ] = 8000,
    mqtt_port: Annotated[
        int, typer.Option(min=0, max=65_535, help="of the stack's broker; another one if it is taken")
    ] = 1883,
    report: Annotated[
        Path | None, typer.Option("--report", help="with --live: write one JSON object here at the end")
    ] = None,
    room: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run the programme from October 2017 to December 2022 and count what it reaches.

    With --live enterprises, contracts and equipment are registered and speak for real, month after month, and
    the platform's counts are compared with the model's. Ctrl-Z pauses and goes on, Ctrl-C stops; the same
    command goes on where the run stands, after a crash as well.

    Example: qilu programme run county-share-cut --runs 9

    Example: qilu programme run --live --scale 1/100 --speed 1month/s
    """
    from qilu_programme import runs as model
    from qilu_programme.months import LABELS
    from qilu_programme.scenario import load_scenario

    given = (full, scale, speed, until, platform, report)
    if not live and any(given):
        raise ConfigError("--full, --scale, --speed, --until, --platform and --report need --live.")
    loaded = load_scenario(scenario)
    if seed is not None:
        loaded = replace(loaded, seed=seed)
    if live:
        if runs != 1 or as_json:
            raise ConfigError("--live plays one run: leave out --runs, and take --report instead of --json.")
        config = _live_config(loaded, full, scale, speed, until, state, room)
        words = ["programme", "run", *([scenario] if scenario else []), "--live"]
        words += ["--seed", str(loaded.seed), "--scale", str(config.scale), "--speed", speed or _SPEED[full]]
        words += ["--until", LABELS[config.until]]
        _run_live(config, words, platform, broker, (port, mqtt_port), report)
        return
    with _bar(runs) as shown:
        ensemble = model.run_many(loaded, runs, shown)
    if as_json:
        print_json(model.as_json(ensemble))
        return
    _show_run(ensemble)


_SPEED = {False: "1month/s", True: "max"}


def _live_config(
    scenario: Scenario,
    full: bool,
    scale: str | None,
    speed: str | None,
    until: str | None,
    state: Path,
    room: Path | None,
) -> LiveConfig:
    from qilu_programme.months import LABELS, MONTHS, index_of

    from qilu import flags
    from qilu.live import LiveConfig

    if full and scale is not None:
        raise ConfigError("--full is --scale 1: give one of them.")
    try:
        last = MONTHS - 1 if until is None else index_of(until)
    except ValueError as error:
        raise ConfigError(f"--until: {error}: write one from {LABELS[0]} to {LABELS[-1]}.") from error
    share = flags.share("1" if full else scale or "1/100")
    return LiveConfig(scenario, share, flags.speed(speed or _SPEED[full]), last, state, room)


def _run_live(
    config: LiveConfig,
    words: list[str],
    platform: str | None,
    broker: str,
    ports: tuple[int, int],
    report: Path | None,
) -> None:
    from qilu import flags, live
    from qilu.process import become_service
    from qilu.stack import StackConfig, make_state

    flags.new_file(report, "--report")
    if platform is not None:
        if "://" not in broker:
            raise ConfigError("--platform needs --broker as well: where that platform's gateway listens.")
        done = live.as_report(live.play(config, platform, broker, console()))
        if config.room is not None:
            return  # the stack around us reports
    else:
        stack = StackConfig(config.state, broker, port=ports[0], mqtt_port=ports[1], bulk=True)
        stack.check()
        become_service()
        make_state(config.state, "programme")
        with log_file(config.state / "log" / "stack.log") as log:
            log_as_json(log)
            try:
                done = live.play_embedded(stack, words, console())
            finally:
                structlog.reset_defaults()
    if report is not None:
        report.write_bytes(msgspec.json.format(msgspec.json.encode(done), indent=2) + b"\n")
    live.show_report(done, console())
    live.check_report(done)


def _show_run(ensemble: Ensemble) -> None:
    from qilu_contract.catalogue.targets import CORE_TARGETS
    from rich.table import Table

    many = len(ensemble.tables) > 1
    title = f"{ensemble.scenario.name}, end of 2022" + (
        f": median of {len(ensemble.tables)} runs" if many else ""
    )
    table = Table(title=title, title_justify="left")
    table.add_column("target", min_width=24)
    for heading in ("wanted", "count", *(("10–90 %", "chance") if many else ())):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("reached in", no_wrap=True)
    for name, target in CORE_TARGETS.items():
        value = ensemble.value(name)
        cells = [target.title, target.wanted, f"{value:,}"]
        if many:
            low, high = ensemble.band(name)
            cells += [f"{low[-1]:,.0f}–{high[-1]:,.0f}", f"{ensemble.chance(name):.0%}"]
        when = ensemble.reached_in(name)
        cells.append(f"[green]{when}[/]" if when else "[red]not reached[/]")
        table.add_row(*cells)
    console().print(table)


@programme_app.command("compare")
def programme_compare(
    first: Annotated[str, typer.Argument(help="a scenario: file, or one that ships")],
    second: Annotated[str, typer.Argument(help="the other one")],
    runs: Runs = 1,
    as_json: Json = False,
) -> None:
    """Compare two scenarios with the same luck: what differs is the policy.

    Example: qilu programme compare default county-share-cut
    """
    from qilu_programme import runs as model
    from qilu_programme.scenario import load_scenario

    before, after = load_scenario(first), load_scenario(second)
    with _bar(2 * runs) as shown:
        comparison = model.compare(before, after, runs, shown)
    if as_json:
        print_json(comparison.as_json())
        return
    _show_comparison(comparison)


def _show_comparison(comparison: Comparison) -> None:
    from qilu_contract.catalogue.places import CITIES
    from qilu_contract.catalogue.targets import CORE_TARGETS
    from qilu_programme.months import LABELS, MONTHS
    from qilu_programme.world import CITY_CODES
    from rich.table import Table

    one, two = comparison.first, comparison.second
    targets = Table(title="Targets at the end of 2022", title_justify="left")
    targets.add_column("target")
    for heading in ("wanted", one.scenario.name, two.scenario.name, "difference"):
        targets.add_column(heading, justify="right", no_wrap=heading != "wanted", overflow="fold")
    targets.add_column("reached in", no_wrap=True)
    for name, target in CORE_TARGETS.items():
        when = " → ".join(side.reached_in(name) or "not" for side in (one, two))
        gap = int(comparison.difference(name)[-1])
        targets.add_row(
            target.title, target.wanted, f"{one.value(name):,}", f"{two.value(name):,}", f"{gap:+,}", when
        )
    console().print(targets)
    months = Table(
        title="Month by month: the second less the first (all months with --json)", title_justify="left"
    )
    for heading in ("month", "enterprises on cloud", "units on cloud"):
        months.add_column(heading, justify="left" if heading == "month" else "right")
    gaps = [comparison.difference(name) for name in ("enterprises_on_cloud", "units_on_cloud")]
    for month in sorted({*range(2, MONTHS, 6), MONTHS - 1}):
        months.add_row(LABELS[month], *(f"{int(gap[month]):+,}" for gap in gaps))
    console().print(months)
    cities = sorted(zip(comparison.difference_by_city(), CITY_CODES, strict=True), key=lambda pair: pair[0])
    said = ", ".join(f"{CITIES[code].name} {int(gap):+,}" for gap, code in cities if gap)
    console().print(f"Enterprises on cloud by city: {said or 'no difference'}.", highlight=False)


@programme_app.command("report")
def programme_report(
    out: Annotated[Path, typer.Option("--out", help="the HTML file to write")],
    scenario: Which = None,
    runs: Runs = 6,
) -> None:
    """Write one self-contained HTML page: targets, adoption, map, industries, money, assumptions.

    Example: qilu programme report default --out report.html
    """
    from qilu_programme.report import page
    from qilu_programme.runs import run_many
    from qilu_programme.scenario import load_scenario

    loaded = load_scenario(scenario)
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"--out {out}: there is no folder {out.absolute().parent}: make it first.")
    with _bar(runs) as shown:
        ensemble = run_many(loaded, runs, shown)
    try:
        out.write_text(page(ensemble), encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"--out {out}: the file cannot be written ({error.strerror}): give another one."
        ) from error
    console().print(f"{out}: open it in a browser.", highlight=False, soft_wrap=True)


@programme_app.command("assumptions")
def programme_assumptions(as_json: Json = False) -> None:
    """List every figure of the model with its mark: S sourced, C computed, N a standard named, A assumed.

    Example: qilu programme assumptions
    """
    from qilu_programme.figures import FIGURES, TABLES, read_table
    from rich.table import Table

    if as_json:
        print_json(list(FIGURES.values()))
        return
    table = Table()
    for heading in ("figure", "value", "unit", "mark", "what, and where it comes from"):
        table.add_column(heading, justify="right" if heading == "value" else "left")
    for found in FIGURES.values():
        table.add_row(found.name, f"{found.value:,g}", found.unit, found.mark, found.source)
    for name, (mark, what) in TABLES.items():
        table.add_row(f"{name}.csv", str(len(read_table(f"{name}.csv"))), "rows", mark, what)
    console().print(table)
