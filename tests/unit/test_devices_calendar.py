"""Working days, shifts and what a works draws on Saturdays, Sundays, holidays and at noon."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest
from qilu_devices.calendar import HOLIDAY, SATURDAY, SUNDAY, WORKDAY, day_of, is_heating_season, kind_of
from qilu_devices.noise import Streams, keys_of
from qilu_devices.shifts import Shifts

UNITS = 2000


def at(text: str) -> int:
    """UTC milliseconds of a local time."""
    local = datetime.fromisoformat(text).replace(tzinfo=UTC) - timedelta(hours=8)
    return round(local.timestamp() * 1000)


def kind(text: str) -> int:
    return int(kind_of(day_of(np.array([at(f"{text}T12:00")])))[0])


@pytest.mark.parametrize(
    ("day", "wanted"),
    [
        ("2018-02-16", HOLIDAY),  # the Spring Festival
        ("2018-02-24", WORKDAY),  # a Saturday worked for it
        ("2020-01-31", HOLIDAY),  # prolonged
        ("2022-04-05", HOLIDAY),
        ("2022-06-03", HOLIDAY),
        ("2023-09-29", HOLIDAY),  # Mid-Autumn
        ("2024-10-07", HOLIDAY),
        ("2024-10-12", WORKDAY),
        ("2030-02-03", HOLIDAY),
        ("2035-02-08", HOLIDAY),
        ("2019-03-09", SATURDAY),
        ("2019-03-10", SUNDAY),
        ("2019-03-11", WORKDAY),
        ("2050-03-12", SATURDAY),  # beyond the table weekdays count alone
    ],
)
def test_days_are_what_the_calendar_says(day: str, wanted: int) -> None:
    assert kind(day) == wanted


def test_every_year_has_its_seven_holidays_and_one_spring_festival_in_its_months() -> None:
    for year in range(2017, 2036):
        days = [date(year, 1, 1) + timedelta(days=n) for n in range(365)]
        off = [day for day in days if kind(day.isoformat()) == HOLIDAY]
        assert 19 <= len(off) <= 33, year
        spring = [day for day in off if date(year, 1, 15) < day < date(year, 3, 1)]
        assert 7 <= len(spring) <= 10, year


def test_the_heating_season_is_four_winter_months() -> None:
    days = day_of(
        np.array([at(f"2022-{day}T12:00") for day in ("11-20", "01-10", "03-10", "03-20", "11-10")])
    )
    assert is_heating_season(days).tolist() == [True, True, True, False, False]


def shifts(pattern: int | None = None) -> tuple[Shifts, np.ndarray]:
    made = Shifts(*(Streams(keys_of(5, [f"{name}{n}" for n in range(UNITS)])) for name in "ue"))
    return made, np.ones(UNITS, bool) if pattern is None else made._pattern == pattern


def share(made: Shifts, which: np.ndarray, text: str) -> float:
    return float(made.running(np.full(UNITS, at(text)))[which].mean())


def test_works_of_one_and_two_shifts_rest_as_measured() -> None:
    made, _ = shifts()
    works = made._pattern != 2
    weekday = share(made, works, "2019-03-13T10:00")
    assert weekday > 0.95
    # UCI steel industry: .58, .28 and .10-.13 of a weekday.
    assert share(made, works, "2019-03-16T10:00") / weekday == pytest.approx(0.58, abs=0.1)
    assert share(made, works, "2019-03-17T10:00") / weekday == pytest.approx(0.28, abs=0.1)
    assert share(made, works, "2019-05-01T10:00") / weekday == pytest.approx(0.115, abs=0.1)


def test_few_works_run_around_the_lunar_new_year() -> None:
    made, _ = shifts()
    works = made._pattern != 2
    for day in ("02-04", "02-05", "02-09"):
        assert share(made, works, f"2019-{day}T10:00") < 0.3
    assert share(made, works, "2019-02-25T10:00") > 0.9
    assert 0.6 < share(made, ~works, "2019-02-05T10:00") < 0.9


def test_one_shift_breaks_for_lunch_and_three_run_through() -> None:
    made, one = shifts(0)
    assert share(made, one, "2019-03-13T12:20") == pytest.approx(0.33, abs=0.12)
    assert share(made, one, "2019-03-13T15:00") > 0.95
    assert share(made, made._pattern == 2, "2019-03-13T03:00") > 0.95
    assert share(made, made._pattern == 1, "2019-03-13T23:30") == 0.0


def test_units_are_stopped_for_maintenance_now_and_then() -> None:
    made, _ = shifts()
    stopped = [1.0 - share(made, made._pattern == 2, f"2019-03-{day:02}T14:00") for day in range(1, 29)]
    assert 0.001 < np.mean(stopped) < 0.02


def test_a_moment_is_the_same_whenever_and_in_whatever_company_it_is_asked() -> None:
    made, _ = shifts()
    times = at("2019-03-13T10:00") + np.arange(UNITS) * 3_600_000
    wanted = made.running(times)
    made.running(times + 86_400_000)
    assert (made.running(times) == wanted).all()
    keys = [Streams(keys_of(5, [f"{name}7"])) for name in "ue"]
    assert Shifts(*keys).running(times[7:8])[0] == wanted[7]
