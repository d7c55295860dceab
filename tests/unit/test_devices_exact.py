"""Elementary functions that every processor computes alike, and samples that are alike on every processor."""

import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__
from qilu_devices import exact

PROGRAM = """
import hashlib, json, sys
import numpy as np
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_devices.classes import KERNELS
from qilu_devices.digests import combined_digest, unit_digests
from qilu_devices.kernel import severities
from qilu_devices.noise import Streams, keys_of
from qilu_devices.scenario import load_scenario, parse_scenario

UNITS, STEPS = 64, 40
found = {}
for name, equipment in CATALOGUE.items():
    ids = [f"u{n}" for n in range(UNITS)]
    units, enterprises = Streams(keys_of(1, ids)), Streams(keys_of(2, ids))
    kernel = KERNELS[name](units, enterprises, float(equipment.base_interval_s))
    hash_ = hashlib.sha256()
    kinds = enumerate(equipment.faults)
    ill = severities({
        fault.name: np.arange(UNITS) % (place + 2) / (place + 2) for place, fault in kinds
    })
    for k in range(STEPS):
        times = np.full(UNITS, 1_509_328_800_000 + k * 2_500_000, dtype=np.int64)
        step = kernel.step(k, times, ill) if k % 4 > 1 else kernel.step(k, times)
        for signal in sorted(step):
            hash_.update(np.ascontiguousarray(step[signal]).tobytes())
    found[name] = hash_.hexdigest()
scenario = parse_scenario(load_scenario().text.replace("rate: 1\\n", "rate: 300\\n"), "x")
found["run"] = combined_digest(
    unit_digests(scenario, 1122, 1_509_328_800_000, 150, 1_509_328_830_000)
)
print(json.dumps(found))
"""


@given(st.floats(-600.0, 600.0))
def test_exp_is_the_exponential(x: float) -> None:
    assert float(exact.exp(x)) == pytest.approx(math.exp(x), rel=2e-15 * (1.0 + abs(x)))


@given(st.floats(1e-300, 1e300))
def test_log_is_the_logarithm(x: float) -> None:
    assert float(exact.log(x)) == pytest.approx(math.log(x), rel=1e-14, abs=1e-15)


@given(st.floats(1e-3, 1e3), st.floats(-3.0, 3.0))
def test_powers(x: float, y: float) -> None:
    assert float(exact.power(x, y)) == pytest.approx(x**y, rel=1e-13)
    assert float(exact.power(1.0, y)) == 1.0


def test_the_cosine_is_close_and_exact_at_quarter_turns() -> None:
    turns = np.linspace(-3.0, 3.0, 10_001)
    assert np.abs(exact.cos_turns(turns) - np.cos(2.0 * np.pi * turns)).max() < 0.002
    assert exact.cos_turns([0.0, 0.25, 0.5, 0.75, 1.0]).tolist() == [1.0, 0.0, -1.0, 0.0, 1.0]


@given(st.floats(-10.0, 10.0))
def test_a_factor_of_sway_is_never_negative(x: float) -> None:
    assert float(exact.sway(np.float64(x))) > 0.0


def run(disabled: str) -> dict[str, str]:
    environment = os.environ | {"NPY_DISABLE_CPU_FEATURES": disabled}
    # The C library picks its own variants of exp and log; this hides the same features from it.
    if disabled:
        environment["GLIBC_TUNABLES"] = "glibc.cpu.hwcaps=-AVX2,-AVX512F,-FMA,-FMA4,-AVX"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_every_class_makes_the_same_bits_with_and_without_wide_instructions() -> None:
    here = [name for name in __cpu_dispatch__ if __cpu_features__.get(name)]
    if not here:
        pytest.skip("numpy finds no instructions here that it could do without")
    assert run(" ".join(here)) == run("")
