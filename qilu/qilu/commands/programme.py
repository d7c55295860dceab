"""`qilu programme`: run the programme's model, compare two policies, write a report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import structlog
import typer
from qilu_common.addresses import BROKER_PORT, PLATFORM_PORT
from qilu_contract.errors import ConfigError

from qilu.commands.options import Json, write_report
from qilu.commands.registry import State, Url, open_platform
from qilu.logfile import log_as_json, log_file
from qilu.output import console, print_json

if TYPE_CHECKING:
    from qilu_programme.scenario import Scenario

    from qilu.live import LiveConfig

app = typer.Typer(no_args_is_help=True, help="The policy programme as a model: run, compare, report.")

ScenarioName = Annotated[
    str | None,
    typer.Argument(
        help="Scenario: a YAML file, or one that ships: default, county-share-cut, guangdong-rules, "
        "guizhou-second-voucher, slow, west-centres"
    ),
]
Runs = Annotated[
    int,
    typer.Option(
        min=1, max=1000, help="Runs with different seeds and parameter sets, for a median and a band"
    ),
]
Seed = Annotated[int | None, typer.Option(min=0, help="Random seed; overrides the scenario")]

Live = Annotated[
    bool, typer.Option("--live", help="Play the model through the real pipeline and compare the counts")
]
Full = Annotated[bool, typer.Option("--full", help="With --live: --scale 1 --speed max")]
Scale = Annotated[
    str | None, typer.Option(help="With --live: share of the enterprises, such as 1/1000; default: 1/100")
]
LiveSpeed = Annotated[
    str | None, typer.Option(help="With --live: simulated time per second, or max; default: 1month/s")
]
Until = Annotated[str | None, typer.Option(help="With --live: last month, such as 2019-12; default: 2022-12")]
LiveState = Annotated[
    Path, typer.Option(help="With --live: state directory; the same command continues the run in it")
]
LivePlatform = Annotated[
    str | None,
    typer.Option("--platform", help="With --live: URL of a running platform; default: a separate stack"),
]
LiveBroker = Annotated[
    str,
    typer.Option(
        "--broker", help="With --live: auto, mosquitto, builtin, or (with --platform) mqtt://host:1883"
    ),
]
Port = Annotated[
    int, typer.Option(min=0, max=65_535, help="With --live: port of the platform; a free one if it is in use")
]
MqttPort = Annotated[
    int, typer.Option(min=0, max=65_535, help="With --live: port of the broker; a free one if it is in use")
]
LiveReport = Annotated[
    Path | None, typer.Option("--report", help="With --live: write a JSON report to this file at the end")
]

LeavesAtEnd = Annotated[
    bool, typer.Option("--exit", help="With --live: exit at the end instead of serving on until Ctrl-C")
]

_SPEED = {False: "1month/s", True: "max"}
"""Default speed, by --full."""


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


@app.command()
def run(
    scenario: ScenarioName = None,
    runs: Runs = 1,
    seed: Seed = None,
    as_json: Json = False,
    live: Live = False,
    full: Full = False,
    scale: Scale = None,
    speed: LiveSpeed = None,
    until: Until = None,
    state: LiveState = Path("var/live"),
    platform: LivePlatform = None,
    broker: LiveBroker = "auto",
    port: Port = PLATFORM_PORT,
    mqtt_port: MqttPort = BROKER_PORT,
    report: LiveReport = None,
    exit_at_end: LeavesAtEnd = False,
    room: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run the programme from October 2017 to December 2022 and count what it reaches.

    With --live, enterprises, contracts and equipment are registered and publish, month after month, and the
    platform's counts are compared with the model's. Ctrl-Z pauses and resumes, Ctrl-C stops; the same command
    continues the run, after a crash as well. After the last month the console stays up until Ctrl-C.

    Example: qilu programme run county-share-cut --runs 9

    Example: qilu programme run --live --scale 1/100 --speed 1month/s
    """
    from qilu_programme import runs as model
    from qilu_programme.scenario import load_scenario

    if not live and any((full, scale, speed, until, platform, report, exit_at_end)):
        raise ConfigError("--full, --scale, --speed, --until, --platform, --report and --exit need --live.")
    loaded = load_scenario(scenario)
    if seed is not None:
        loaded = replace(loaded, seed=seed)
    if live:
        if runs != 1 or as_json:
            raise ConfigError("--live plays one run: leave out --runs, and take --report instead of --json.")
        pace = speed or _SPEED[full]
        config = _live_config(loaded, full, scale, pace, until, state, room)
        if platform is not None:
            _play_elsewhere(config, platform, broker, report)
        else:

            def words(name: str) -> list[str]:
                return _words_of(config, (name, scenario), pace)

            _play_embedded(config, words, (broker, port, mqtt_port), report, exit_at_end)
        return
    with _bar(runs) as shown:
        ensemble = model.run_many(loaded, runs, shown)
    if as_json:
        print_json(model.as_json(ensemble))
        return
    from qilu.programme_tables import targets_table

    console().print(targets_table(ensemble))


