"""`qilu enterprise` and `qilu unit`: register by hand, and look at what is registered."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from qilu_common.addresses import LOCAL_PLATFORM
from qilu_contract.errors import ConfigError

from qilu.commands.options import Json
from qilu.output import console, print_json

if TYPE_CHECKING:
    from qilu_platform.client import DeviceProblem, Platform

enterprise_app = typer.Typer(no_args_is_help=True, help="Enterprises: register, list.")
unit_app = typer.Typer(no_args_is_help=True, help="Units of equipment: register, list, look at.")

Url = Annotated[
    str | None,
    typer.Option(
        "--platform", envvar="QILU_PLATFORM", help="Platform URL; default: the running stack's, see --state"
    ),
]
State = Annotated[
    Path,
    typer.Option(
        "--state",
        envvar="QILU_STATE",
        help="State directory of `make up`: its key, unless QILU_API_KEY is set",
    ),
]
Limit = Annotated[int, typer.Option(min=1, max=1_000_000, help="How many at most")]
_VAR = Path("var")
FIRST_READING_S = 10.0


@contextmanager
def open_platform(platform: str | None, state: Path) -> Iterator[Platform]:
    """A client with the caller's key, or that of the stack in `state`."""
    from qilu_common.secrets import secret
    from qilu_platform.client import Platform as Client
    from qilu_platform.client import PlatformAway

    key = secret("QILU_API_KEY") or _content(state / "keys" / "admin.key")
    if key is None:
        raise ConfigError(
            f"There is no key: QILU_API_KEY is not set, and `make up` has made none in {state}/keys."
        )
    with Client(platform or _stack_url(state) or LOCAL_PLATFORM, key) as client:
        try:
            yield client
        except PlatformAway as error:
            raise PlatformAway(f"{error} Is the stack up?", error.status) from error


