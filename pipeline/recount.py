"""The rows of a run counted again, and held against what its records say of them (`instructmill verify`).

Nothing here is of the code that made them, but for their schemas: a fault that writes and counts alike wrong is found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import InputError
from pipeline.records import Reason, Stage
from pipeline.shards import Commit

Row = Mapping[str, Any]

COLUMNS = {
    "pool": ["instruction_id", "instruction", "unit", "nearest_score"],
    "data": ["id", "instruction_id", "instruction", "output", "unit", "score", "source"],
    "rejected": ["id", "instruction_id", "unit", "score", "source", "stage", "reason", "nearest_score"],
}
_AT_THE_GATE = (Stage.NOVELTY, Stage.GATE)
# What rows do not tell. It never grows less.
_ONLY_COUNTED = ("demonstrations", "machine_made", "seconds", "calls", "prompt_tokens", "completion_tokens")


@dataclass(frozen=True)
class Table:
    """The rows of one table in one commit, and where they are, for what is wrong with one of them."""

    path: str
    rows: Sequence[Row] = ()

    def fault(self, number: int, what: str) -> InputError:
        """`number` is the row's, from 1."""
        return InputError(f"{self.path}, row {number}: {what}")

    def __iter__(self) -> Iterator[tuple[int, Row]]:
        return enumerate(self.rows, start=1)


@dataclass
class _Counts:
    """What rows tell of a run up to a commit, by the names that the record has for it."""

    units: int = 0
    failed_units: int = 0
    candidates: int = 0
    admitted: int = 0
    instances: int = 0
    examples: int = 0
    instructions_with_rows: int = 0
    closed_without_rows: int = 0
    refused_candidates: Counter[str] = field(default_factory=Counter)
    refused_instances: Counter[str] = field(default_factory=Counter)
    closing_reasons: Counter[str] = field(default_factory=Counter)
    failure_reasons: Counter[str] = field(default_factory=Counter)
    scores: Counter[str] = field(default_factory=Counter)


