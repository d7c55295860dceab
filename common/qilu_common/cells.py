"""Cells: independent parts of a large system, each with a broker, gateways and a store for some counties.

A YAML file lists them:

    shards: 4            # of each cell, which its gateways share; 1 unless given
    cells:
      - name: east
        counties: 1/2    # every second county, beginning with the first
        broker: mqtt://a,b,c
        store: influxdb://east:8086/qilu
      - {name: west, counties: 2/2, broker: "mqtt://d,e,f", store: "influxdb://west:8086/qilu"}
    earlier:             # stores that hold older readings of these counties, if any
      - {counties: 1/1, store: "influxdb://old:8086/qilu"}
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from qilu_contract.catalogue.places import COUNTIES
from qilu_contract.catalogue.yaml_parser import YamlParser, read_text
from qilu_contract.errors import ConfigError
from qilu_contract.wire import partitions
from qilu_contract.wire.partitions import Partition

MAX_SHARDS = 100


@dataclass(frozen=True, slots=True)
class Cell:
    name: str
    counties: Partition
    broker: str
    store: str


@dataclass(frozen=True, slots=True)
class Cells:
    cells: tuple[Cell, ...]
    shards: int = 1
    earlier: tuple[tuple[Partition, str], ...] = ()

    @property
    def all_shards(self) -> int:
        """Number of shards of all cells: every edge node follows the host of its shard."""
        return self.shards * len(self.cells)

    def named(self, name: str) -> Cell:
        """Raises ConfigError."""
        for cell in self.cells:
            if cell.name == name:
                return cell
        known = ", ".join(cell.name for cell in self.cells)
        raise ConfigError(f"--cell {name!r} is not in the list of cells: use one of {known}.")

    def of(self, county: str) -> Cell:
        """The cell that serves a county."""
        return self.cells[partitions.of_group(county, len(self.cells)).index - 1]

    def shards_of(self, cell: Cell) -> list[int]:
        """The shards, of `all_shards`, that have the counties of a cell."""
        return [cell.counties.index + step * len(self.cells) for step in range(self.shards)]

    def stores_of(self, county: str) -> list[str]:
        """Store URLs with readings of a county; the first one takes new ones."""
        older = [url for part, url in self.earlier if county in part.groups]
        return list(dict.fromkeys([self.of(county).store, *older]))

    @property
    def stores(self) -> list[str]:
        """All store URLs, once each; the first is that of the platform's own figures."""
        return list(dict.fromkeys([*(cell.store for cell in self.cells), *(url for _, url in self.earlier)]))


def load_cells(path: Path) -> Cells:
    """Raises ConfigError, which names the line."""
    return _CellsParser(str(path)).parse(read_text(path, "the list of cells"))


class _CellsParser(YamlParser):
    def parse(self, text: str) -> Cells:
        root = self._root(text, "the file is empty: list the cells under 'cells'.")
        found = self._mapping(root, "the file", ("shards", "cells", "earlier"), ("cells",))
        shards = self._whole(found["shards"], "shards", 1, MAX_SHARDS) if "shards" in found else 1
        nodes = self._list(found["cells"], "'cells'", " of name, counties, broker and store")
        cells = [self._cell(node) for node in nodes]
        for place, (cell, node) in enumerate(zip(cells, nodes, strict=True), 1):
            if cell.counties != Partition(place, len(cells)):
                raise self._wrong(node, f"cell {place} of {len(cells)} has 'counties: {place}/{len(cells)}'.")
            if cell.name in [other.name for other in cells[: place - 1]]:
                raise self._wrong(node, f"two cells have the name '{cell.name}'.")
        if not cells:
            raise self._wrong(root, "'cells' is empty: list at least one.")
        if shards * len(cells) > len(COUNTIES):
            most = len(COUNTIES) // len(cells)
            sentence = f"the counties are enough for {most} shards in each of {len(cells)} cells."
            raise self._wrong(found.get("shards", found["cells"]), sentence)
        older = (
            self._list(found["earlier"], "'earlier'", " of counties and store") if "earlier" in found else []
        )
        return Cells(tuple(cells), shards, tuple(map(self._earlier, older)))

    def _cell(self, node: yaml.Node) -> Cell:
        keys = ("name", "counties", "broker", "store")
        found = self._mapping(node, "a cell", keys, keys)
        urls = [self._url(found[key], key) for key in ("broker", "store")]
        return Cell(self._name(found["name"]), self._counties(found["counties"]), *urls)

    def _earlier(self, node: yaml.Node) -> tuple[Partition, str]:
        keys = ("counties", "store")
        found = self._mapping(node, "an earlier store", keys, keys)
        return self._counties(found["counties"]), self._url(found["store"], "store")

    def _counties(self, node: yaml.Node) -> Partition:
        value: Any = self._scalar(node)
        try:
            return partitions.parse(str(value))
        except ConfigError as error:
            raise self._wrong(node, "'counties' must be i/n: 1/3 is the first of three cells.") from error

    def _url(self, node: yaml.Node, what: str) -> str:
        value = self._scalar(node)
        if not isinstance(value, str) or "://" not in value:
            raise self._wrong(node, f"'{what}' must be a URL.")
        return value