def _content(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error


def _stack_url(state: Path) -> str | None:
    """URL of the platform of the stack in `state`; its port differs from the default if that was in use."""
    for line in (_content(state / "env") or "").splitlines():
        name, _, value = line.removeprefix("export ").partition("=")
        if name == "QILU_PLATFORM":
            return value
    return None


@enterprise_app.command("add")
def add_enterprise(
    name: Annotated[str, typer.Argument(help="Name, in any language")],
    county: Annotated[str, typer.Option(help="County code (GB/T 2260), such as 370202")],
    industry: Annotated[str, typer.Option(help="Industry (GB/T 4754), such as C34")],
    id: Annotated[str | None, typer.Option(help="Id; default: the platform makes one")] = None,
    uscc: Annotated[str | None, typer.Option(help="Unified social credit code")] = None,
    platform: Url = None,
    state: State = _VAR,
    as_json: Json = False,
) -> None:
    """Register an enterprise.

    A second call with the same id changes nothing.

    Example: qilu enterprise add "My works" --county 370202 --industry C34 --id my-works
    """
    with open_platform(platform, state) as client:
        made = client.create_enterprise(name, county, industry, id=id, uscc=uscc)
    _show(made, as_json, f"Enterprise {made.id} ({made.name}) is registered.")


@enterprise_app.command("list")
def list_enterprises(
    city: Annotated[str | None, typer.Option(help="City code, such as 370200")] = None,
    name: Annotated[str | None, typer.Option(help="Beginning of the name")] = None,
    limit: Limit = 20,
    platform: Url = None,
    state: State = _VAR,
    as_json: Json = False,
) -> None:
    """List enterprises in the order of their ids.

    Example: qilu enterprise list --city 370200
    """
    filters = {key: value for key, value in {"city": city, "name": name}.items() if value is not None}
    with open_platform(platform, state) as client:
        items = list(islice(client.enterprises(**filters), limit))
    if as_json:
        print_json(items)
    else:
        rows = ([each.id, each.name, each.county, each.industry] for each in items)
        _print_table(("id", "name", "county", "industry"), rows)


@enterprise_app.command("problems")
def list_enterprise_problems(
    enterprise: Annotated[str, typer.Argument(help="Id of the enterprise, as topics name it")],
    platform: Url = None,
    state: State = _VAR,
    as_json: Json = False,
) -> None:
    """List why readings of an enterprise's units were refused, wholly or in part.

    The latest comes first.

    Example: qilu enterprise problems my-works
    """
    with open_platform(platform, state) as client:
        problems = client.enterprise_problems(enterprise)
    _print_problems(problems, as_json)


@unit_app.command("add")
def add_unit(
    class_: Annotated[str, typer.Option("--class", help="Equipment class, such as motor")],
    enterprise: Annotated[str, typer.Option(help="Id of the enterprise that owns it")],
    id: Annotated[str | None, typer.Option(help="Id; default: the platform makes one")] = None,
    name: Annotated[str | None, typer.Option(help="Name, in any language")] = None,
    platform: Url = None,
    state: State = _VAR,
    as_json: Json = False,
) -> None:
    """Register a unit of equipment.

    A second call with the same id changes nothing.

    Example: qilu unit add --class motor --enterprise my-works --id my-motor
    """
    with open_platform(platform, state) as client:
        made = client.create_unit(class_, enterprise, id=id, name=name)
    sentence = f"Unit {made.id} ({made.class_} of {made.enterprise}) is registered; it is {made.identifier}."
    _show(made, as_json, sentence)


@unit_app.command("list")
def list_units(
    class_: Annotated[str | None, typer.Option("--class", help="Equipment class, such as motor")] = None,
    enterprise: Annotated[str | None, typer.Option(help="Id of the enterprise that owns them")] = None,
    limit: Limit = 20,
    platform: Url = None,
    state: State = _VAR,
    as_json: Json = False,
) -> None:
    """List units in the order of their ids.

    Example: qilu unit list --class motor --limit 1
    """
    filters = {
        key: value for key, value in {"class": class_, "enterprise": enterprise}.items() if value is not None
    }
    with open_platform(platform, state) as client:
        items = list(islice(client.units(**filters), limit))
    if as_json:
        print_json(items)
    else:
        rows = ([each.id, each.class_, each.enterprise, each.state, each.name or ""] for each in items)
        _print_table(("id", "class", "enterprise", "state", "name"), rows)


@unit_app.command("latest")
def latest(
    unit: Annotated[str, typer.Argument(help="Id of the unit")],
    platform: Url = None,
    state: State = _VAR,
    as_json: Json = False,
) -> None:
    """Show the latest stored reading of a unit.

    Waits up to ten seconds for its first one.

    Example: qilu unit latest my-motor
    """
    from qilu_platform.client import PlatformError

    with open_platform(platform, state) as client:
        client.unit(unit)
        deadline_s = time.monotonic() + FIRST_READING_S
        while True:
            try:
                reading = client.latest(unit)
                break
            except PlatformError as error:
                if error.status != 404 or time.monotonic() > deadline_s:
                    raise
            time.sleep(0.2)
    values = " ".join(f"{name}={value}" for name, value in reading.values.items())
    _show(reading, as_json, f"{_time(reading.ts_ms)} UTC: {values}")


@unit_app.command("aas")
def asset_shell(
    unit: Annotated[str, typer.Argument(help="Id of the unit")],
    to: Annotated[Path, typer.Option(help="File to write, such as motor.aasx")],
    records: Annotated[int, typer.Option(min=0, max=1000, help="Latest readings in the file")] = 0,
    platform: Url = None,
    state: State = _VAR,
) -> None:
    """Write the Asset Administration Shell of a unit: nameplate, technical data and time series.

    Example: qilu unit aas my-motor --to my-motor.aasx
    """
    with open_platform(platform, state) as client:
        body = client.asset_shell(unit, records)
    try:
        to.write_bytes(body)
    except OSError as error:
        raise ConfigError(f"--to {to}: the file cannot be written: {error.strerror}.") from error
    _say(f"{to} has the shell of {unit}.")


@unit_app.command("problems")
def list_unit_problems(
    unit: Annotated[str, typer.Argument(help="Id of the unit, as its topic names it")],
    platform: Url = None,
    state: State = _VAR,
    as_json: Json = False,
) -> None:
    """List why readings of a unit were refused, wholly or in part.

    The latest comes first.

    Example: qilu unit problems my-motor
    """
    with open_platform(platform, state) as client:
        problems = client.problems(unit)
    _print_problems(problems, as_json)


@unit_app.command("password")
def unit_password(
    unit: Annotated[str, typer.Argument(help="Id of the unit")],
    revoke: Annotated[bool, typer.Option("--revoke", help="End the unit's password instead")] = False,
    platform: Url = None,
    state: State = _VAR,
    as_json: Json = False,
) -> None:
    """Make a user name and password with which a device publishes as this unit, over TLS. The password is
    shown once; the unit's password before it ends.

    Example: qilu unit password my-motor
    """
    with open_platform(platform, state) as client:
        if revoke:
            client.revoke_device_password(unit)
            _say(f"{unit} has no password any more.")
            return
        made = client.issue_device_password(unit)
    at = f"mqtts://{made.listener.host}:{made.listener.port}"
    _show(made, as_json, f"{at}  user {made.username}  password {made.password}")


def _print_problems(problems: Sequence[DeviceProblem], as_json: bool) -> None:
    if as_json:
        print_json(problems)
    elif problems:
        rows = (
            [each.unit, each.reason, str(each.count), _time(each.last_ms), each.excerpt] for each in problems
        )
        _print_table(("unit", "reason", "times", "last (UTC)", "what"), rows)
    else:
        _say("No problems.")


def _time(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%F %T}"


def _show(answer: object, as_json: bool, sentence: str) -> None:
    if as_json:
        print_json(answer)
    else:
        _say(sentence)


def _say(sentence: str) -> None:
    console().print(sentence, soft_wrap=True, highlight=False, markup=False)


def _print_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table()
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    console().print(table)