class Recount:
    """Commits in order, one after the other. Memory holds one, and for `curate` the ids of all."""

    def __init__(self, manifest: Mapping[str, Any]) -> None:
        self._run: str = manifest["run"]
        self._curates = manifest["config"]["recipe"] == "curate"  # it keeps the ids of another run, and admits nothing
        novelty = manifest["config"]["novelty"]
        self._threshold: float | None = novelty["threshold"] if novelty["enabled"] else None
        self._counts = _Counts()
        self._before: Mapping[str, Any] = {}
        self._ids: set[str] = set()
        self.rejects = 0

    def add(self, record: str, commit: Commit, data: Table, pool: Table, rejected: Table) -> None:
        """Hold one commit against its rows; `record` is its file. Raises InputError naming the first row or record
        that is wrong."""
        for table in (pool, data, rejected):
            self._require_order(table, commit)
        self._require_ids(data, pool, rejected)
        self._require_ends(data, pool, rejected)
        self._require_gate(record, commit, pool, rejected)
        if self._threshold is not None:
            self._require_scores(pool, rejected)
        self._count(commit, data, pool, rejected)
        self._require_counts(record, commit)
        self._require_whole_units(record, commit, (data, pool, rejected))
        self.rejects += len(rejected.rows)

    def _require_order(self, table: Table, commit: Commit) -> None:
        """Rows in the order of units, and none of another commit's."""
        last = commit.first
        for number, row in table:
            unit = row["unit"]
            if unit is None or not commit.first <= unit < commit.end:
                raise table.fault(number, f"unit {unit} is not of its commit, [{commit.first}, {commit.end})")
            if unit < last:
                raise table.fault(number, f"unit {unit} comes after unit {last}")
            last = unit

    def _require_ids(self, data: Table, pool: Table, rejected: Table) -> None:
        """Ids are lineage, and there is none twice: of an instruction in `pool/`, of an instance in any table."""
        if not self._curates:  # a lineage names its unit, so that ids of two commits are never the same
            self._ids = set()
        admitted: set[str] = set()
        for table in (pool, data, rejected):
            for number, row in table:
                of_instruction, id = row["instruction_id"], row.get("id")
                if not self._curates and of_instruction is not None:
                    self._require_lineage(table, number, row)
                if table is pool and of_instruction in admitted:
                    raise table.fault(number, f"the instruction {of_instruction} is admitted twice")
                if table is pool:
                    admitted.add(of_instruction)
                if table is data and id is None:
                    raise table.fault(number, "it has no id")
                if id is not None and id in self._ids:
                    raise table.fault(number, f"the id {id} is there twice")
                if id is not None:
                    self._ids.add(id)

    def _require_lineage(self, table: Table, number: int, row: Row) -> None:
        """run / unit / candidate, and for an instance its own number after it."""
        head, _, candidate = row["instruction_id"].rpartition("/")
        if head != f"{self._run}/{row['unit']}" or not candidate.isdecimal():
            raise table.fault(number, f"the instruction_id {row['instruction_id']} is not of unit {row['unit']}")
        if row.get("id") is not None:
            head, _, instance = row["id"].rpartition("/")
            if head != row["instruction_id"] or not instance.isdecimal():
                raise table.fault(number, f"the id {row['id']} is not of the instruction {row['instruction_id']}")

    def _require_ends(self, data: Table, pool: Table, rejected: Table) -> None:
        """What is in `data/` was admitted; what was admitted has rows, or exactly one closing reject."""
        if self._curates:
            if pool.rows:
                raise pool.fault(1, "curate admits nothing")
            return
        texts = {row["instruction_id"]: row["instruction"] for row in pool.rows}
        for number, row in data:
            if row["instruction_id"] not in texts:
                raise data.fault(number, f"the instruction {row['instruction_id']} was not admitted: pool/ has it not")
            if row["instruction"] != texts[row["instruction_id"]]:
                raise data.fault(number, f"the instruction {row['instruction_id']} has another text in pool/")
        with_rows = {row["instruction_id"] for row in data.rows}
        closed = Counter(
            row["instruction_id"] for row in rejected.rows if row["id"] is None and row["instruction_id"] in texts
        )
        for number, row in pool:
            of = row["instruction_id"]
            if of in with_rows and closed[of]:
                raise pool.fault(number, f"the instruction {of} has rows, and a closing reject too")
            if of not in with_rows and closed[of] != 1:
                raise pool.fault(
                    number, f"the instruction {of} has no row, and {closed[of] or 'no'} closing reject(s), not one"
                )

    def _require_gate(self, record: str, commit: Commit, pool: Table, rejected: Table) -> None:
        """What the record says of each unit at the gate is what its rows say."""
        admitted = Counter(row["unit"] for row in pool.rows)
        refused = Counter(row["unit"] for row in rejected.rows if row["id"] is None and row["stage"] in _AT_THE_GATE)
        for unit, (candidates, kept) in enumerate(commit.gate, start=commit.first):
            if kept != admitted[unit]:
                raise InputError(
                    f"{record}: of unit {unit} its gate admitted {kept}, and pool/ has {admitted[unit]} of it"
                )
            if candidates != admitted[unit] + refused[unit]:
                raise InputError(
                    f"{record}: of unit {unit} its gate had {candidates} candidates, and the rows tell of "
                    f"{admitted[unit] + refused[unit]}"
                )

    def _require_scores(self, pool: Table, rejected: Table) -> None:
        """The scores that the gate wrote down are on the right side of the threshold."""
        threshold = self._threshold
        assert threshold is not None
        for number, row in pool:
            if row["nearest_score"] is not None and row["nearest_score"] > threshold:
                raise pool.fault(number, f"admitted at {row['nearest_score']:.3f}, above the threshold of {threshold}")
        for number, row in rejected:
            if row["id"] is None and row["reason"] == Reason.NOT_NOVEL and not (row["nearest_score"] or 0) > threshold:
                raise rejected.fault(
                    number, f"refused as not novel at {row['nearest_score']}, not above the threshold of {threshold}"
                )

    def _count(self, commit: Commit, data: Table, pool: Table, rejected: Table) -> None:
        counts = self._counts
        counts.units = commit.end
        counts.admitted += len(pool.rows)
        counts.examples += len(data.rows)
        if not self._curates:
            counts.instructions_with_rows += len({row["instruction_id"] for row in data.rows})
        admitted = {row["instruction_id"] for row in pool.rows}
        for row in rejected.rows:
            if row["id"] is not None:
                counts.refused_instances[row["reason"]] += 1
            elif row["instruction_id"] is None:
                counts.failed_units += 1
                counts.failure_reasons[row["reason"]] += 1
            elif row["instruction_id"] in admitted:
                counts.closed_without_rows += 1
                counts.closing_reasons[row["reason"]] += 1
            else:
                counts.refused_candidates[row["reason"]] += 1
        counts.candidates = counts.admitted + counts.refused_candidates.total()
        counts.instances = counts.examples + counts.refused_instances.total()
        counts.scores.update(
            str(row["score"]) for table in (data, rejected) for row in table.rows if row["score"] is not None
        )

    def _require_counts(self, record: str, commit: Commit) -> None:
        """The record counts what the rows up to it come to, and what rows do not tell has not grown less."""
        recorded = commit.counters
        for key, found in vars(self._counts).items():
            if recorded.get(key) != (dict(found) if isinstance(found, Counter) else found):
                raise InputError(
                    f"{record}: it counts {key} = {_shown(recorded.get(key))}, and the rows up to it come to "
                    f"{_shown(found)}"
                )
        for key in _ONLY_COUNTED:
            now, before = recorded.get(key), self._before.get(key)
            if not _at_least(now, before):
                raise InputError(
                    f"{record}: it counts {key} = {_shown(now)}, less than {_shown(before)} of the commit before it"
                )
        self._before = recorded

    def _require_whole_units(self, record: str, commit: Commit, tables: Sequence[Table]) -> None:
        """Each unit has left a row, and one that failed no other."""
        rows = Counter(row["unit"] for table in tables for row in table.rows)
        for unit in range(commit.first, commit.end):
            if not rows[unit]:
                raise InputError(f"{record}: unit {unit} of it has left no row")
        rejected = tables[-1]
        for number, row in rejected:
            if row["instruction_id"] is None and rows[row["unit"]] > 1:
                raise rejected.fault(number, f"unit {row['unit']} has failed, and has other rows too")


def _at_least(now: Any, before: Any) -> bool:
    """Whether a number, or each of a table of numbers, is there and not less than before."""
    if isinstance(now, dict):
        return all(now.get(key, 0) >= value for key, value in (before or {}).items())
    return isinstance(now, int | float) and now >= (before or 0)


def _shown(value: Any) -> str:
    """A count, or counts by reason, in a few words."""
    if not isinstance(value, dict):
        return str(value)
    return ", ".join(f"{key} {count}" for key, count in sorted(value.items())) or "none"
