"""Word list: finds phrasings in prose that have a plain English equivalent. `make check` runs it over CLEAN.

Prose is Markdown without code and link targets, YAML comments, and in Python comments and strings
(docstrings, messages, help texts).
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]

CLEAN = (
    "CHANGELOG.md",
    "docs",
    "common",
    "compose",
    "contract",
    "dashboards",
    "devices",
    "gateway",
    "platform",
    "programme",
    "qilu",
    "stores",
    "tests",
    "CONTRIBUTING.md",
    "README.md",
)
"""Files and folders that are checked; add a folder once it is clean."""

EXAMPLES = ("word_list.py", "test_word_list.py")
"""Files that contain the phrasings themselves."""


class Pattern(NamedTuple):
    regex: re.Pattern[str]
    instead: str


def _pattern(regex: str, instead: str) -> Pattern:
    return Pattern(re.compile(regex, re.MULTILINE), instead)


PATTERNS = (
    _pattern(r"\bof (?:one's|ones|your) own\b", "your own, custom"),
    _pattern(r"\bof (?:its|their|our) own(?=[,.;:)]|$)", "its own ..., separate"),
    _pattern(r"\b[Ww]hoever\b", "the program that acts, or: users who"),
    _pattern(r"(?:^|[.!?] )Who (?![^.!]*\?)", "the program that acts, or: users who"),
    _pattern(r"(?:^|[.!?] )What (?!(?:[^.!]|\.\b)*\?)(?:[^.!?]|\.\b){12,}\.(?:\s|$)", "name the thing"),
    _pattern(r"\b(?:that|which|what|who) (?:is|are|was|were) none\b", "malformed, not a ..."),
    _pattern(r"\b(?:stands?|stood)\b(?!-| (?:for|out)\b)", "is, waits, stops"),
    _pattern(r"\b[Ss]o (?:often|long)\b", "how many times, while"),
    _pattern(r"\b[Mm]end(?:s|ed|ing)?\b", "fix"),
    _pattern(r"\b(?:told|said)\b", "given, reported, announced"),
    _pattern(r"\basked (?:of|for of)\b", "requested from"),
    _pattern(r"\bby the (?:block|batch|hour|minute|piece|county)\b", "in batches, hourly"),
    _pattern(r"[µm]s(?: of CPU)? an? [a-z]+\b|\d[kMG]?B an? [a-z]+\b", "per"),
    _pattern(r"\b[Gg]o(?:es|ing)? on\b(?! cloud)", "continue"),
    _pattern(r"\bfor ever\b", "forever, always"),
    _pattern(r"\banew\b", "again, new"),
    _pattern(r"\bbooks? balance|come out even\b", "counts agree"),
    _pattern(r"\bthe plain way\b|\bthe way of an? ", "the plain path, the path of"),
    _pattern(r"\b(?:heard|hears?) (?:of|from)\b", "received from, seen"),
    _pattern(r"\b(?:is|are|was|were) away\b", "unavailable, offline"),
    _pattern(r", for (?:it|they|he|nobody|nothing|there|these|this) (?!one\b)", "because"),
    _pattern(r"\b(?:dearer|farewell|lest|wherein|thereby)\b", "more expensive, final, so that not"),
)


class Found(NamedTuple):
    line: int
    text: str
    instead: str


def find(prose: str, first_line: int = 1) -> Iterator[Found]:
    """The phrasings in a piece of prose. A sentence may be wrapped over lines."""
    joined = re.sub(
        r"(?<=\S)[ \t]*\n[ \t]*(?=[^\s\-*|#>\d])", "\v", prose
    )  # \v: a line break inside of a paragraph
    spaced = joined.replace("\v", " ")
    for pattern in PATTERNS:
        for match in pattern.regex.finditer(spaced):
            before = joined[: match.start()]
            line = first_line + before.count("\n") + before.count("\v")
            yield Found(line, match[0].strip(), pattern.instead)


def pieces(path: Path) -> Iterator[tuple[int, str]]:
    """Pieces of prose of a file, each with its first line."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        text = re.sub(r"^( *)```.*?^\1```", lambda code: "\n" * code[0].count("\n"), text, flags=re.M | re.S)
        text = re.sub(r"`[^`]*`", lambda code: "`" + "\n" * code[0].count("\n") + "`", text)
        yield 1, re.sub(r"\]\([^)]*\)", "]()", text)
    elif path.suffix in {".yaml", ".yml"}:
        for number, line in enumerate(text.splitlines(), 1):
            yield number, line.partition("#")[2]
    else:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], token.string.lstrip("# ")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
                yield node.lineno, node.value


def files() -> list[Path]:
    found: list[Path] = []
    for name in CLEAN:
        path = ROOT / name
        found += (
            [path]
            if path.is_file()
            else [p for s in ("md", "py", "yaml", "yml") for p in path.rglob(f"*.{s}")]
        )
    return sorted(path for path in found if path.name not in EXAMPLES)


def main() -> int:
    count = 0
    for path in files():
        for first_line, prose in pieces(path):
            for found in find(prose, first_line):
                count += 1
                sys.stdout.write(
                    f"{path.relative_to(ROOT)}:{found.line}: '{found.text}': rather {found.instead}\n"
                )
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
