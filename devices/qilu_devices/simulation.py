"""The simulation: every reading of a fleet, in time order, as a pure function of scenario, seed, start, units
and commands.

Sample 0 of every unit is taken at the start and holds all signals, so every unit can be born at once and no
run reaches back into an earlier one. From then on each unit is sampled on a separate grid: its class's base
interval Δ, shifted by a phase in [0, Δ) that is a multiple of 100 ms and comes from its id, so that a fleet's
readings are spread over time. Sample k holds the signals whose interval, in multiples of Δ, divides k. (The
first step is shorter than Δ; the kernels take it for a whole one.)
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count, pairwise
from operator import itemgetter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from qilu_common.splitmix import text_key
from qilu_contract.catalogue.classes import CATALOGUE, EquipmentClass
from qilu_contract.errors import ConfigError
from qilu_contract.readings import Value

from qilu_devices.classes import KERNELS
from qilu_devices.commands import ScheduledCommand, with_commands
from qilu_devices.controls import Controls
from qilu_devices.faults import NO_FAULTS, FaultPlan, Schedule
from qilu_devices.fleet import Shard, Unit, make_units
from qilu_devices.kernel import Kernel, Times
from qilu_devices.noise import Streams, keys_of
from qilu_devices.scenario import Scenario
from qilu_devices.sensing import sensed
from qilu_devices.visibility import Watch
from qilu_devices.weather import Enterprises

PHASE_STEP_MS = 100
MOMENT = 10_000
"""Maximum number of readings per moment. All units have their first reading at the start, and a large fleet
has many."""
TOGETHER = 4096
"""Units of a class that are stepped together: few enough that a step's arrays stay in the processor's cache,
and that a large fleet does not hold a step of all its units at once."""


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """The signals of a reading: names, and their positions in the class's signals. Shared by all readings
    with the same signals."""

    names: tuple[str, ...]
    positions: tuple[int, ...]


class Sample(NamedTuple):
    """A simulated reading; `values` are in the order of `shape.names`, rounded to the catalogue's
    resolution."""

    unit: Unit
    ts_ms: int
    shape: Shape
    values: tuple[float, ...]

    def named(self) -> dict[str, Value]:
        return dict(zip(self.shape.names, self.values, strict=True))


class Moment(NamedTuple):
    """Readings of one class at one millisecond: all, or MOMENT of them."""

    ts_ms: int
    samples: list[Sample]


def phases_ms(units: Sequence[Unit], base_ms: int) -> Times:
    """Phase of each unit in the base interval; it depends on the unit's id only, not on the seed."""
    slots = base_ms // PHASE_STEP_MS
    return np.array([text_key(f"phase/{unit.id}") % slots * PHASE_STEP_MS for unit in units], dtype=np.int64)


def first_times(units: Sequence[Unit], base_ms: int, start_ms: int) -> Times:
    """Each unit's first grid time after the start."""
    return start_ms + 1 + (phases_ms(units, base_ms) - start_ms - 1) % base_ms


@cache
def _shape(names: tuple[str, ...], positions: tuple[int, ...]) -> Shape:
    return Shape(names, positions)


def shape_of(equipment: EquipmentClass, positions: tuple[int, ...]) -> Shape:
    """The shape of readings with these signals of a class, given by position in ascending order."""
    return _shape(tuple(equipment.signals[i].name for i in positions), positions)


