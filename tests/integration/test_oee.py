"""OEE and states by the API, on both stores: a unit's from its readings, a place's and an enterprise's from
roll-ups, and both equal."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from pydantic import SecretStr
from qilu_contract.columns import Series, of_points
from qilu_contract.storage import Point
from qilu_contract.store import Store
from qilu_devices.scenario import parse_scenario
from qilu_devices.simulation import samples
from qilu_gateway.rollups.class_rollups import ClassRollup
from qilu_platform.service import PlatformService
from qilu_platform.settings import Settings

ADMIN = "the-admin-key-of-this-test"
MINUTES = 30
START_MS = 1_767_582_000_000  # 5 January 2026, 11:00 in Shanghai
END_MS = START_MS + MINUTES * 60_000
UNITS = 3
SCENARIO = "name: looms\nunits: 3\nseed: 10\nclasses: {loom: 1}\ncities: {'370200': 1}\n"
OWNER = {"id": "my-works", "name": "My works", "county": "370202", "industry": "C17"}
TAGS = ("370200", "370202", "C17", "my-works")


def readings() -> dict[str, list[Point]]:
    """Half an hour of looms that the simulation made, without the first minute's silence of a new unit."""
    made = samples(parse_scenario(SCENARIO, "looms.yaml"), 10, START_MS, UNITS, None, END_MS)
    return {
        f"loom-{number}": [
            Point("loom", (*TAGS, f"loom-{number}"), ts_ms, fields)
            for ts_ms, fields in rows
            if ts_ms < END_MS
        ]
        for number, rows in enumerate(made.values())
    }


def rolled_up(points: list[Point]) -> list[Point]:
    rollup, series, numbers = ClassRollup("loom"), Series(), dict[str, int]()
    for columns in of_points(points, series, numbers):
        own = np.zeros(len(series), dtype=np.int32)
        own[:] = np.arange(1, len(series) + 1)
        rollup.number(series, np.arange(rollup.known, len(series), dtype=np.int32))
        rollup.add(own[columns.rows], columns.ts_ms, columns.names, columns.values, 1.0)
    return [
        point
        for minute in rollup.open_minutes()
        for point in rollup.sum_up(rollup.cut([minute]), "g")
        if point.measurement == "effectiveness"
    ]


