"""The documentation builds as a site without warnings, and every link leads to a page and a heading."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "docs", folder / "docs")
    shutil.copy(ROOT / "zensical.toml", folder)
    command = [str(Path(sys.executable).parent / "zensical"), "build", "--strict"]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder / "site"


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r'<(?:script|link|img|iframe)[^>]+(?:src|href)="(https?://[^"]+)"', page.read_text()
        )
        assert not [url for url in loaded if "127.0.0.1" not in url], page


def test_links_to_a_heading_lead_to_one(site: Path) -> None:
    missing = []
    for page in site.rglob("*.html"):
        for target, anchor in re.findall(r'<a[^>]+href="([^"#:]*)#([^"]+)"', page.read_text()):
            aim = (page.parent / target).resolve() if target else page
            if aim.is_file() and f'id="{anchor}"' not in aim.read_text():
                missing.append(f"{page.name}: {target}#{anchor}")
    assert not missing


def test_links_of_the_readme_lead_somewhere() -> None:
    for name in ("README.md", "CONTRIBUTING.md"):
        for target in re.findall(r"\]\(([^)#:]+)[^):]*\)", (ROOT / name).read_text()):
            assert (ROOT / target).exists(), f"{name}: {target}"