def shape_at(equipment: EquipmentClass, k: int) -> Shape:
    """The shape of sample k: signals whose interval, in multiples of the shortest, divides k."""
    base_s = equipment.base_interval_s
    return shape_of(
        equipment,
        tuple(i for i, signal in enumerate(equipment.signals) if k % (signal.interval_s // base_s) == 0),
    )


class Block(NamedTuple):
    """One step of some units of a class, as arrays that must not be changed."""

    units: Sequence[Unit]
    times: Times
    """Time of each unit, ascending (UTC, ms)."""
    shape: Shape
    rows: NDArray[np.float64]
    """A row for each unit, a column for each name of the shape; rounded to the catalogue's resolution."""


class _Group(NamedTuple):
    """The units of a run that are sampled at one millisecond, as a slice, and their step: a moment that has
    not been computed yet."""

    ts_ms: int
    run: ClassRun
    k: int
    begin: int
    end: int

    def moment(self) -> Moment:
        return Moment(self.ts_ms, self.run.samples(self))


class ClassRun:
    """Units of one class, stepped together."""

    def __init__(
        self,
        equipment: EquipmentClass,
        units: Sequence[Unit],
        seed: int,
        start_ms: int,
        plan: FaultPlan,
        first: Times | None = None,
    ) -> None:
        """`first`: the first grid time of each unit, if known."""
        self._equipment, self._start_ms, self._plan = equipment, start_ms, plan
        base_ms = equipment.base_interval_s * 1000
        first = first_times(units, base_ms, start_ms) if first is None else first
        order = np.argsort(first, kind="stable")
        self.units = [units[i] for i in order]
        self._first: Times = first[order]
        self._base_ms = base_ms
        self._signals = equipment.signals
        # Units that are sampled at the same time, as slices of the ordered units.
        edges = {*range(0, len(units), MOMENT), *(np.flatnonzero(np.diff(self._first)) + 1).tolist()}
        self._groups = list(pairwise([*sorted(edges), len(units)]))
        self._ids = [unit.id for unit in self.units]
        self._streams = Streams(keys_of(seed, self._ids))
        self._faults = Schedule(equipment, self._ids, self._streams, start_ms, plan)
        self._controls = Controls(len(units))
        self._places: dict[str, int] = {}  # of the units that commands have named
        self._waiting: list[ScheduledCommand] = []  # commands that apply after the computed steps
        self._computed: Times | None = None  # the units' latest times
        self._kernel = KERNELS[equipment.name](
            self._streams,
            Enterprises(seed, [unit.enterprise.id for unit in self.units]),
            float(equipment.base_interval_s),
        )
        self.watch: Watch | None = None
        """Healthy twins that are stepped with the units; to be set before the first step."""
        self._k = -1
        self._shape = self._shape_at(0)
        self._rows: NDArray[np.float64] | None = None

    @property
    def kernel(self) -> Kernel:
        return self._kernel

    def holds(self, unit: str) -> bool:
        return unit in self._ids

    def _place(self, unit: str) -> int:
        place = self._places.get(unit)
        if place is None:
            place = self._places[unit] = self._ids.index(unit)
        return place

    def free_from_ms(self, unit: str) -> int:
        return self._start_ms if self._computed is None else int(self._computed[self._place(unit)]) + 1

    def obey(self, commands: Sequence[ScheduledCommand]) -> None:
        self._waiting += [given for given in commands if given.kind in ("start", "stop", "set_point")]
        self._waiting.sort(key=lambda given: given.at_ms)
        plan = with_commands(self._plan, commands)
        if plan is not self._plan:
            self._plan = plan
            self._faults = Schedule(self._equipment, self._ids, self._streams, self._start_ms, plan)

    def _control(self, times: Times) -> Controls:
        """Controls at the units' times."""
        still = []
        for given in self._waiting:
            place = self._place(given.unit)
            if given.at_ms > times[place]:
                still.append(given)
            elif given.kind == "set_point":
                self._controls.set_point(place, given.name, given.value)
            elif given.kind == "stop":
                self._controls.stop(place)
            else:
                self._controls.start(place)
        self._waiting = still
        return self._controls

    def _shape_at(self, k: int) -> Shape:
        return shape_at(self._equipment, k)

    def _times(self, k: int) -> Times:
        if k == 0:
            return np.full(len(self.units), self._start_ms, dtype=np.int64)
        return self._first + (k - 1) * self._base_ms

    def blocks(self, until_ms: int) -> Iterator[Block]:
        """Iterate over steps up to and including `until_ms`. Use it once, and instead of `groups`."""
        for k in count():
            inside = int(np.searchsorted(self._times(k), until_ms, side="right"))
            if not inside:
                return
            times = self._step(k)
            assert self._rows is not None
            yield Block(self.units[:inside], times[:inside], self._shape, self._rows[:inside])

    def groups(self) -> Iterator[_Group]:
        """Iterate over groups in time order, without end. `samples` must be called with each, in this
        order."""
        for k in count():
            times = self._times(k)
            for begin, end in self._groups:
                yield _Group(int(times[begin]), self, k, begin, end)

    def samples(self, group: _Group) -> list[Sample]:
        if group.k != self._k:
            self._step(group.k)
        assert self._rows is not None
        rows = self._rows[group.begin : group.end].tolist()
        if group.end == len(self.units):
            self._rows = None  # not kept until the next step: a large fleet has many
        units, ts_ms, shape = self.units[group.begin : group.end], group.ts_ms, self._shape
        return [Sample(unit, ts_ms, shape, tuple(row)) for unit, row in zip(units, rows, strict=True)]

    def _step(self, k: int) -> Times:
        times = self._computed = self._times(k)
        shape = self._shape_at(k)
        controls, watch = self._control(times), self.watch
        watched = watch is not None and not watch.done
        if watch is not None and watched:  # before the units' own step, which may end what a command began
            watch.step(k, times, shape.positions, controls)
        produced = self._kernel.step(k, times, self._faults.at(times), controls)
        self._k, self._shape = k, shape
        self._rows = sensed([self._signals[i] for i in shape.positions], produced)
        if watch is not None and watched:
            watch.compare(times, shape.positions, self._rows)
        return times


def first_values(
    class_name: str, unit_ids: Sequence[str], enterprise_ids: Sequence[str], seed: int, times: Times
) -> NDArray[np.float64]:
    """Sample 0 of sound units of one class: a row a unit, a column for each of the class's signals, rounded
    to the catalogue's resolution. Each unit has its own enterprise and time (UTC, ms), and its row
    depends on nothing but these and the seed."""
    equipment = CATALOGUE[class_name]
    kernel = KERNELS[class_name](
        Streams(keys_of(seed, unit_ids)),
        Enterprises(seed, enterprise_ids),
        float(equipment.base_interval_s),
    )
    produced = kernel.step(0, times)
    return sensed(equipment.signals, produced)


def _class_runs(
    equipment: EquipmentClass, units: Sequence[Unit], seed: int, start_ms: int, plan: FaultPlan
) -> Iterator[ClassRun]:
    """Split the units of a class into runs by sample time, so that each run finishes a step before the next
    one begins it."""
    first = first_times(units, equipment.base_interval_s * 1000, start_ms)
    order = np.argsort(first, kind="stable")
    for begin in range(0, len(units), TOGETHER):
        chosen = order[begin : begin + TOGETHER]
        yield ClassRun(equipment, [units[i] for i in chosen], seed, start_ms, plan, first[chosen])


class Simulation:
    """All readings of some units from a start on, with the faults that a plan gives them and with commands.
    Building it computes parameters only; iterating computes readings."""

    def __init__(
        self,
        units: Sequence[Unit],
        seed: int,
        start_ms: int,
        plan: FaultPlan = NO_FAULTS,
        commands: Sequence[ScheduledCommand] = (),
    ) -> None:
        self.units = units
        self.start_ms = start_ms
        by_class: dict[str, list[Unit]] = {}
        for unit in units:
            by_class.setdefault(unit.class_name, []).append(unit)
        self._runs = {
            name: list(_class_runs(CATALOGUE[name], by_class[name], seed, start_ms, plan))
            for name in CATALOGUE
            if name in by_class
        }
        class_of = {given.unit: "" for given in commands}
        class_of.update((unit.id, unit.class_name) for unit in units if unit.id in class_of)
        by_run: dict[ClassRun, list[ScheduledCommand]] = {}
        for given in commands:
            if class_of[given.unit]:
                by_run.setdefault(self._run_of(class_of[given.unit], given.unit), []).append(given)
        for run, mine in by_run.items():
            run.obey(mine)

    def _run_of(self, class_name: str, unit: str) -> ClassRun:
        return next(run for run in self._runs[class_name] if run.holds(unit))

    def free_from_ms(self, unit: Unit) -> int:
        """The first time of a unit for which nothing has been computed yet; commands may apply from it on."""
        return self._run_of(unit.class_name, unit.id).free_from_ms(unit.id)

    def obey(self, unit: Unit, given: ScheduledCommand) -> None:
        """Add a command while readings are computed. Its time must not be before `free_from_ms`."""
        self._run_of(unit.class_name, unit.id).obey([given])

    def moments(self, until_ms: int | None) -> Iterator[Moment]:
        """Readings in time order, up to and including `until_ms` (None: without end). To be iterated once."""
        runs = (run.groups() for runs in self._runs.values() for run in runs)
        for group in heapq.merge(*runs, key=itemgetter(0)):
            if until_ms is not None and group.ts_ms > until_ms:
                return
            yield group.moment()


def fleet_of(
    scenario: Scenario, seed: int | None = None, units: int | None = None, shard: Shard | None = None
) -> list[Unit]:
    """The units that a run simulates; `seed` and `units` override the scenario's. Raises ConfigError
    when the scenario orders a fault of a unit that the whole fleet does not have."""
    slice_ = shard or Shard()
    made = make_units(
        scenario.classes,
        scenario.cities,
        scenario.seed if seed is None else seed,
        scenario.units if units is None else units,
    )
    missing = {order.unit for order in scenario.faults.orders}
    found = []
    for unit in made:
        missing.discard(unit.id)
        if slice_.holds(unit):
            found.append(unit)
    if missing:
        raise ConfigError(
            f"The scenario orders a fault of {min(missing)}, which this fleet does not have: "
            "name one of its units, or change units or seed."
        )
    return found


def samples(
    scenario: Scenario,
    seed: int,
    start_ms: int,
    units: int,
    unit_ids: Iterable[str] | None,
    until_ms: int,
    commands: Sequence[ScheduledCommand] = (),
) -> dict[str, list[tuple[int, dict[str, Value]]]]:
    """Every reading of some units (None: all) up to `until_ms`, as it must be stored: unit → [(ts_ms,
    {signal: value})]."""
    wanted = None if unit_ids is None else set(unit_ids)
    chosen = [unit for unit in fleet_of(scenario, seed, units) if wanted is None or unit.id in wanted]
    found: dict[str, list[tuple[int, dict[str, Value]]]] = {unit.id: [] for unit in chosen}
    for moment in Simulation(chosen, seed, start_ms, scenario.faults, commands).moments(until_ms):
        for sample in moment.samples:
            found[sample.unit.id].append((sample.ts_ms, sample.named()))
    return found
