"""A policy in five figures and a set of voucher rules, and its outcome on the programme's model.

`python -m qilu_programme.policy` reads a policy as JSON from stdin, such as `{"shares": {"county": 0}}`, and
prints its outcome as JSON. Missing values are those of the default scenario. Takes a few seconds.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any, get_args

import msgspec
import numpy as np
from qilu_contract.catalogue.targets import CORE_TARGETS
from qilu_contract.policies import RulesName

from qilu_programme.model import run
from qilu_programme.months import LABELS, MONTHS, index_of
from qilu_programme.scenario import LEVELS, Centre, Scenario, load_scenario
from qilu_programme.world import COUNTY_CODES, make_world

MORE_OPEN = index_of("2019-03")
"""Month in which centres beyond the planned ones open (assumed), as in the scenario west-centres."""


class Policy(msgspec.Struct, forbid_unknown_fields=True):
    """`shares`: of the price of a first contract that each level pays. `pools`: voucher budgets of all levels
    and years, as a multiple of the plan's. `centres`: number of experience centres. `rules`: the scenario
    whose rules and caps of vouchers hold."""

    shares: dict[str, float] = {}
    pools: float = 1.0
    centres: int | None = None
    rules: RulesName = "default"


def scenario_of(policy: Policy) -> Scenario:
    """The default scenario with the policy's figures. Fewer centres are the first of the plan; more are
    in the counties with the most enterprises among those that have none."""
    plan = load_scenario()
    centres = plan.centres
    if policy.centres is not None:
        more = max(0, policy.centres - len(centres))
        centres = (*centres[: policy.centres], *_more_centres(centres, more))
    pools = {
        level: {year: round(budget * policy.pools) for year, budget in by_year.items()}
        for level, by_year in plan.pools.items()
    }
    shares = {level: policy.shares.get(level, plan.shares[level]) for level in LEVELS}
    of = load_scenario(policy.rules)
    return replace(
        plan, name="policy", shares=shares, pools=pools, centres=centres, rules=of.rules, caps=of.caps
    )


def _more_centres(planned: tuple[Centre, ...], number: int) -> list[Centre]:
    taken = {centre.county for centre in planned}
    world = make_world()
    enterprises = np.bincount(world.county, weights=world.count, minlength=len(COUNTY_CODES))
    by_size = [COUNTY_CODES[index] for index in np.argsort(-enterprises, kind="stable")]
    return [Centre(county, MORE_OPEN) for county in by_size if county not in taken][:number]


def _described(name: str) -> dict[str, Any]:
    """Rules and caps of a scenario; null for what it does not restrict."""
    scenario = load_scenario(name)
    rules = scenario.rules
    return {
        "name": name,
        "sectors": list(rules.sectors),
        "sizes": dict(rules.sizes),
        "window": list(rules.window),
        "cap_cny": sum(scenario.caps.values()),
        "later_cap_cny": None
        if rules.later_caps is None
        else sum(round(cap * rules.later_caps) for cap in scenario.caps.values()),
        "provider_caps_cny": None if rules.provider_caps is None else list(rules.provider_caps),
    }


def outcome(policy: Policy) -> dict[str, Any]:
    """Counts at the end of 2022, public money in CNY, and the way there by month."""
    scenario = scenario_of(policy)
    table = run(scenario)
    enterprises, units = (table.values[name] for name in ("enterprises_on_cloud", "units_on_cloud"))
    return {
        "policy": {
            "shares": dict(scenario.shares),
            "pools": policy.pools,
            "centres": len(scenario.centres),
            "rules": policy.rules,
        },
        "rules": [_described(name) for name in get_args(RulesName)],
        "targets": [
            {"name": name, "value": int(table.values[name][-1]), "reached_in": table.reached_in(name)}
            for name in CORE_TARGETS
        ],
        "vouchers_cny": table.vouchers_cny,
        "awards_cny": int(table.awards[-1]),
        "months": [[LABELS[month], int(enterprises[month]), int(units[month])] for month in range(MONTHS)],
    }


def main() -> None:
    """Exits with 2 and a sentence when the policy cannot be read."""
    try:
        policy = msgspec.json.decode(sys.stdin.buffer.read(), type=Policy)
    except msgspec.DecodeError as error:
        print(f"The policy cannot be read: {error}.", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    sys.stdout.buffer.write(msgspec.json.encode(outcome(policy)))


if __name__ == "__main__":
    main()
