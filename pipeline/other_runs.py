"""Other runs that a run is made from: their instructions for its pool, or their pairs to be scored again.

What is read of another run is its commits as they were when this run was planned. They are pinned in this run's
manifest, so that a resume reads the same rows, whatever has come to the other run since.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.pool import Demonstration
from pipeline.records import Pair, Reason, Score, Source, Stage
from pipeline.shards import Commit, read_commits, read_manifest, read_table

# Columns that a new score does not change.
_KEPT = (
    "instruction_id input recipe is_classification parents nearest_id nearest_score source prompt_hashes model "
    "finish_reason prompt_tokens completion_tokens"
).split()
_NEAR = frozenset({Reason.NOT_NOVEL, Reason.NO_TOKENS})


@dataclass(frozen=True)
class OtherRun:
    """A run and how much of it is read: its first commits, and what identifies them."""

    folder: Path
    key: str  # of the configuration, which names it
    run: str
    commits: tuple[Commit, ...]

    @property
    def digest(self) -> str:
        """The SHA-256 of the commit records, which hold the hashes of their files."""
        return hashlib.sha256("".join(commit.to_json() for commit in self.commits).encode()).hexdigest()

    @property
    def identity(self) -> dict[str, Any]:
        """What changes rows, wherever the folder is."""
        return {"run": self.run, "commits": len(self.commits), "digest": self.digest[:16]}

    @property
    def entry(self) -> dict[str, Any]:
        """The manifest's entry."""
        return {"folder": str(self.folder), **self.identity}

    def instructions(self) -> Iterator[Demonstration]:
        """Everything the run admitted, in order."""
        for table in self._tables("pool", ["instruction_id", "instruction"]):
            for id, text in zip(table["instruction_id"].to_pylist(), table["instruction"].to_pylist(), strict=True):
                yield Demonstration(id, text, True)

    def require_pairs(self) -> None:
        """Raises InputError unless the run is a finished one that has scored pairs."""
        if self.commits[-1].ending is None:
            raise InputError(
                f"{self.key}: {self.folder} is not finished; run it to its end first, or end it with a budget"
            )
        if next(self.pairs(), None) is None:
            raise InputError(f"{self.key}: {self.folder} holds no scored pairs; name a run of backtranslation")

    def pairs(self) -> Iterator[Pair]:
        """The run's scored pairs, accepted and refused, in the order of its units. One commit's rows at a time."""
        for commit in self.commits:
            tables = (table for kind in ("data", "rejected") for table in _tables_of(self.folder, commit, kind))
            rows = [row for table in tables for row in table.to_pylist() if _is_judged(row)]
            yield from map(_pair, sorted(rows, key=_place))

    def pair_count(self) -> int:
        """How many pairs that is, without reading their texts."""
        count = 0
        for kind, columns in (("data", ["scores"]), ("rejected", ["scores", "stage"])):
            for table in self._tables(kind, columns):
                count += sum(map(_is_judged, table.to_pylist()))
        return count

    def _tables(self, kind: str, columns: list[str] | None = None) -> Iterator[Any]:
        for commit in self.commits:
            yield from _tables_of(self.folder, commit, kind, columns)


def other_run(path: str, key: str, pinned: Iterable[Mapping[str, Any]] = (), *, pinned_only: bool = False) -> OtherRun:
    """A run as it is now, or, where `pinned` has an entry for it, as it was then.

    Raises InputError where there is no run, or with `pinned_only` not the one that was pinned.
    """
    folder = Path(path).expanduser()
    manifest = read_manifest(folder)
    commits = read_commits(folder) if manifest else []
    if manifest is None or not commits:
        raise InputError(f"{key}: {folder} holds no run; name a run folder")
    now = OtherRun(folder, key, manifest["run"], tuple(commits))
    for entry in pinned:
        then = OtherRun(folder, key, manifest["run"], tuple(commits[: entry["commits"]]))
        if then.identity == {name: entry[name] for name in ("run", "commits", "digest")}:
            return then
    if pinned_only:
        raise InputError(f"{key}: {folder} does not hold the commits that were there; put the run back")
    return now


class PairsAgain:
    """The units of `curate`: the pairs of another run, one after the other."""

    def __init__(self, run: OtherRun, first: int) -> None:
        """`first` is the first unit that will be asked for: a resume passes over the pairs before it."""
        self._total = run.pair_count()
        self._pairs = run.pairs()
        for _ in range(first):
            next(self._pairs, None)

    @property
    def total(self) -> tuple[int, bool]:
        return self._total, True

    async def __call__(self, unit: int) -> Pair | None:
        return next(self._pairs, None)


def _tables_of(folder: Path, commit: Commit, kind: str, columns: list[str] | None = None) -> Iterator[Any]:
    for file in commit.files:
        if file.path.startswith(f"{kind}/"):
            yield read_table(folder / file.path, kind, columns)


def _is_judged(row: Mapping[str, Any]) -> bool:
    """Whether a judge was asked for a score of this pair."""
    return bool(row["scores"]) or row.get("stage") == Stage.CURATION


def _place(row: Mapping[str, Any]) -> tuple[int, int]:
    """Units in order, and within one the candidates."""
    return row["unit"], int(row["instruction_id"].rsplit("/", 1)[1])


def _pair(row: Mapping[str, Any]) -> Pair:
    fields = {name: row[name] for name in _KEPT}
    for name in ("parents", "prompt_hashes"):
        fields[name] = tuple(fields[name] or ())
    if fields["source"] is not None:
        fields["source"] = Source(**fields["source"])
    fields["input"] = fields["input"] or ""
    reason = row.get("reason")
    return Pair(
        id=row["id"] or f"{row['instruction_id']}/0",
        instruction=row["instruction"],
        output=row["output"],
        scores=tuple(Score(**score) for score in row["scores"] or ()),
        fields=fields,
        kept_out=Reason(reason) if reason in _NEAR else None,
    )
