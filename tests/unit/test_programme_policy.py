"""A policy in five figures is a scenario."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import get_args

from qilu_platform.models import policy as models
from qilu_programme.policy import MORE_OPEN, Policy, RulesName, outcome, scenario_of
from qilu_programme.scenario import load_scenario

PLAN = load_scenario()


def test_missing_figures_are_those_of_the_plan() -> None:
    assert replace(scenario_of(Policy()), name=PLAN.name) == PLAN
    changed = scenario_of(Policy(shares={"county": 0.0}))
    assert changed.shares == {"province": 0.1, "city": 0.1, "county": 0.0}
    assert (changed.pools, changed.centres, changed.seed) == (PLAN.pools, PLAN.centres, PLAN.seed)


def test_budgets_are_multiples_of_the_plans() -> None:
    pools = scenario_of(Policy(pools=1.5)).pools
    assert pools["city"][2018] == 21_000_000
    assert pools.keys() == PLAN.pools.keys()


def test_fewer_centres_are_the_first_and_more_are_where_there_is_none() -> None:
    assert scenario_of(Policy(centres=4)).centres == PLAN.centres[:4]
    more = scenario_of(Policy(centres=60)).centres
    assert more[:30] == PLAN.centres
    assert len({centre.county for centre in more}) == 60
    assert {centre.opens for centre in more[30:]} == {MORE_OPEN}


def test_a_policy_can_have_the_vouchers_of_another_scenario_with_the_plans_money() -> None:
    assert get_args(RulesName) == get_args(models.RulesName)
    for name in get_args(RulesName):
        policy, shipped = scenario_of(Policy(shares={"county": 0.0}, rules=name)), load_scenario(name)
        assert (policy.rules, policy.caps) == (shipped.rules, shipped.caps)
        assert (policy.pools, policy.shares["county"]) == (PLAN.pools, 0.0)
    found = outcome(Policy(rules="guizhou-second-voucher"))
    assert found["policy"]["rules"] == "guizhou-second-voucher"
    own, guangdong, guizhou = (models.RulesOut(**each) for each in found["rules"])
    assert (own.cap_cny, own.window) == (40_000, (1, 12))
    assert own.later_cap_cny is own.provider_caps_cny is None
    assert (guangdong.sectors, guangdong.window) == (["industry"], (5, 9))
    assert (guizhou.cap_cny, guizhou.later_cap_cny) == (50_000, 30_000)
    assert found["vouchers_cny"] > 0


def test_a_policy_that_cannot_be_read_is_one_sentence() -> None:
    command = [sys.executable, "-m", "qilu_programme.policy"]
    said = subprocess.run(command, input=b'{"pool": 1}', capture_output=True, timeout=60, check=False)
    assert said.returncode == 2
    assert said.stderr.decode().startswith("The policy cannot be read: ")
    assert said.stderr.count(b"\n") == 1
