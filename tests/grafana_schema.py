"""Type check of the dashboards against the types that Grafana publishes (`@grafana/schema`), by TypeScript.

`python tests/grafana_schema.py` fetches both from the npm registry into the cache; tests only read it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

VERSIONS = ("12.4.0", "13.2.3")
"""The version of the compose stack, and the newest when this was written."""
TYPESCRIPT = "5.9.3"
CACHE = Path(os.environ.get("QILU_CACHE", "~/.cache/qilu")).expanduser() / "grafana-schema"

_HEAD = """\
import type { Dashboard } from "@grafana/schema";
// JSON has strings where the types have enumerations.
type Json<T> = T extends string ? `${T}` : T extends number | boolean | null | undefined ? T
  : T extends (infer E)[] ? Json<E>[] : T extends object ? { [K in keyof T]: Json<T[K]> } : T;
"""


def missing() -> str | None:
    """Why the check cannot run here; None if it can."""
    if shutil.which("node") is None:
        return "Node.js is not installed"
    if not all(_compiler(version).is_file() for version in VERSIONS):
        return f"{CACHE} lacks the packages: run `make grafana-schema`"
    return None


def _compiler(version: str) -> Path:
    return CACHE / version / "node_modules" / "typescript" / "bin" / "tsc"


def fetch() -> None:
    for version in VERSIONS:
        packages = [f"@grafana/schema@{version}", f"typescript@{TYPESCRIPT}"]
        folder = CACHE / version
        folder.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder)]
        subprocess.run([*command, *packages], check=True)


def errors(boards: Mapping[str, Mapping[str, Any]], version: str, folder: Path) -> list[str]:
    """The compiler's errors about dashboards, by name. `folder` is for the program that is compiled."""
    program = folder / "boards.ts"
    program.write_text(_HEAD + "".join(_checks(boards)), encoding="utf-8")
    schema = CACHE / version / "node_modules" / "@grafana" / "schema"
    settings = {
        "compilerOptions": {
            "strict": True,
            "noEmit": True,
            "skipLibCheck": True,
            "module": "preserve",
            "types": [],
            "paths": {
                "@grafana/schema": [str(schema / "dist/types/index.d.ts")],
                "panels/*": [str(schema / "dist/types/raw/composable/*/panelcfg/x/types.gen.d.ts")],
            },
        },
        "files": [str(program)],
    }
    (folder / "tsconfig.json").write_text(json.dumps(settings))
    done = subprocess.run(
        ["node", str(_compiler(version)), "-p", str(folder), "--pretty", "false"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    found = [line for line in done.stdout.splitlines() if ": error " in line]
    if done.returncode and not found:
        raise RuntimeError(f"the compiler failed: {done.stdout}{done.stderr}")
    lines = program.read_text(encoding="utf-8").splitlines()
    return [f"{_place(lines, error)}: {error.partition(': error ')[2]}" for error in found]


def _place(lines: list[str], error: str) -> str:
    """The comment above the line of an error, which names dashboard and panel."""
    number = error.partition("(")[2].partition(",")[0]
    return lines[int(number) - 2].removeprefix("// ") if number.isdecimal() else error


def _checks(boards: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Constants whose declared types TypeScript compares with the JSON: whole dashboards, and by kind of
    panel the options and field settings, which the type of a dashboard leaves open."""
    found: list[str] = []

    def check(place: str, type_: str, value: object) -> None:
        text = json.dumps(value, ensure_ascii=False)
        found.append(f"// {place}\nconst _{len(found)}: Json<{type_}> = {text};\n")

    for name, board in boards.items():
        check(name, "Dashboard", _without_queries(board))
        for panel in board["panels"]:
            kind, place = panel["type"], f"{name}, panel {panel['title']}"
            if kind == "row":
                continue
            types = f'import("panels/{kind.replace("-", "")}")'
            check(place, f"Partial<{types}.Options>", panel.get("options", {}))
            custom = panel.get("fieldConfig", {}).get("defaults", {}).get("custom")
            if custom:
                check(place, f"Partial<{types}.FieldConfig>", custom)
    return found


def _without_queries(board: Mapping[str, Any]) -> dict[str, Any]:
    """Without the query of each annotation: its type is the data source's, and InfluxDB's is not published.
    It also is beside the target, where older versions of Grafana read it."""
    own = ("query", "rawQuery", "textColumn", "tagsColumn")

    def common(part: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in part.items() if key not in own}

    listed = board["annotations"].get("list", [])
    return {
        **board,
        "annotations": {"list": [common(each) | {"target": common(each["target"])} for each in listed]},
    }


if __name__ == "__main__":
    fetch()
