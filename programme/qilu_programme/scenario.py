"""Scenarios: YAML files that define a policy. An error names file, line and remedy.

A scenario may begin with `extends: default` (or another shipped scenario) and then set only what differs.
Mappings are merged key by key; everything else is replaced.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

import yaml
from qilu_contract.catalogue.yaml_parser import YamlParser, read_text

from qilu_programme.figures import SECTORS, SIZES, read_table
from qilu_programme.months import LABELS, YEARS, index_of
from qilu_programme.rules import Rules
from qilu_programme.world import COUNTY_CODES

LEVELS = ("province", "city", "county")
"""Levels of government that pay vouchers."""

MAX_POOL = 10**12
_POLICY = ("shares", "caps", "pools", "centres", "more_centres", "rules")
_KEYS = ("extends", "name", "seed", "set", "hazard", *_POLICY)
_FOLDER = files("qilu_programme").joinpath("scenarios")
_Loaded = TypeVar("_Loaded")

MARKS: Mapping[str, tuple[str, str]] = {
    "set": ("C", "the default parameter set; all three sets fit the two known points"),
    "shares": ("A", "share of the price of a first contract that each level pays"),
    "caps": ("A", "maximum amount that an enterprise gets from a level"),
    "pools": ("A", "budget of each level by year; more than 100 million CNY were paid by October 2020 (S)"),
    "rules": ("A", "who may claim, when, and for how much; the scenario's file has the sources (S)"),
    "centres": ("A", "place and month of opening of the 30 planned centres (S); 14 in 2018 (S)"),
}
"""Mark and source of the scenario's own values, for the list of assumptions."""


@dataclass(frozen=True, slots=True)
class ParameterSet:
    """One point on the ridge: market, p and q per year, and `fit`, the factor on the hazard with which
    this model meets the known points (heterogeneity, centres and vouchers change the plain curve).
    """

    name: str
    market: int
    p: float
    q: float
    fit: float


SETS: Mapping[str, ParameterSet] = {
    row["name"]: ParameterSet(
        row["name"], int(row["market"]), float(row["p"]), float(row["q"]), float(row["fit"])
    )
    for row in read_table("sets.csv")
}


@dataclass(frozen=True, slots=True)
class Centre:
    """A provincial experience centre: the county's code and the month of its opening."""

    county: str
    opens: int


