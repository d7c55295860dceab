"""The platform's own measurements, and the programme's milestones."""

from __future__ import annotations

from qilu_contract.catalogue.places import PROVINCE
from qilu_platform.counting.figures import Milestones, OwnFigures, milestones
from qilu_platform.metrics import Metrics


def test_a_milestone_is_marked_once_when_it_is_passed() -> None:
    seen = Milestones()

    def at(count: int) -> list[tuple[str, object]]:
        points = seen.points({("province", PROVINCE, "centres"): count}, 5)
        return [(point.tags[0], point.fields["reached"]) for point in points]

    assert at(3) == []  # it was so before anybody looked
    assert at(9) == [("centres", 8)]
    assert at(9) == []
    assert at(30) == [("centres", 30)]
    assert milestones(30) == [1, 8, 10, 15, 22, 30]


def test_rates_and_latency_are_of_what_came_since_the_point_before() -> None:
    metrics = Metrics()
    own = OwnFigures(metrics)
    metrics.requests.labels("/v1/units", "GET", "200").inc(3)
    metrics.requests.labels("/v1/units", "GET", "500").inc()
    metrics.seconds.labels("/v1/units").observe(0.2)
    first = own.point(0, 0.001, {"imports_open": 1}).fields
    assert (first["requests"], first["errors"]) == (4, 1)
    assert (first["latency_ms"], first["counts_read_ms"], first["imports_open"]) == (200.0, 1.0, 1)
    second = own.point(10_000, 0.001, {}).fields
    assert second["requests_per_s"] == 0
    assert "latency_ms" not in second
