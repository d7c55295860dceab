"""The cities' weather: measured spread and memory, shared by neighbours, the same for every process."""

import numpy as np
import pytest
from qilu_contract.catalogue.places import CITIES
from qilu_devices.weather import Enterprises, Weather, weather_of

START_MS = 1_483_200_000_000  # 1 January 2017, 00:00 in Shandong
DAY_MS = 86_400_000
ALL = np.arange(len(CITIES), dtype=np.int8)


def hours(weather: Weather, days: int, step_h: int) -> np.ndarray:
    """Step, city."""
    return np.array(
        [
            weather.outdoor_c(np.full(len(ALL), START_MS + n * step_h * 3_600_000))
            for n in range(days * 24 // step_h)
        ]
    )


def test_climate_is_warm_in_july_and_in_the_afternoon_and_mild_by_the_sea() -> None:
    series = hours(Weather(4, ALL), 365, 3)
    assert series.mean() == pytest.approx(13.4, abs=1.0)
    january, july = series[: 31 * 8].mean(axis=0), series[181 * 8 : 212 * 8].mean(axis=0)
    assert ((july - january > 20.0) & (july - january < 34.0)).all()
    by_hour = series.reshape(-1, 8, len(ALL)).mean(axis=0)
    assert (by_hour.argmax(axis=0) == 5).all()  # 15 h
    range_k = by_hour.max(axis=0) - by_hour.min(axis=0)
    names = list(CITIES)
    assert range_k[names.index("370200")] < range_k[names.index("371500")]  # Qingdao, Liaocheng


def test_wind_is_normal_and_near_cities_share_it() -> None:
    weather = Weather(6, ALL)
    series = np.array([weather.wind(np.full(len(ALL), START_MS + n * 3 * 3_600_000)) for n in range(3000)])
    assert series.std() == pytest.approx(1.0, abs=0.1)
    together = np.corrcoef(series.T)
    names = list(CITIES)
    near = together[names.index("370100"), names.index("370900")]  # Jinan, Tai'an
    far = together[names.index("371000"), names.index("371700")]  # Weihai, Heze
    assert near > 0.75
    assert 0.1 < far < near - 0.2


def test_all_classes_of_a_city_have_its_weather_at_any_time_and_in_any_company() -> None:
    ids = ["370100-e000001", "371000-e000001", "370102-e000009"]
    weather = weather_of(Enterprises(3, ids))
    times = START_MS + np.array([5, 500_000, 40 * DAY_MS])
    whole = weather.outdoor_c(times), weather.wind(times)
    for n, name in enumerate(ids):
        alone = weather_of(Enterprises(3, [name]))
        assert alone.outdoor_c(times[n : n + 1])[0] == whole[0][n]
        assert alone.wind(times[n : n + 1])[0] == whole[1][n]
    same = weather.outdoor_c(np.full(3, START_MS))
    assert same[0] == same[2] != same[1]
    assert weather_of(Enterprises(4, ids)).outdoor_c(times)[0] != whole[0][0]
