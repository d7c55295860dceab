"""The API description: the OpenAPI document, and a page for it without external resources."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response

from qilu_platform.api.common import PROBLEM_SCHEMA

router = APIRouter(include_in_schema=False)

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 62rem; padding: 1rem; }
code, pre { font: 13px/1.45 ui-monospace, monospace; }
pre { background: var(--soft); border-radius: 4px; overflow-x: auto; padding: .6rem; white-space: pre-wrap; }
details { border: 1px solid var(--line); border-radius: 4px; margin: .4rem 0; }
summary { cursor: pointer; padding: .4rem .6rem; }
details > div { border-top: 1px solid var(--line); padding: 0 .8rem .6rem; }
table { border-collapse: collapse; width: 100%; }
td { border-bottom: 1px solid var(--line); padding: .2rem .6rem .2rem 0; vertical-align: top; }
h2 { margin-top: 2rem; }
nav a { margin-right: 1rem; white-space: nowrap; }
.method { display: inline-block; font-weight: 600; min-width: 4.2rem; }
"""
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>{style}</style>
</head>
<body>{body}</body>
</html>
"""
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_HASH}'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
}
_Json = Mapping[str, Any]


class DescribedApp(FastAPI):
    """FastAPI, with the schema `Problem` in the description once instead of in each answer."""

    def openapi(self) -> dict[str, Any]:
        described = super().openapi()
        described["components"]["schemas"].setdefault("Problem", PROBLEM_SCHEMA)
        return described


@router.get("/docs")
async def docs(request: Request) -> Response:
    app: FastAPI = request.app
    return Response(page(app.openapi()), headers=_HEADERS, media_type="text/html")


def page(described: _Json) -> str:
    """The OpenAPI document as HTML: operations by tag, then the schemas that they name."""
    info, schemas = described["info"], described["components"]["schemas"]
    by_tag: dict[str, list[str]] = {tag["name"]: [] for tag in described["tags"]}
    for path, methods in sorted(described["paths"].items()):
        for method, operation in methods.items():
            by_tag[operation["tags"][0]].append(_operation(path, method, operation, schemas))
    links = " ".join(f'<a href="#{_anchor(tag)}">{escape(tag)}</a>' for tag in by_tag)
    parts = [
        f"<h1>{escape(info['title'])}</h1>{_text(info['description'])}",
        '<p>The same as a document for programs: <a href="openapi.json">openapi.json</a>.</p>',
        f'<nav>{links} <a href="#schemas">schemas</a></nav>',
        *(f'<h2 id="{_anchor(tag)}">{escape(tag)}</h2>{"".join(parts)}' for tag, parts in by_tag.items()),
        '<h2 id="schemas">schemas</h2>',
        *(_schema(name, schema) for name, schema in sorted(schemas.items())),
    ]
    return _PAGE.format(title=escape(info["title"]), style=_STYLE, body="".join(parts))


def _anchor(tag: str) -> str:
    return "tag-" + tag.replace(" ", "-")


def _text(text: str) -> str:
    return "".join(f"<p>{_line(part)}</p>" for part in text.strip().split("\n\n"))


def _line(text: str) -> str:
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(text))


def _operation(path: str, method: str, operation: _Json, schemas: _Json) -> str:
    inside = [_text(operation.get("description", ""))]
    parameters = operation.get("parameters", [])
    if parameters:
        rows = (
            (
                f"{each['name']} ({each['in']}{', required' if each.get('required') else ''})",
                each["schema"],
                each,
            )
            for each in parameters
        )
        inside.append(_table("Parameters", rows))
    body = operation.get("requestBody", {"content": {}})["content"]
    for kind, content in body.items():
        inside.append(f"<h4>Body, <code>{kind}</code>: {_type(content['schema'])}</h4>")
        inside.append(_example(content, schemas))
    for status, response in sorted(operation["responses"].items()):
        kinds = response.get("content", {})
        shown = ", ".join(
            f"<code>{kind}</code> {_type(content['schema'])}" for kind, content in kinds.items()
        )
        inside.append(f"<p><b>{status}</b> {_line(response['description'])} {shown}</p>")
        if status < "3":
            inside += [_example(content, schemas) for content in kinds.values()]
    name = operation["operationId"]
    title = f'<span class="method">{method.upper()}</span> <code>{escape(path)}</code> '
    title += escape(operation["summary"])
    return _details(name, title, "".join(inside))


def _example(content: _Json, schemas: _Json) -> str:
    named = schemas.get(content["schema"].get("$ref", "").rpartition("/")[2], {})
    example = content.get("example", next(iter(named.get("examples", [])), None))
    if example is None:
        return ""
    text = example if isinstance(example, str) else json.dumps(example, ensure_ascii=False, indent=1)
    return f"<pre>{escape(text)}</pre>"


def _schema(name: str, schema: _Json) -> str:
    needed = schema.get("required", [])
    rows = (
        (each if each in needed else f"{each} (optional)", field, field)
        for each, field in schema.get("properties", {}).items()
    )
    about = _line(schema.get("description", "")) or ", ".join(map(str, schema.get("enum", [])))
    return _details(f"schema-{name}", escape(name), f"<p>{about}</p>{_table('', rows)}")


def _details(id_: str, title: str, inside: str) -> str:
    # A link to something inside opens the details around it.
    return f'<details><summary>{title}</summary><div id="{id_}">{inside}</div></details>'


def _table(title: str, rows: Iterator[tuple[str, _Json, _Json]]) -> str:
    lines = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{_type(schema)}</td>"
        f"<td>{_line(about.get('description', ''))}</td></tr>"
        for name, schema, about in rows
    )
    return f"<h4>{title}</h4><table>{lines}</table>" if title else f"<table>{lines}</table>"


def _type(schema: _Json) -> str:
    """Such as `list of <a>Unit</a>`, `text or null`."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f'<a href="#schema-{name}">{escape(name)}</a>'
    for choice in ("anyOf", "oneOf", "allOf"):
        if choice in schema:
            return " or ".join(dict.fromkeys(map(_type, schema[choice])))
    if "enum" in schema or "const" in schema:
        return escape(", ".join(map(str, schema.get("enum", [schema.get("const")]))))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if "additionalProperties" in schema and isinstance(schema["additionalProperties"], dict):
        return f"object of {_type(schema['additionalProperties'])}"
    return escape(str(schema.get("type", "anything")))