async def test_a_unit_s_states_and_the_roll_ups_agree_with_the_simulation(
    store: Store, tmp_path: Path
) -> None:
    made = readings()
    every = [point for points in made.values() for point in points]
    await store.write(every)
    await store.write(rolled_up(every))
    await store.write([*pasteuriser("pasteuriser-1"), *pasteuriser("pasteuriser-2"), alarm("pasteuriser-1")])
    told = Settings(db_url=f"sqlite:///{tmp_path}/registry.sqlite", port=0, api_key=SecretStr(ADMIN))
    headers = {"Authorization": f"Bearer {ADMIN}"}
    window = {"from": START_MS, "to": END_MS}
    async with (
        PlatformService(told, store) as service,
        httpx.AsyncClient(base_url=service.url, headers=headers, timeout=60.0, trust_env=False) as api,
    ):
        assert (await api.post("/v1/enterprises", json=OWNER)).status_code == 201
        for id_ in [*made, "motor-1", "pasteuriser-1", "pasteuriser-2"]:
            body = {"id": id_, "class": id_.split("-")[0], "enterprise": "my-works"}
            assert (await api.post("/v1/units", json=body)).status_code == 201
        answers = [await got(api, f"/v1/units/{id_}/oee", window) for id_ in made]
        for answer, points in zip(answers, made.values(), strict=True):
            speeds = [(point.ts_ms, float(point.fields["speed"])) for point in points]
            stood_ms = sum(b - a for (a, speed), (b, _) in pairwise(speeds) if not speed)
            assert answer["planned_s"] == (speeds[-1][0] - speeds[0][0]) / 1000
            assert answer["planned_s"] - answer["run_s"] == pytest.approx(stood_ms / 1000)
            states = answer["states"]
            assert all(a["to_ms"] == b["from_ms"] for a, b in pairwise(states))
            stops = [each for each in states if each["state"] == "stopped"]
            assert sum(each["to_ms"] - each["from_ms"] for each in stops) == stood_ms
            explained = [
                each for each in stops if each["reason"] in ("warp_stops", "weft_stops", "other_stops")
            ]
            assert len(explained) >= len(stops) - 1  # the last one may not be reported yet
            ratio = answer["availability"] * answer["effectiveness"] * answer["quality"]
            assert answer["oee"] == pytest.approx(ratio, abs=0.001)
        assert sum(each["state"] == "stopped" for answer in answers for each in answer["states"]) == 8
        whole = await got(api, "/v1/oee", window | {"class": "loom"})
        city = await got(api, "/v1/oee", window | {"class": "loom", "place": "370200"})
        own = await got(api, "/v1/oee", window | {"class": "loom", "enterprise": "my-works"})
        assert whole == city == own
        for name in ("planned_s", "run_s", "ideal_s", "good_s"):
            assert whole[name] == pytest.approx(sum(each[name] for each in answers), abs=0.5)
        assert [each["reason"] for each in whole["stops"]] == [*CATALOGUE_STOPS, None]
        assert len(whole["rows"]) == pytest.approx(MINUTES, abs=1)

        await assert_a_stop_without_a_reported_reason_has_that_of_an_alarm(api)
        half = await got(api, "/v1/units/loom-0/oee", window | {"shift": "11:00-11:15"})
        assert half["planned_s"] == pytest.approx(900, abs=2)
        for path, query, sentence in (
            ("/v1/units/motor-1/oee", {}, "reports no states and cycles"),
            ("/v1/oee", {"class": "motor"}, "reports no states and cycles"),
            ("/v1/units/loom-0/oee", {"from": START_MS, "to": START_MS + 90_000_000}, "a day at most"),
            ("/v1/units/loom-0/oee", {"shift": "nights"}, "two times of the day"),
            ("/v1/oee", {"class": "loom", "place": "370200", "enterprise": "my-works"}, "either"),
        ):
            refused = await api.get(path, params=query)
            assert (refused.status_code, sentence in refused.json()["detail"]) == (422, True), refused.text


CATALOGUE_STOPS = ("warp_stops", "weft_stops", "other_stops")


def pasteuriser(id_: str) -> list[Point]:
    """A quarter of an hour of readings: without flow from minute 5 to 10."""

    def point(second: int, flow: float) -> Point:
        fields = {"product_flow": flow, "diversion": 0.0, "hold_temp": 73.0}
        return Point("pasteuriser", (*TAGS, id_), START_MS + second * 1000, fields)

    return [point(second, float(not 300 <= second < 600)) for second in range(0, 900, 10)]


def alarm(id_: str) -> Point:
    """It begins before the flow stops, and ends a minute later."""
    fields = {"open": 0, "value": 71.0, "limit": 72.0, "worst": 70.0, "ratio": 1.1, "duration_s": 60.0}
    return Point("alarm", ("370000", *TAGS, id_, "pasteuriser", "hold_temp"), START_MS + 295_000, fields)


async def assert_a_stop_without_a_reported_reason_has_that_of_an_alarm(api: httpx.AsyncClient) -> None:
    for id_, kind, reason in (("pasteuriser-1", "alarm", "hold_temp"), ("pasteuriser-2", None, None)):
        found = await got(api, f"/v1/units/{id_}/oee", {"from": START_MS, "to": START_MS + 900_000})
        _, stop, _ = found["states"]
        assert [each["state"] for each in found["states"]] == ["running", "stopped", "running"]
        assert (stop["reason_kind"], stop["reason"]) == (kind, reason)
        assert stop["to_ms"] - stop["from_ms"] == 300_000


async def got(api: httpx.AsyncClient, path: str, query: dict[str, Any]) -> Any:
    answer = await api.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()
