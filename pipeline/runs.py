"""A run: a folder with a manifest and closed shards. Plan one, open it to write, or read what it holds."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from itertools import islice
from typing import Any

from pipeline.config import Config
from pipeline.counters import Counters
from pipeline.driver import State
from pipeline.errors import InputError, RunStopped
from pipeline.filters import OwnFilter
from pipeline.fingerprint import differing_keys
from pipeline.lock import Lock, is_held, me, take
from pipeline.other_runs import PairsAgain
from pipeline.plan import Plan, constants, make_plan, manifest_text
from pipeline.pool import Pool
from pipeline.reading import Snapshot, require_no_remains
from pipeline.records import UnitResult
from pipeline.segment_parts import FOLDER as SEGMENTS
from pipeline.segment_parts import read_parts
from pipeline.segment_store import SegmentStore
from pipeline.shards import (
    COMMITS,
    MANIFEST,
    RUN,
    TABLES,
    Commit,
    Shards,
    read_commit,
    read_commits,
    read_manifest,
    read_tables,
    records,
    remove_strangers,
)
from pipeline.sources import CorpusFile, changed_file
from pipeline.stops import Ended, Ending, Stops
from pipeline.storage import Folder, Place, claim, folder_at
from pipeline.unit import Units

CORPUS_FILES = ".run/corpus.jsonl"
LOG = ".run/log"


class Run:
    """A run folder open for writing: the only writer, with the state its commits leave. `commits[-1]` is the last."""

    def __init__(self, folder: Folder, plan: Plan, lock: Lock) -> None:
        self.folder = folder
        self.plan = plan
        self._lock = lock
        self.commits = read_commits(folder)
        self.attempt = _claim_attempt(folder, plan.config.resolved_target)
        self._shards = Shards(folder, self.attempt, constants(plan))
        self._events: list[dict[str, Any]] = []
        self._flushes = 0
        if not self.commits:
            empty: dict[str, Sequence[object]] = {"data": []}
            self.commits.append(self._shards.write_commit(0, range(0), empty, Counters().to_json(), []))
        self._remove_strangers()
        self.state = resume_state(plan, folder, self.commits)
        self._keep(self.commits[-1])
        self.segments: SegmentStore | None = None
        if plan.corpus is not None:
            self.segments = SegmentStore(folder, plan.corpus, self.attempt, self.event)

    def _remove_strangers(self) -> None:
        """Remove what no record names, once no other process can make a record that names it.

        A holder that was taken over may only stand still, between its files and their record. An empty commit takes
        that record's number, so that it is refused. A part of the segments has no such number to spare: files that no
        record names stay there, where nobody reads them.
        """
        places = [*TABLES, RUN, COMMITS, LOG]
        if self._lock.taken_over and self.commits:
            last = self.commits[-1]
            nothing: dict[str, Sequence[object]] = {}
            units = range(last.end, last.end)
            self.commits.append(
                self._shards.write_commit(last.number + 1, units, nothing, last.counters, [], last.ending)
            )
        if not self._lock.taken_over:
            places.append(SEGMENTS)
        named = [file.path for commit in self.commits for file in commit.files]
        named += [f"{SEGMENTS}/{part.file}" for part in read_parts(self.folder)]
        if removed := remove_strangers(self.folder, named, places):
            self.event("removed_uncommitted_files", files=removed)

    @property
    def units(self) -> Units | None:
        """What the units from the next one on are about; None where a recipe finds that itself. To be taken once."""
        if self.plan.candidates is not None:
            return PairsAgain(self.plan.candidates, self.state.counters.units)
        return self.segments

    @property
    def ending(self) -> Ending | None:
        """Why the run is finished, by the rules as they are configured now; None when there is work left."""
        ending = self.state.stops.ending
        return ending if ending is not None and ending.unit < self.state.counters.units else None

    async def close_units(self) -> None:
        """Stop reading the corpus, where there is one. May be called twice."""
        if self.segments is not None:
            await self.segments.close()

    def commit(
        self,
        results: Sequence[UnitResult],
        counters: Counters,
        gate: Sequence[tuple[int, int]],
        ending: Ending | None,
        overshoot_tokens: int,
    ) -> None:
        """Make a range of finished units visible (the driver's CommitUnits)."""
        self._lock.require_held()
        first = self.commits[-1].end
        tables: dict[str, Sequence[object]] = {
            "data": [row for result in results for row in result.examples],
            "pool": [row for result in results for row in result.admitted],
            "rejected": [row for result in results for row in result.rejects],
        }
        final: dict[str, Any] | None = None
        if ending is not None:
            final = {"reason": ending.reason, "detail": ending.detail, "unit": ending.unit}
            final["overshoot_tokens"] = overshoot_tokens
        units = range(first, first + len(results))
        number = self.commits[-1].number + 1
        commit = self._shards.write_commit(number, units, tables, counters.to_json(), gate, final)
        self._keep(commit)
        self.event("commit", number=commit.number, first=commit.first, end=commit.end)
        with suppress(OSError):  # the commit is made; its event waits for the next flush
            self.flush_events()

    def _keep(self, last: Commit) -> None:
        """Of all commits keep the last one, without its units: memory must not grow with the length of a run."""
        self.commits = [replace(last, gate=())]

    def event(self, kind: str, **values: Any) -> None:
        """Note what happened, with the time, for `.run/log/`."""
        self._events.append({"time": round(time.time(), 3), "event": kind, **values})

    def flush_events(self) -> None:
        """Write the events noted since the last flush as a file of their own."""
        if events := self._events:
            self._events = []  # what comes while these are written is for the next flush
            self._flushes += 1
            lines = "".join(json.dumps(event) + "\n" for event in events)
            try:
                self.folder.write(f"{LOG}/{self.attempt:04d}-{self._flushes:06d}.jsonl", lines.encode())
            except OSError:
                self._events = events + self._events
                raise

    def close(self) -> None:
        """Write what is noted and let another process have the folder."""
        try:
            self.flush_events()
        finally:
            self._lock.close()


def open_run(config: Config, place: Place, filters: Sequence[OwnFilter] = ()) -> Run:
    """Open a run folder to write: a new one is planned, one of the same configuration (and filters) goes on.

    Raises InputError for a folder that cannot be written or belongs to another configuration, and RunStopped when
    another process is writing to it.
    """
    return open_planned(place, *plan_for(place, config, filters))


def open_planned(place: Place, plan: Plan, manifest: dict[str, Any] | None) -> Run:
    """Open a run folder to write by what `plan_for` said of it. Raises as `open_run` does."""
    folder = folder_at(place)
    lock = take(folder)
    try:
        found = read_manifest(folder)  # under the lock: another process may have been here since the plan was made
        if found != manifest and _begun(folder):
            raise RunStopped(f"{folder}: another process has begun a run here meanwhile; run the same command again")
        if manifest is None:
            for name in folder.names(SEGMENTS):  # of a plan that made nothing
                folder.remove(f"{SEGMENTS}/{name}")
            if plan.corpus is not None:
                folder.write(CORPUS_FILES, _lines(plan.corpus.files))
            # That of a plan that made nothing is replaced in one act; commit 0 is the same for every plan.
            lock.require_held()
            folder.write(MANIFEST, manifest_text(plan).encode())
        return Run(folder, plan, lock)
    except BaseException:
        lock.close()
        raise


def plan_for(place: Place, config: Config, filters: Sequence[OwnFilter] = ()) -> tuple[Plan, dict[str, Any] | None]:
    """The plan of a configuration for a folder, and the manifest of the run there that it goes on with, or None.

    A plan that has made nothing (its engines never started) gives way to another. Raises InputError where the folder
    holds no run but other things, or the begun run of another configuration.
    """
    folder = folder_at(place)
    manifest = read_manifest(folder)
    begun = manifest is not None and _begun(folder)
    if not begun:
        require_no_remains(folder)
    if manifest is None and folder.holds_other_things():
        raise InputError(f"{folder}: the folder is not empty and holds no run; name an empty or new one")
    known = _known_files(folder) if begun else []
    plan = make_plan(config, manifest if begun else None, filters, known)
    if manifest is None or manifest["fingerprint"] == plan.fingerprint:
        return plan, manifest
    if not begun:
        return plan, None
    if manifest["values"].get("fingerprint_version") != plan.values["fingerprint_version"]:
        raise InputError(
            f"{folder}: the run was begun with another version of InstructMill, which records other things; go on with "
            "that version, or name another folder"
        )
    if plan.corpus is not None and {**manifest["values"], "corpus": plan.values["corpus"]} == plan.values:
        changed = changed_file(known, plan.corpus.files)
        raise InputError(
            f"{folder}: the corpus is not the one that this run was begun with: {changed or 'its files differ'}; "
            "put the corpus back as it was to go on, or name another folder"
        )
    keys = "; ".join(differing_keys(manifest["values"], plan.values))
    raise InputError(
        f"{folder}: the folder holds a run of another configuration; it differs in {keys}. "
        "Restore these keys to go on with it, or name another folder"
    )


def read(place: Place) -> Snapshot:
    """Open a run to read: a folder or an "s3://bucket/path" URL, finished or still going. What is read is what was
    committed at this moment; see `pipeline/reading.py`.

    Raises InputError where there is no run, or one of another version, or a damaged one.
    """
    return Snapshot(place)


def _begun(folder: Folder) -> bool:
    """Whether a unit is committed: commits follow one another, so the last one says it."""
    return any(read_commit(folder, name).end for name in records(folder, COMMITS)[-1:])


def is_running(place: Place) -> bool:
    """Whether a process holds the run folder open for writing; on a local disk, one of this machine."""
    return is_held(folder_at(place))


def resume_state(plan: Plan, folder: Folder, commits: Sequence[Commit]) -> State:
    """The pool, counters and stop rules as the committed units leave them; the rows come from the shards."""
    imported = [instruction for run in plan.imports for instruction in run.instructions()]
    pool = Pool(plan.seeds, imported, sample_imported=plan.config.pool.sample_imported, window=plan.window)
    stops = Stops(plan.config, plan.window)
    counters = Counters.from_json(commits[-1].counters)
    if commits[-1].end != counters.units:
        raise InputError(
            f"{folder}: the last commit ends at unit {commits[-1].end} and counts {counters.units}: damaged"
        )
    rows_written = sum(file.rows for commit in commits for file in commit.files if file.path.startswith("data/"))
    if rows_written != counters.examples:
        raise InputError(
            f"{folder}: its commits name {rows_written} rows of data/ and count {counters.examples}: damaged; "
            "`instructmill verify` says where"
        )
    tables = read_tables(folder, commits, "pool", ["instruction_id", "instruction"])
    for commit in commits:
        rows: list[tuple[str, str]] = []
        if any(file.path.startswith("pool/") for file in commit.files):
            table = next(tables)
            rows = list(zip(*(column.to_pylist() for column in table.columns), strict=True))
        if len(rows) != sum(admitted for _, admitted in commit.gate):
            raise InputError(f"{folder}: commit {commit.number} counts other rows than its pool/ file holds: damaged")
        remaining = iter(rows)
        for unit, (candidates, admitted) in enumerate(commit.gate, start=commit.first):
            for row in islice(remaining, admitted):
                pool.admit(*row)
            pool.close_unit()
            stops.after_gate(unit, candidates, admitted)
    stops.after_ready(counters.units - 1, counters.tokens, counters.seconds / 3600)
    if (commits[-1].ending or {}).get("reason") == Ended.NO_MORE:
        stops.no_more(counters.units)
    return State(pool, counters, stops, plan.run_name, plan.window)


def log_files(folder: Folder, last: Commit) -> list[str]:
    """The files of `.run/log/`, in order, of a run whose last commit is this one. Who starts a finished run again finds
    nothing to do: what is of attempts after the one that ended it is left out."""
    names = [name for name in folder.names(LOG) if name[0].isdigit()]
    return [name for name in names if last.ending is None or int(name.split("-")[0]) <= last.attempt]


def count_attempts(folder: Folder, last: Commit) -> int:
    """How often a run whose last commit is this one was started; see `log_files`."""
    return sum(name.endswith("-000000.jsonl") for name in log_files(folder, last))


def read_events(place: Place) -> list[dict[str, Any]]:
    """Every event of `.run/log/`, in the order of attempts and flushes. Raises InputError for a damaged file."""
    folder = folder_at(place)
    events: list[dict[str, Any]] = []
    for file in (f"{LOG}/{name}" for name in folder.names(LOG) if name[0].isdigit()):
        try:
            events += map(json.loads, folder.read(file).decode().splitlines())
        except ValueError as error:
            raise InputError(f"{folder}/{file}: not a log of events ({error}); the run folder is damaged") from None
    return events


def _known_files(folder: Folder) -> list[CorpusFile]:
    """The corpus files as a run found them when it was planned."""
    try:
        lines = folder.read(CORPUS_FILES).decode().splitlines()
    except FileNotFoundError:
        return []
    return [CorpusFile(**json.loads(line)) for line in lines]


def _lines(files: Sequence[CorpusFile]) -> bytes:
    return "".join(json.dumps(asdict(file), ensure_ascii=False) + "\n" for file in files).encode()


def _claim_attempt(folder: Folder, target: int | None) -> int:
    """The number of this try: one more than any before it, claimed by a file that is created and never replaced."""
    begun = (int(name.split("-")[0]) for name in folder.names(LOG) if name[0].isdigit())
    attempt = 1 + max(begun, default=0)
    start = {"time": round(time.time(), 3), "event": "start", "attempt": attempt, "target": target, "by": me()}
    if not claim(folder, f"{LOG}/{attempt:04d}-000000.jsonl", (json.dumps(start) + "\n").encode()):
        raise RunStopped(f"{folder}: another process has begun attempt {attempt}; this one has ended")
    return attempt
