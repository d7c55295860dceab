"""Places: names, and the centres from which the console draws counties."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

from qilu_contract.catalogue.places import CITIES, COUNTIES
from qilu_contract.catalogue.tables import read_table

Ring = list[list[float]]


def test_every_place_has_a_name_in_both_languages() -> None:
    assert [
        each.code for each in (*CITIES.values(), *COUNTIES.values()) if not (each.name and each.name_zh)
    ] == []


def test_every_county_has_its_own_centre_within_its_city() -> None:
    text = files("qilu_contract").joinpath("data", "shandong.geojson").read_text(encoding="utf-8")
    cities = {each["properties"]["code"]: each for each in json.loads(text)["features"]}
    points = {
        row["code"]: (float(row["longitude"]), float(row["latitude"]))
        for row in read_table("county_points.csv")
    }
    assert list(points) == list(COUNTIES)
    assert len(set(points.values())) == len(points)
    for code, point in points.items():
        assert any(within(point, ring) for ring in outer_rings(cities[COUNTIES[code].city])), code


def outer_rings(feature: dict[str, Any]) -> Iterator[Ring]:
    shape = feature["geometry"]
    polygons = [shape["coordinates"]] if shape["type"] == "Polygon" else shape["coordinates"]
    return (polygon[0] for polygon in polygons)


def within(point: tuple[float, float], ring: Ring) -> bool:
    """A ray from the point to the east crosses the border an odd number of times."""
    x, y = point
    crossings = 0
    for (x1, y1), (x2, y2) in itertools.pairwise([*ring, ring[0]]):
        if (y1 > y) != (y2 > y) and x < (x2 - x1) * (y - y1) / (y2 - y1) + x1:
            crossings += 1
    return crossings % 2 == 1
