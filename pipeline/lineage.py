"""Where a row comes from: its instruction, the demonstrations it grew from, theirs up to the seeds, its neighbour."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pipeline.errors import InputError
from pipeline.reading import ANCESTORS, Snapshot
from pipeline.seeds import seeds_of
from pipeline.tables import place_in

_COLUMNS = ["instruction_id", "instruction", "unit", "parents", "nearest_id", "nearest_score"]


class Kind(StrEnum):
    """What an instruction is to its run."""

    SEED = "seed"
    ADMITTED = "admitted"
    REFUSED = "refused"
    ELSEWHERE = "elsewhere"  # of another run, which the pool began with; or not to be found


@dataclass(frozen=True)
class Instruction:
    """One instruction of a lineage. `text` is None where only its id is known; `note` then says why."""

    id: str
    kind: Kind
    text: str | None
    note: str = ""
    unit: int | None = None
    parents: tuple[str, ...] = ()
    nearest_id: str | None = None
    nearest_score: float | None = None


@dataclass(frozen=True)
class Lineage:
    """Where one row, instruction or seed comes from.

    `rows` and `rejects` are what is asked for, as it stands in `data/` and `rejected/`: one row, or all that became of
    an instruction. `instructions` holds each instruction once, by id: its own first, then its demonstrations, then
    theirs, and the nearest neighbour. `beyond` counts the machine-made ones that were left out.
    """

    id: str
    instruction: Instruction
    rows: tuple[dict[str, Any], ...]
    rejects: tuple[dict[str, Any], ...]
    instructions: Mapping[str, Instruction]
    beyond: int = 0

    @property
    def demonstrations(self) -> list[Instruction]:
        """What its prompt showed, in order."""
        return [self.instructions[id] for id in self.instruction.parents if id in self.instructions]

    @property
    def ancestors(self) -> list[Instruction]:
        """All that it grew from, as far as it was looked up: its demonstrations first, then theirs."""
        shown = {id for each in self.instructions.values() for id in each.parents}
        return [each for id, each in self.instructions.items() if id in shown]

    @property
    def nearest(self) -> Instruction | None:
        """The nearest instruction held when it came to the gate; None where nothing came near the floor. The score is
        the instruction's `nearest_score`."""
        return self.instructions.get(self.instruction.nearest_id or "")


def trace(run: Snapshot, id: str, most: int = ANCESTORS) -> Lineage:
    """The lineage of a row, an instruction or a seed.

    At most `most` machine-made ancestors are looked up, the nearest generations first, each in the one commit that has
    its unit. Raises InputError where the run holds no such id.
    """
    seeds = _Elsewhere(run)
    rows = tuple(run.examples.where(ids=[id]).arrow().to_pylist())
    rejects = tuple(run.rejects.where(ids=[id]).arrow().to_pylist())
    admitted = _admitted(run, [_instruction_id(run, id)])
    if not rows and not rejects and not admitted:
        seed = seeds.find(id)
        if seed.text is None:
            raise InputError(_unknown(run, id, seed.note))
        return Lineage(id, seed, (), (), {id: seed})
    itself = next(iter(admitted.values()), None) or _of_row((*rows, *rejects)[0], bool(rows))
    found = {itself.id: itself}
    beyond = _add_ancestors(run, seeds, found, itself, most)
    if itself.nearest_id is not None and itself.nearest_id not in found:
        near = itself.nearest_id
        found[near] = _admitted(run, [near]).get(near) or seeds.find(near)
    return Lineage(id, itself, rows, rejects, found, beyond)


def named(run: Snapshot, ids: Collection[str]) -> dict[str, Instruction]:
    """These instructions by id, seeds and those of other runs too: each file of the pool that has one is read once."""
    elsewhere = _Elsewhere(run)
    ours = [id for id in ids if place_in(run.name, id) is not None]
    made = _admitted(run, ours)
    return {id: made.get(id) or elsewhere.find(id) for id in ids}


def _add_ancestors(
    run: Snapshot, seeds: _Elsewhere, found: dict[str, Instruction], itself: Instruction, most: int
) -> int:
    """Add demonstrations and theirs, generation after generation; returns how many machine-made ones are left out."""
    left_out: set[str] = set()
    generation = [itself]
    while generation:
        ids = [id for id in dict.fromkeys(id for each in generation for id in each.parents) if id not in found]
        ours = [id for id in ids if place_in(run.name, id) is not None]
        taken, over = ours[:most], ours[most:]
        left_out.update(over)
        made = _admitted(run, taken)
        most -= len(taken)
        skipped = set(over)
        for id in ids:
            if id not in skipped:
                found[id] = made.get(id) or seeds.find(id)
        generation = list(made.values())
    return len(left_out - found.keys())


def _admitted(run: Snapshot, ids: Sequence[str]) -> dict[str, Instruction]:
    """Those of these instructions that the run admitted."""
    if not ids:
        return {}
    rows = run.pool.where(ids=ids).arrow(_COLUMNS).to_pylist()
    return {row["instruction_id"]: _instruction(row, Kind.ADMITTED) for row in rows}


def _of_row(row: Mapping[str, Any], accepted: bool) -> Instruction:
    """The instruction of a row that is in no pool: it was refused, or scored again."""
    return _instruction(row, Kind.ADMITTED if accepted else Kind.REFUSED)


def _instruction(row: Mapping[str, Any], kind: Kind) -> Instruction:
    return Instruction(
        row["instruction_id"],
        kind,
        row["instruction"],
        unit=row["unit"],
        parents=tuple(row["parents"] or ()),
        nearest_id=row["nearest_id"],
        nearest_score=row["nearest_score"],
    )


def _instruction_id(run: Snapshot, id: str) -> str:
    place = place_in(run.name, id)
    return id if place is None else "/".join([run.name, *map(str, place[:2])])


def _unknown(run: Snapshot, id: str, note: str) -> str:
    place = place_in(run.name, id)
    if place is not None and place[0] >= run.units and run.recipe != "curate":
        return f"{id}: unit {place[0]} is not committed; {run.folder} has {run.units:,} units"
    also = f" ({note})" if note else ""
    return (
        f"{id}: {run.folder} has no such row, instruction or seed{also}; ids are as {run.name}/12/3 for an instruction "
        f"and {run.name}/12/3/0 for a row"
    )


class _Elsewhere:
    """What a run did not make: its seeds, as their file has them, and what other runs gave its pool."""

    def __init__(self, run: Snapshot) -> None:
        self._run = run
        self._texts: dict[str, str] | None = None
        self._fault = ""

    def find(self, id: str) -> Instruction:
        """A seed with its text; else the id with what is known of it."""
        for entry in self._run.manifest.get("imports", ()):
            if place_in(entry["run"], id) is not None:
                return Instruction(id, Kind.ELSEWHERE, None, f"of the run {entry['run']} in {entry['folder']}")
        if place_in(self._run.name, id) is not None:
            scored = self._run.manifest.get("candidates")  # whose pairs keep their ids
            note = f"of the run that was scored, in {scored['folder']}" if scored else "the pool does not have it"
            return Instruction(id, Kind.ELSEWHERE, None, note)
        if self._texts is None:
            self._read()
        text = (self._texts or {}).get(id)
        return Instruction(id, Kind.SEED if text or self._fault else Kind.ELSEWHERE, text, "" if text else self._fault)

    def _read(self) -> None:
        self._texts = {}
        try:
            self._texts = {seed.id: seed.instruction for seed in seeds_of(self._run.manifest)}
        except InputError as error:
            self._fault = str(error)
