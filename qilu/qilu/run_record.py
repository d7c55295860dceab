"""Record of a live run of the programme: one file, from which it continues after a stop or a crash, and from
which it can be verified."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Self

import msgspec
from qilu_common.private_files import write_private
from qilu_contract.errors import ConfigError
from qilu_programme.scenario import Scenario, parse_scenario

FILE_NAME = "run.json"
KIND = "programme"


class MonthRecord(msgspec.Struct):
    """A finished month: the platform's counts at its end, which equalled the model's, and the time of
    that."""

    month: str
    counts: dict[str, int]
    seconds: float


class RunRecord(msgspec.Struct):
    """The state of a run. `seconds`, `stages` (by name) and `cpu_s` are of all its processes, crashed ones up
    to their last month; `cells` (units that must be stored, by class and county) is there at the end."""

    kind: str
    scenario: str
    text: str
    seed: int
    scale: float
    units: int
    enterprises: int
    months: list[MonthRecord] = []
    stages: dict[str, float] = {}
    seconds: float = 0.0
    cpu_s: float = 0.0
    peak_rss_mb: int = 0
    starts: int = 0
    cells: dict[str, dict[str, int]] = {}

    @classmethod
    def load(cls, path: Path) -> Self:
        """From the file, or from the folder that it is in. Raises ConfigError when it is no such file."""
        file = path / FILE_NAME if path.is_dir() else path
        try:
            return msgspec.json.decode(file.read_bytes(), type=cls)
        except (OSError, msgspec.DecodeError) as error:
            raise ConfigError(
                f"{file} is no record of a live run ({error}): it is made by `qilu programme run --live`."
            ) from error

    def save(self, folder: Path) -> None:
        """Save durably and atomically."""
        write_private(folder / FILE_NAME, msgspec.json.encode(self))

    def loaded(self) -> Scenario:
        """The scenario as it was run."""
        scenario = parse_scenario(self.text, f"the scenario {self.scenario} of the run")
        return replace(scenario, seed=self.seed)


def is_live_run(path: Path) -> bool:
    """Whether that is a live run's record, and not a manifest of simulated equipment."""
    file = path / FILE_NAME if path.is_dir() else path
    try:
        head = msgspec.json.decode(file.read_bytes(), type=dict[str, msgspec.Raw])
    except (OSError, msgspec.DecodeError):
        return False
    return bytes(head.get("kind", b"")) == msgspec.json.encode(KIND)
