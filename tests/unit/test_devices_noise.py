import numpy as np
import pytest
from qilu_common.splitmix import mix
from qilu_devices.noise import NORMAL_BOUND, Autoregression, Streams, keys_of


def streams(names: list[str], seed: int = 7) -> Streams:
    return Streams(keys_of(seed, names))


def test_normal_numbers_have_mean_0_variance_1_and_a_bound() -> None:
    draws = np.concatenate([streams([f"u{i}" for i in range(2000)]).normal("a", k) for k in range(50)])
    assert abs(draws.mean()) < 0.02
    assert abs(draws.std() - 1.0) < 0.02
    assert np.abs(draws).max() <= NORMAL_BOUND


def test_a_units_numbers_do_not_depend_on_the_other_units_or_their_order() -> None:
    many = streams(["a", "b", "c"])
    few = streams(["c", "a"])
    assert many.normal("wind", 12345)[[2, 0]].tolist() == few.normal("wind", 12345).tolist()
    assert many.uniform("size")[[2, 0]].tolist() == few.uniform("size").tolist()


def test_seed_stream_unit_and_step_each_change_the_numbers() -> None:
    base = streams(["a"]).normal("x", 0)[0]
    others = [
        streams(["a"], seed=8).normal("x", 0)[0],
        streams(["b"]).normal("x", 0)[0],
        streams(["a"]).normal("y", 0)[0],
        streams(["a"]).normal("x", 1)[0],
    ]
    assert len({base, *others}) == 5


def test_any_integer_is_a_seed_and_any_step_is_taken() -> None:
    assert np.isfinite(streams(["a"], seed=-1).normal("x", 2**63)[0])
    assert np.isfinite(streams(["a"], seed=2**80).normal("x", 2**64 - 1)[0])


def test_the_hash_is_splitmix64() -> None:
    # The first output of the published generator for the state 0.
    assert int(mix(np.zeros(1, dtype=np.uint64))[0]) == 0xE220A8397B1DCDAF


def test_picks_follow_their_weights() -> None:
    picks = streams([f"u{i}" for i in range(20_000)]).pick("p", [1.0, 2.0, 3.0], [1.0, 0.0, 3.0])
    assert set(picks) == {1.0, 3.0}
    assert np.mean(picks == 1.0) == pytest.approx(0.25, abs=0.02)


def test_an_autoregression_is_stationary_and_remembers_as_told() -> None:
    process = Autoregression(streams([f"u{i}" for i in range(4000)]), "x", 10.0, 100.0)
    values = np.array([process.step(k).copy() for k in range(30)])
    assert values[0].std() == pytest.approx(1.0, abs=0.05)
    assert values[-1].std() == pytest.approx(1.0, abs=0.05)
    assert np.corrcoef(values[5], values[6])[0, 1] == pytest.approx(np.exp(-0.1), abs=0.02)
    assert np.corrcoef(values[5], values[15])[0, 1] == pytest.approx(np.exp(-1.0), abs=0.05)
