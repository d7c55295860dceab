"""Settings of a run, and its reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from qilu_common.broker import BrokerAddress
from qilu_common.cells import Cells
from qilu_contract.errors import ConfigError
from qilu_contract.wire.clock import wall_ms

from qilu_devices.commands import ScheduledCommand
from qilu_devices.fleet import Shard, Unit
from qilu_devices.run.manifest import Manifest
from qilu_devices.scenario import Scenario
from qilu_devices.simulation import fleet_of
from qilu_devices.transport.episodes import Kind

DRAIN_S = 60.0


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Settings of a run. `broker` and `platform` are URLs; without `platform` nothing is registered, and
    without `api_key` the secret QILU_API_KEY is used. `seed`, `units` and `start_ms` override the scenario's;
    without any start the run begins now. `speed`: simulated seconds per second, None for full speed. `for_s`:
    simulated duration, None for no end. `state`: the directory of the manifest and of the ground truth of
    faults. `commands`: those of an earlier run, to be repeated at their times. `backfill`: the readings are
    of the past, and no clock is announced. `resume`: the manifest of the same run, which an earlier process
    did not finish: readings that it published are not published again."""

    broker: str
    """Unless there are `cells`, whose brokers are used."""
    scenario: Scenario
    platform: str | None = None
    api_key: str | None = None
    seed: int | None = None
    units: int | None = None
    start_ms: int | None = None
    speed: float | None = 1.0
    for_s: float | None = None
    shard: Shard = Shard()  # noqa: RUF009  # frozen
    state: Path | None = None
    drain_s: float = DRAIN_S
    commands: tuple[ScheduledCommand, ...] = ()
    backfill: bool = False
    resume: Manifest | None = None
    gateways: int = 1
    """Number of gateways that share the counties: each edge node follows the gateway of its county."""
    cells: Cells | None = None
    """Each edge node publishes in the cell of its county; then `gateways` is the number of all shards."""
    strict: bool = False
    """Sparkplug to the letter, at QoS 0: messages that the broker loses are lost."""

    def check(self) -> None:
        """Raises ConfigError for settings that cannot work."""
        if self.unit_count < 1:
            raise ConfigError("A run needs at least one unit: give --units 1 or more.")
        if self.speed is not None and not self.speed > 0.0:
            raise ConfigError("The speed must be above 0, or max.")

    @property
    def run_seed(self) -> int:
        return self.scenario.seed if self.seed is None else self.seed

    @property
    def unit_count(self) -> int:
        """Units of the whole fleet, of which this process may simulate a shard."""
        return self.scenario.units if self.units is None else self.units

    @property
    def fixed_start_ms(self) -> int | None:
        """None for a run that begins now."""
        return self.scenario.start_ms if self.start_ms is None else self.start_ms

    def brokers(self) -> Brokers:
        """Raises ConfigError."""
        brokers = Brokers(self.broker, self.cells)
        for broker in brokers.all if Kind.ATTACK in self.scenario.transport else ():
            if not broker.is_loopback:
                raise ConfigError(
                    f"The scenario attacks the broker at {broker}: 'attack' runs only against a broker on "
                    "loopback addresses of this machine."
                )
        return brokers

    def fleet(self) -> list[Unit]:
        return fleet_of(self.scenario, self.run_seed, self.unit_count, self.shard)


class Brokers:
    """The broker of each county."""

    def __init__(self, broker: str, cells: Cells | None) -> None:
        """Raises ConfigError for a URL that names no broker."""
        self._cells = cells
        urls = [broker] if cells is None else [cell.broker for cell in cells.cells]
        self._by_url = {url: BrokerAddress.from_url(url) for url in urls}

    @property
    def all(self) -> list[BrokerAddress]:
        return list(self._by_url.values())

    def of(self, county: str) -> BrokerAddress:
        if self._cells is None:
            return self.all[0]
        return self._by_url[self._cells.of(county).broker]


@dataclass(slots=True)
class Reached:
    """Progress of a run in simulated time (ms). `until_ms`: the time of the last sample. `whole_until_ms`:
    every reading up to here was made. `resumed_until_ms`: the progress of an earlier process of the run."""

    start_ms: int
    until_ms: int
    whole_until_ms: int
    resumed_until_ms: int = -1

    @classmethod
    def beginning(cls, config: RunConfig) -> Reached:
        fixed_ms = config.fixed_start_ms
        start_ms = wall_ms() if fixed_ms is None else fixed_ms
        nodes = {} if config.resume is None else config.resume.nodes
        resumed_ms = max((node.acked_through_ms for node in nodes.values()), default=-1)
        return cls(start_ms, start_ms, start_ms - 1, resumed_ms)

    @property
    def catching_up(self) -> bool:
        """Whether the run has not reached the progress of an earlier process yet."""
        return self.until_ms <= self.resumed_until_ms


@dataclass(frozen=True, slots=True)
class RunReport:
    """Report of a run, during it or at its end. A reading is one unit at one time. `readings_acked` counts
    those that the broker acknowledged, once each, births included; made = acked + dropped + pending."""

    units: int
    enterprises: int = 0
    readings_made: int = 0
    readings_acked: int = 0
    pending: int = 0
    dropped: int = 0
    births: int = 0
    nodes_online: int = 0
    start_ms: int = 0
    until_ms: int = 0
    seconds: float = 0.0
    speed: float | None = None
    late_s: float = 0.0
    """How far simulated time lags behind that speed, because it waits for a gateway."""


@dataclass(frozen=True, slots=True)
class RunProgress:
    """`registering` names what is being registered (with done and total); None once the run publishes. Then
    done and total are readings acknowledged and made; of a backfill, simulated seconds."""

    registering: str | None
    done: int
    total: int
    report: RunReport | None


Progress = Callable[[RunProgress], None]