def _live_config(
    scenario: Scenario,
    full: bool,
    scale: str | None,
    speed: str,
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
    return LiveConfig(scenario, share, flags.speed(speed), last, state, room)


def _words_of(config: LiveConfig, scenario: tuple[str, str | None], speed: str) -> list[str]:
    """The command that plays a scenario in a stack, without the command's own options: the one with this
    name, or the run's own, which was given as the second one."""
    from qilu_programme.months import LABELS

    name, given = scenario
    words = ["programme", "run", name, "--live"]
    if name == config.scenario.name:
        own = [given] if given else []
        words = ["programme", "run", *own, "--live", "--seed", str(config.scenario.seed)]
    words += ["--scale", str(config.scale), "--speed", speed]
    return [*words, "--until", LABELS[config.until]]


def _play_elsewhere(config: LiveConfig, platform: str, broker: str, report: Path | None) -> None:
    """Play against a platform and a broker that run already."""
    from qilu import flags, live, live_report

    flags.new_file(report, "--report")
    if "://" not in broker:
        raise ConfigError("--platform needs --broker as well: the broker of that platform's gateway.")
    done = live_report.as_report(live.play(config, platform, broker, console()))
    if config.room is None:  # otherwise the stack around this process reports
        _show_live(done, report)
        live_report.check_report(done)


def _play_embedded(
    config: LiveConfig,
    words: Callable[[str], list[str]],
    broker: tuple[str, int, int],
    report: Path | None,
    leaves: bool,
) -> None:
    """Start a stack in which `words` play. `broker`: which one, the platform's port and the broker's."""
    from qilu_programme.scenario import shipped

    from qilu import flags, live_report
    from qilu.process import become_service
    from qilu.show import Show, play_embedded
    from qilu.stack_config import StackConfig, make_state

    flags.new_file(report, "--report")
    name = config.scenario.name
    scenarios = (name, *(each for each in shipped() if each != name))
    kind, port, mqtt_port = broker
    stack = StackConfig(config.state, kind, port=port, mqtt_port=mqtt_port, bulk=True, scenarios=scenarios)
    stack.check()
    become_service()
    make_state(config.state, "programme")
    with log_file(config.state / "log" / "stack.log") as log:
        log_as_json(log)
        try:
            show = Show(stack, words, name, leaves, lambda done: _show_live(done, report))
            live_report.check_report(play_embedded(show, console()))
        finally:
            structlog.reset_defaults()


def _show_live(done: dict[str, Any], report: Path | None) -> None:
    from qilu import live_report

    write_report(report, done)
    live_report.show_report(done, console())


@app.command()
def compare(
    first: Annotated[str, typer.Argument(help="Scenario: a YAML file, or one that ships")],
    second: Annotated[str, typer.Argument(help="Scenario to compare it with")],
    runs: Runs = 1,
    as_json: Json = False,
) -> None:
    """Compare two scenarios with the same random numbers: only the policy differs. Shows the targets, the
    public funds per additional enterprise and unit, the months and the cities.

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
    from qilu.programme_tables import by_city, comparison_tables

    console().print(*comparison_tables(comparison), sep="\n")
    console().print(f"Enterprises on cloud by city: {by_city(comparison)}.", highlight=False)


@app.command()
def report(
    out: Annotated[Path, typer.Option("--out", help="HTML file to write")],
    scenario: ScenarioName = None,
    runs: Runs = 6,
) -> None:
    """Write one self-contained HTML page: targets, adoption, map, industries, money, assumptions.

    Example: qilu programme report default --out report.html
    """
    from qilu_programme.report import page
    from qilu_programme.runs import run_many
    from qilu_programme.scenario import load_scenario

    from qilu import flags

    loaded = load_scenario(scenario)
    flags.new_file(out, "--out")
    with _bar(runs) as shown:
        ensemble = run_many(loaded, runs, shown)
    try:
        out.write_text(page(ensemble), encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"--out {out}: the file cannot be written ({error.strerror}): give another one."
        ) from error
    console().print(f"{out}: open it in a browser.", highlight=False, soft_wrap=True)


@app.command()
def assumptions(as_json: Json = False) -> None:
    """List every figure of the model with its mark: S sourced, C computed, N a standard named, A assumed.

    Example: qilu programme assumptions
    """
    from qilu_programme.figures import FIGURES, TABLES, read_table
    from rich.table import Table

    if as_json:
        print_json(list(FIGURES.values()))
        return
    table = Table()
    for heading in ("figure", "value", "unit", "mark", "what, and its source"):
        table.add_column(heading, justify="right" if heading == "value" else "left")
    for found in FIGURES.values():
        table.add_row(found.name, f"{found.value:,g}", found.unit, found.mark, found.source)
    for name, (mark, what) in TABLES.items():
        table.add_row(f"{name}.csv", str(len(read_table(f"{name}.csv"))), "rows", mark, what)
    console().print(table)


LIVE_STATE = Path("var/live")


@app.command()
def status(platform: Url = None, state: State = LIVE_STATE, as_json: Json = False) -> None:
    """Show the run that is played into a platform: month, scenario, scale.

    Example: qilu programme status
    """
    with open_platform(platform, state) as client:
        found = client.replay()
    if as_json:
        print_json(found)
    elif (standing := found.standing) is None:
        console().print("No run is being played.")
    else:
        console().print(
            f"{standing.scenario}: {standing.state}, {standing.month} is complete, {standing.done} of "
            f"{standing.months} months; one enterprise in {1 / standing.scale:,.0f}.",
            highlight=False,
        )


@app.command()
def pause(platform: Url = None, state: State = LIVE_STATE) -> None:
    """Pause the run that is played into a platform.

    Example: qilu programme pause
    """
    with open_platform(platform, state) as client:
        client.pause_replay()
    console().print("The run pauses within a second; `qilu programme resume` continues it.")


@app.command()
def resume(platform: Url = None, state: State = LIVE_STATE) -> None:
    """Resume the run that is played into a platform.

    Example: qilu programme resume
    """
    with open_platform(platform, state) as client:
        client.resume_replay()
    console().print("The run continues.")


@app.command()
def again(
    scenario: Annotated[
        str | None, typer.Argument(help="Scenario, one that `qilu programme status --json` lists")
    ] = None,
    platform: Url = None,
    state: State = LIVE_STATE,
) -> None:
    """Begin the run again from the first month, in the stack that plays it. The data of the run so far goes
    to STATE/before, in place of that of an earlier one.

    Example: qilu programme again slow
    """
    with open_platform(platform, state) as client:
        client.start_replay_again(scenario)
    console().print("The stack starts again; its page comes back by itself.")
