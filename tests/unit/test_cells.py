from __future__ import annotations

from pathlib import Path

import pytest
from qilu_common.cells import Cells, load_cells
from qilu_contract.catalogue.places import COUNTIES
from qilu_contract.errors import ConfigError
from qilu_contract.wire import partitions
from qilu_contract.wire.partitions import Partition

LIST = """
shards: 3
cells:
  - {name: east, counties: 1/2, broker: "mqtt://a,b", store: "influxdb://east/qilu"}
  - {name: west, counties: 2/2, broker: "mqtt://c", store: "influxdb://west/qilu"}
earlier:
  - {counties: 1/1, store: "influxdb://old/qilu"}
"""


def loaded(folder: Path, text: str) -> Cells:
    file = folder / "cells.yaml"
    file.write_text(text)
    return load_cells(file)


def test_every_county_has_one_cell_and_its_shards_are_those_of_the_cell(tmp_path: Path) -> None:
    cells = loaded(tmp_path, LIST)
    assert cells.all_shards == 6
    assert [cells.shards_of(cell) for cell in cells.cells] == [[1, 3, 5], [2, 4, 6]]
    for county in COUNTIES:
        cell = cells.of(county)
        assert county in cell.counties.groups
        assert partitions.of_group(county, cells.all_shards).index in cells.shards_of(cell)
        assert any(county in Partition(shard, cells.all_shards).groups for shard in cells.shards_of(cell))
        assert cells.stores_of(county) == [cell.store, "influxdb://old/qilu"]
    assert cells.stores == ["influxdb://east/qilu", "influxdb://west/qilu", "influxdb://old/qilu"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "the file is empty"),
        ("cells: []", "'cells' is empty"),
        (LIST.replace("2/2", "1/2"), "cell 2 of 2 has 'counties: 2/2'"),
        (LIST.replace("west,", "east,"), "two cells have the name 'east'"),
        (LIST.replace('"mqtt://c"', "c"), "line 5: 'broker' must be a URL"),
        (LIST.replace("shards", "shard"), "the file has no 'shard'"),
        (LIST.replace("3", "99", 1), "line 2: the counties are enough for"),
        (LIST.replace("1/2", "half"), "'counties' must be i/n"),
    ],
)
def test_a_wrong_list_names_the_line(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        loaded(tmp_path, text)


def test_an_unknown_cell_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="use one of east, west"):
        loaded(tmp_path, LIST).named("north")
