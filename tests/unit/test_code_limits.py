"""Size limits of the code: functions of 60 lines, modules of 400, constructors with seven arguments."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
FUNCTION_LINES, MODULE_LINES, CONSTRUCTOR_ARGUMENTS = 60, 400, 7

GENERATED = ("_pb2.py",)
LONG_FUNCTIONS = {
    # A migration is one list of tables, which later code must not change.
    "platform/qilu_platform/database/migrations/versions/r0001_registry.py:upgrade",
    # Constructs the gateway's stages and connects them, in the order of the data.
    "gateway/qilu_gateway/wiring.py:put_together",
    # The same for the platform's resources, which are closed in the opposite order.
    "platform/qilu_platform/runtime.py:open_runtime",
}
KERNELS = "devices/qilu_devices/classes/"
"""A kernel's step is one chain of equations, each on arrays that the one before has computed."""
LONG_MODULES: set[str] = set()


@cache
def modules() -> dict[str, str]:
    """The text of each of our modules, by path."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    return {
        path: (ROOT / path).read_text(encoding="utf-8")
        for path in listed
        if not path.startswith("tests/") and not path.endswith(GENERATED) and (ROOT / path).exists()
    }


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for path, text in modules().items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path}:{node.name}", node


def test_functions_fit_a_screen() -> None:
    # Without the signature, which holds the options of a command with their help.
    found = {
        name: node.end_lineno - node.body[0].lineno + 1
        for name, node in functions()
        if node.end_lineno is not None and not (name.startswith(KERNELS) and name.endswith(":step"))
    }
    assert len(found) > 1000
    long = {name: lines for name, lines in found.items() if lines > FUNCTION_LINES}
    assert {name: lines for name, lines in long.items() if name not in LONG_FUNCTIONS} == {}


def test_modules_have_one_subject() -> None:
    long = {path: len(text.splitlines()) for path, text in modules().items()}
    assert {
        path: lines for path, lines in long.items() if lines > MODULE_LINES and path not in LONG_MODULES
    } == {}


def test_constructors_get_a_few_arguments() -> None:
    wide = {}
    for name, node in functions():
        arguments = len(node.args.args) + len(node.args.kwonlyargs) - 1
        if name.endswith(":__init__") and arguments > CONSTRUCTOR_ARGUMENTS:
            wide[name] = arguments
    assert wide == {}