@dataclass(frozen=True, slots=True)
class Scenario:
    """A policy. `shares`, `caps` and `pools` are by level; pools are by year, in CNY. `text` is the file as
    read."""

    name: str
    seed: int
    set: ParameterSet
    hazard: float
    shares: Mapping[str, float]
    caps: Mapping[str, int]
    pools: Mapping[str, Mapping[int, int]]
    centres: tuple[Centre, ...]
    text: str
    rules: Rules = field(default_factory=Rules)

    @property
    def sha256(self) -> str:
        """SHA-256 of the file, without the scenario that it extends."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def shipped() -> tuple[str, ...]:
    """Names of the scenarios that ship with the package."""
    names = (entry.name for entry in _FOLDER.iterdir() if entry.name.endswith(".yaml"))
    return tuple(sorted(name.removesuffix(".yaml") for name in names))


def load_scenario(which: str | Path | None = None) -> Scenario:
    """The scenario in a file, the shipped one of this name, or the default. Raises ConfigError."""
    if which is None:
        which = "default"
    if isinstance(which, str) and which in shipped():
        return parse_scenario(_shipped_text(which), f"{which}.yaml")
    path = Path(which)
    text = read_text(path, "the scenario", f"give a file, or one of {', '.join(shipped())}")
    return parse_scenario(text, str(path))


def parse_scenario(text: str, source: str) -> Scenario:
    """The scenario in `text`; `source` is its name in messages. Raises ConfigError with the line of the
    error."""
    return _Parser(source).parse(text)


def _shipped_text(name: str) -> str:
    return _FOLDER.joinpath(f"{name}.yaml").read_text(encoding="utf-8")


class _Parser(YamlParser):
    def parse(self, text: str) -> Scenario:
        found, root = self._top(text)
        if "extends" in found:
            name = self._choice(found["extends"], "extends", shipped())
            below, _ = _Parser(f"{name}.yaml")._top(_shipped_text(name))
            if "extends" in below:
                raise self._wrong(
                    found["extends"], f"'{name}' extends another scenario itself: extend default."
                )
            del below["name"]  # a scenario has its own
            found = {**below, **found, **self._merge(below, found)}

        def get(key: str, read: Callable[[yaml.Node], _Loaded]) -> _Loaded:
            return self._given(found, root, key, read, "it, or 'extends: default' for missing keys")

        centres = get("centres", lambda node: self._centres(node, "centres"))
        if "more_centres" in found:
            centres += self._centres(found["more_centres"], "more_centres")
        return Scenario(
            name=get("name", self._name),
            seed=get("seed", lambda node: self._whole(node, "seed", 0, 2**63 - 1)),
            set=SETS[get("set", lambda node: self._choice(node, "set", tuple(SETS)))],
            hazard=get("hazard", lambda node: self._number(node, "hazard", 0.0, 10.0)),
            shares=get("shares", self._shares),
            caps=get("caps", self._caps),
            pools=get("pools", self._pools),
            centres=centres,
            text=text,
            rules=self._rules(found["rules"]) if "rules" in found else Rules(),
        )

    def _top(self, text: str) -> tuple[dict[str, yaml.Node], yaml.Node]:
        root = self._root(text, "the scenario is empty: it needs at least 'extends: default' and a name.")
        return self._mapping(root, "the scenario", _KEYS), root

    def _merge(self, below: dict[str, yaml.Node], above: dict[str, yaml.Node]) -> dict[str, yaml.Node]:
        """The merged mappings `shares`, `caps` and `pools`; keys of `above` take precedence."""
        merged: dict[str, yaml.Node] = {}
        for key in ("shares", "caps", "pools"):
            if key not in above or key not in below:
                continue
            upper = self._mapping(above[key], f"'{key}'", LEVELS)
            node = above[key]
            kept = [pair for pair in below[key].value if pair[0].value not in upper]
            merged[key] = yaml.MappingNode(node.tag, [*node.value, *kept], node.start_mark, node.end_mark)
        return merged

    def _shares(self, node: yaml.Node) -> dict[str, float]:
        found = self._mapping(node, "'shares'", LEVELS, LEVELS)
        shares = {level: self._number(found[level], f"shares: {level}", 0.0, 0.6) for level in LEVELS}
        if sum(shares.values()) > 0.8:
            raise self._wrong(
                node,
                "the three levels together pay more than 0.8 of the price: lower one of them; the enterprise "
                "and the provider pay the rest.",
            )
        return shares

    def _caps(self, node: yaml.Node) -> dict[str, int]:
        found = self._mapping(node, "'caps'", LEVELS, LEVELS)
        return {level: self._whole(found[level], f"caps: {level}", 0, 10**9) for level in LEVELS}

    def _pools(self, node: yaml.Node) -> dict[str, dict[int, int]]:
        found = self._mapping(node, "'pools'", LEVELS, LEVELS)
        years = tuple(str(year) for year in YEARS)
        pools = {}
        for level in LEVELS:
            by_year = self._mapping(found[level], f"'pools: {level}'", years, years)
            pools[level] = {
                int(year): self._whole(by_year[year], f"pools: {level}: {year}", 0, MAX_POOL)
                for year in years
            }
        return pools

    def _rules(self, node: yaml.Node) -> Rules:
        known = ("sectors", "sizes", "window", "provider_caps", "later_voucher")
        found, rules = self._mapping(node, "'rules'", known), Rules()
        if "sectors" in found:
            entries = self._list(found["sectors"], "'rules: sectors'", f" of {' and '.join(SECTORS)}")
            rules = replace(rules, sectors=tuple(self._choice(each, "a sector", SECTORS) for each in entries))
        if "sizes" in found:
            by_size = self._mapping(found["sizes"], "'rules: sizes'", SIZES, SIZES)
            shares = {size: self._number(by_size[size], f"rules: sizes: {size}", 0.0, 1.0) for size in SIZES}
            rules = replace(rules, sizes=shares)
        if "window" in found:
            keys = ("first", "last")
            months = self._mapping(found["window"], "'rules: window'", keys, keys)
            first, last = (self._whole(months[key], f"rules: window: {key}", 1, 12) for key in keys)
            if first > last:
                raise self._wrong(
                    found["window"], "the window's first month is after its last one: swap them."
                )
            rules = replace(rules, window=(first, last))
        if "provider_caps" in found:
            keys = ("full_range", "others")
            caps = self._mapping(found["provider_caps"], "'rules: provider_caps'", keys, keys)
            full_range, others = (
                self._whole(caps[key], f"rules: provider_caps: {key}", 0, MAX_POOL) for key in keys
            )
            rules = replace(rules, provider_caps=(full_range, others))
        if "later_voucher" in found:
            later = self._number(found["later_voucher"], "rules: later_voucher", 0.0, 1.0)
            rules = replace(rules, later_caps=later)
        return rules

    def _centres(self, node: yaml.Node, what: str) -> tuple[Centre, ...]:
        centres, keys = [], ("county", "opens")
        for entry in self._list(node, f"'{what}'", " of lines '- {county: …, opens: …}'"):
            found = self._mapping(entry, "a centre", keys, keys)
            county = str(found["county"].value)
            if county not in COUNTY_CODES:
                raise self._wrong(
                    found["county"],
                    f"'{county}' is not a county of Shandong: use a code of GB/T 2260, such as '370102'.",
                )
            try:
                opens = index_of(str(found["opens"].value))
            except ValueError as error:
                raise self._wrong(
                    found["opens"],
                    f"'opens' must be a month from {LABELS[0]} to {LABELS[-1]} in quotes, not "
                    f"{found['opens'].value!r}.",
                ) from error
            centres.append(Centre(county, opens))
        return tuple(centres)
