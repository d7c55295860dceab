"""The entry point of `qilu`: its commands and error output."""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer
from qilu_contract.errors import ConfigError, QiluError
from typer.exceptions import TyperException

from qilu.commands import dashboards, devices, edge, gateway, platform, programme, registry, store, uns
from qilu.commands.doctor import doctor
from qilu.commands.publish import publish
from qilu.commands.score import score
from qilu.commands.score_attacks import score_attacks
from qilu.commands.up import up
from qilu.commands.verify import verify

app = typer.Typer(
    name="qilu",
    help="Clouds in Qilu: an industrial-internet platform simulator.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"qilu {version('clouds-in-qilu')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    pass


for command in (up, publish, doctor, verify, score, score_attacks):
    app.command()(command)
for group in (devices, edge, gateway, platform, store, programme, dashboards, uns):
    app.add_typer(group.app, name=group.__name__.rpartition(".")[2])
app.add_typer(registry.enterprise_app, name="enterprise")
app.add_typer(registry.unit_app, name="unit")

_PARTS = ("devices", "gateway", "platform", "dashboards")
"""Commands whose packages are an extra of the same name; the others need those of the whole stack."""


def main() -> None:
    """Run a command; print a mistake as one sentence. Exit codes: 0 success, 1 failure, 2 wrong usage."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # an ASCII terminal shows ? for what it cannot show
    try:
        code = app(standalone_mode=False)
    except TyperException as error:
        if sentence := error.format_message().strip().rstrip("."):  # empty: the help was shown instead
            _complain(f"{sentence}{'' if sentence.endswith('?') else '.'} See --help.")
        sys.exit(2)
    except typer.Abort:
        _complain("aborted, nothing was changed.")
        sys.exit(1)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package.startswith("qilu"):
            raise
        extra = next((word for word in sys.argv[1:] if word in _PARTS), "stack")
        _complain(
            f"this command needs packages that are not installed, {package} among them: "
            f"pip install 'clouds-in-qilu[{extra}]'"
        )
        sys.exit(2)
    except ConfigError as error:
        _complain(str(error))
        sys.exit(2)
    except QiluError as error:
        _complain(str(error))
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _complain(sentence: str) -> None:
    from rich.console import Console
    from rich.markup import escape

    Console(stderr=True).print(f"[bold red]qilu:[/] {escape(sentence)}", soft_wrap=True, highlight=False)
