"""The dashboards have the types that two versions of Grafana publish."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import grafana_schema
import pytest
from qilu_dashboards.build import build_all

BOARDS: dict[str, dict[str, Any]] = {name: json.loads(text) for name, text in build_all().items()}

pytestmark = pytest.mark.skipif(grafana_schema.missing() is not None, reason=str(grafana_schema.missing()))


@pytest.mark.parametrize("version", grafana_schema.VERSIONS)
def test_every_dashboard_has_grafanas_types(version: str, tmp_path: Path) -> None:
    assert grafana_schema.errors(BOARDS, version, tmp_path) == []


def test_a_dashboard_with_a_wrong_type_is_found(tmp_path: Path) -> None:
    wrong = {"pipeline.json": copy.deepcopy(BOARDS["pipeline.json"])}
    stat = next(panel for panel in wrong["pipeline.json"]["panels"] if panel["type"] == "stat")
    stat["options"]["graphMode"] = "hills"
    wrong["pipeline.json"]["graphTooltip"] = "shared"
    found = grafana_schema.errors(wrong, grafana_schema.VERSIONS[0], tmp_path)
    assert len(found) == 2
    assert any("hills" in error and stat["title"] in error for error in found)
    assert any("DashboardCursorSync" in error for error in found)
