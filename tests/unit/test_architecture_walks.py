"""docs/architecture.md and CONTRIBUTING.md name files that exist, and no walk has more than ten steps."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_every_module_that_the_page_names_with_its_package_is_there(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = set(re.findall(r"`(?:[a-z]+/)?(qilu(?:_[a-z]+)?/[\w/]+\.py)`", text))
    assert len(named) > 2
    assert [path for path in sorted(named) if not list(ROOT.glob(f"*/{path}"))] == []


def test_a_walk_has_ten_steps_at_most() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    walks = text.partition("### Four walks")[2].split("\n**")[1:5]
    steps = [len(re.findall(r"^\d+\. ", walk, re.MULTILINE)) for walk in walks]
    assert len(steps) == 4
    assert all(5 < count <= 10 for count in steps)
