"""Other runs that a run is made from: their instructions for its pool, or their pairs to be scored again.

What is read of another run is its commits as they were when this run was planned. They are pinned in this run's
manifest, so that a resume reads the same rows, whatever has come to the other run since.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow.compute as pc

from pipeline.errors import InputError
from pipeline.pool import Demonstration
from pipeline.records import Pair, Reason, Score, Source, Stage
from pipeline.shards import Commit, read_commits, read_manifest, read_tables
from pipeline.storage import Folder, folder_at

# Columns that a new score does not change.
_KEPT = (
    "instruction_id input recipe is_classification parents nearest_id nearest_score source prompt_hashes model "
    "finish_reason prompt_tokens completion_tokens"
).split()
_NEAR = frozenset({Reason.NOT_NOVEL, Reason.NO_TOKENS})


@dataclass(frozen=True)
class OtherRun:
    """A run and how much of it is read: its first commits, and what identifies them."""

    folder: Folder
    key: str  # of the configuration, which names it
    run: str
    commits: tuple[Commit, ...]  # without what they say of the gate, which is long
    digest: str  # the SHA-256 of the commit records, which hold the hashes of their files
    admits: bool = True  # a round of `curate` does not: what it accepted counts in its place
    pairs_in: tuple[int, ...] = ()  # scored pairs in each commit, where they are to be scored again

    @property
    def identity(self) -> dict[str, Any]:
        """What changes rows, wherever the folder is."""
        return {"run": self.run, "commits": len(self.commits), "digest": self.digest[:16]}

    @property
    def entry(self) -> dict[str, Any]:
        """The manifest's entry."""
        pairs = {"pairs": sum(self.pairs_in)} if self.pairs_in else {}
        return {"folder": str(self.folder), **self.identity, **pairs}

    def instructions(self) -> Iterator[Demonstration]:
        """Everything the run admitted, or accepted where it admits nothing, in order."""
        kind = "pool" if self.admits else "data"
        for table in read_tables(self.folder, self.commits, kind, ["instruction_id", "instruction"]):
            for id, text in zip(table["instruction_id"].to_pylist(), table["instruction"].to_pylist(), strict=True):
                yield Demonstration(id, text, True)

    def with_pairs(self) -> OtherRun:
        """The same, with its scored pairs counted; their texts are not read.

        Raises InputError unless the run is a finished one that has some.
        """
        if self.commits[-1].ending is None:
            raise InputError(
                f"{self.key}: {self.folder} is not finished; run it to its end first, or end it with a budget"
            )
        counts = tuple(
            sum(map(_is_judged, self._rows(commit, ["scores"], ["scores", "stage"]))) for commit in self.commits
        )
        if not sum(counts):
            raise InputError(f"{self.key}: {self.folder} holds no scored pairs; name a run of backtranslation")
        return replace(self, pairs_in=counts)

    def pairs(self, first: int = 0) -> Iterator[Pair]:
        """The run's scored pairs, accepted and refused, in the order of its units, from number `first` on. One commit's
        rows are held at a time, and those before `first` are not read."""
        for commit, count in zip(self.commits, self.pairs_in, strict=True):
            if first >= count:
                first -= count
                continue
            rows = sorted(filter(_is_judged, self._rows(commit)), key=_place)
            yield from map(_pair, rows[first:])
            first = 0

    def longest(self) -> tuple[int, int]:
        """Characters of the longest instruction and of the longest text among the pairs."""
        most = [0, 0]
        for kind in ("data", "rejected"):
            for table in read_tables(self.folder, self.commits, kind, ["instruction", "output"]):
                lengths = (pc.max(pc.utf8_length(table[name])).as_py() or 0 for name in table.column_names)
                most = [max(pair) for pair in zip(most, lengths, strict=True)]
        return most[0], most[1]

    def _rows(
        self, commit: Commit, of_data: list[str] | None = None, of_rejected: list[str] | None = None
    ) -> Iterator[dict[str, Any]]:
        for kind, columns in (("data", of_data), ("rejected", of_rejected)):
            for table in read_tables(self.folder, [commit], kind, columns):
                yield from table.to_pylist()


def other_run(path: str, key: str, pinned: Iterable[Mapping[str, Any]] = (), *, pinned_only: bool = False) -> OtherRun:
    """A run as it is now, or, where `pinned` has an entry for it, as it was then.

    Raises InputError where there is no run, or with `pinned_only` not the one that was pinned.
    """
    folder = folder_at(path)
    manifest = read_manifest(folder)
    commits = read_commits(folder) if manifest else []
    if manifest is None or not commits:
        raise InputError(f"{key}: {folder} holds no run; name a run folder")

    def as_of(count: int) -> OtherRun:
        digest = hashlib.sha256("".join(commit.to_json() for commit in commits[:count]).encode()).hexdigest()
        short = tuple(replace(commit, gate=()) for commit in commits[:count])
        assert manifest is not None
        return OtherRun(folder, key, manifest["run"], short, digest, manifest["config"]["recipe"] != "curate")

    for entry in pinned:
        then = as_of(entry["commits"])
        if then.identity == {name: entry[name] for name in ("run", "commits", "digest")}:
            return then
    if pinned_only:
        raise InputError(f"{key}: {folder} does not hold the commits that were there; put the run back")
    return as_of(len(commits))


class PairsAgain:
    """The units of `curate`: the pairs of another run, one after the other, read beside the event loop."""

    def __init__(self, run: OtherRun, first: int) -> None:
        """`first` is the first unit that will be asked for."""
        self.total = (sum(run.pairs_in), True)
        self._pairs = run.pairs(first)

    async def __call__(self, unit: int) -> Pair | None:
        return await asyncio.to_thread(next, self._pairs, None)


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
