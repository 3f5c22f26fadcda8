"""A run: a folder with a manifest and closed shards. Plan one, open it to write, or read what it holds."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TextIO

from pipeline.config import Config
from pipeline.counters import Counters
from pipeline.driver import State
from pipeline.errors import InputError, RunStopped
from pipeline.filters import OwnFilter
from pipeline.fingerprint import differing_keys
from pipeline.other_runs import PairsAgain
from pipeline.plan import Plan, constants, make_plan, manifest_text
from pipeline.pool import Pool
from pipeline.records import UnitResult
from pipeline.segment_store import FOLDER as SEGMENTS
from pipeline.segment_store import SegmentStore, read_parts
from pipeline.segments import SegmentReader
from pipeline.shards import (
    Commit,
    Shards,
    create_file,
    read_commits,
    read_manifest,
    read_tables,
    remove_strangers,
    write_file,
)
from pipeline.sources import CorpusFile, changed_file
from pipeline.stops import Ended, Ending, Stops
from pipeline.unit import Units

CORPUS_FILES = ".run/corpus.jsonl"


class Run:
    """A run folder open for writing: the only writer, with the state its commits leave."""

    def __init__(self, folder: Path, plan: Plan, lock: TextIO) -> None:
        self.folder = folder
        self.plan = plan
        self._lock = lock
        self.attempt = _claim_attempt(folder, plan.config.resolved_target)
        self._shards = Shards(folder, self.attempt, constants(plan))
        self.commits = read_commits(folder)
        self._events: list[dict[str, Any]] = []
        self._flushes = 0
        named = [file.path for commit in self.commits for file in commit.files]
        named += [f"{SEGMENTS}/{part.file}" for part in read_parts(folder)]
        if removed := remove_strangers(folder, named):
            self.event("removed_uncommitted_files", files=removed)
        if not self.commits:
            empty: dict[str, Sequence[object]] = {"data": []}
            self.commits.append(self._shards.write_commit(0, range(0), empty, Counters().to_json(), []))
        self.state = resume_state(plan, folder, self.commits)
        self.commits = [_without_gate(commit) for commit in self.commits]
        self.segments: SegmentStore | None = None
        if plan.corpus is not None:
            reader = SegmentReader(plan.corpus, plan.config.corpus)
            self.segments = SegmentStore(folder, reader, self.attempt, plan.corpus.bytes)

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
        commit = self._shards.write_commit(len(self.commits), units, tables, counters.to_json(), gate, final)
        self.commits.append(_without_gate(commit))
        self.event("commit", number=commit.number, first=commit.first, end=commit.end)
        with suppress(OSError):  # the commit is made; its event waits for the next flush
            self.flush_events()

    def event(self, kind: str, **values: Any) -> None:
        """Note what happened, with the time, for `.run/log/`."""
        self._events.append({"time": round(time.time(), 3), "event": kind, **values})

    def flush_events(self) -> None:
        """Write the events noted since the last flush as a file of their own."""
        if self._events:
            lines = "".join(json.dumps(event) + "\n" for event in self._events)
            self._flushes += 1
            write_file(self.folder / ".run" / "log" / f"{self.attempt:04d}-{self._flushes:06d}.jsonl", lines.encode())
            self._events = []

    def close(self) -> None:
        """Write what is noted and let another process have the folder."""
        try:
            self.flush_events()
        finally:
            self._lock.close()


def open_run(config: Config, folder: Path, filters: Sequence[OwnFilter] = ()) -> Run:
    """Open a run folder to write: a new one is planned, one of the same configuration (and filters) goes on.

    Raises InputError for a folder that cannot be written or belongs to another configuration, and RunStopped when
    another process on this machine is writing to it.
    """
    return open_planned(folder, *plan_for(folder, config, filters))


def open_planned(folder: Path, plan: Plan, manifest: dict[str, Any] | None) -> Run:
    """Open a run folder to write by what `plan_for` said of it. Raises as `open_run` does."""
    try:
        for name in ("commits", "log"):
            (folder / ".run" / name).mkdir(parents=True, exist_ok=True)
        lock = (folder / ".run" / "lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{folder}: the run folder cannot be written ({error.strerror}); name another") from None
    if not _locked(lock):
        lock.seek(0)
        holder = lock.read().strip() or "unknown"
        lock.close()
        raise RunStopped(f"{folder}: another process is writing to this run ({holder}); wait for it or stop it")
    lock.truncate(0)
    lock.write(f"process {os.getpid()} on {platform.node()}")
    lock.flush()
    found = read_manifest(folder)  # under the lock: another process may have been here since the plan was made
    if found != manifest and _begun(folder):
        lock.close()
        raise RunStopped(f"{folder}: another process has begun a run here meanwhile; run the same command again")
    if manifest is None:
        shutil.rmtree(folder / SEGMENTS, ignore_errors=True)  # of a plan that made nothing
        if plan.corpus is not None:
            write_file(folder / CORPUS_FILES, _lines(plan.corpus.files))
        path, text = folder / ".run" / "manifest.json", manifest_text(plan).encode()
        if found is None:
            create_file(path, text)
        else:  # of a plan that made nothing: replaced in one act; commit 0 is the same for every plan
            write_file(path, text)
    return Run(folder, plan, lock)


def _locked(lock: TextIO) -> bool:
    """Take the lock. Tried for a moment, since a reader that asks whether it is held holds it for that moment."""
    for _ in range(5):
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(0.05)
    return False


def plan_for(folder: Path, config: Config, filters: Sequence[OwnFilter] = ()) -> tuple[Plan, dict[str, Any] | None]:
    """The plan of a configuration for a folder, and the manifest of the run there that it goes on with, or None.

    A plan that has made nothing (its engines never started) gives way to another. Raises InputError where the folder
    holds no run but other things, or the begun run of another configuration.
    """
    manifest = read_manifest(folder)
    if manifest is None and folder.is_dir() and any(entry.name != ".run" for entry in folder.iterdir()):
        raise InputError(f"{folder}: the folder is not empty and holds no run; name an empty or new one")
    begun = manifest is not None and _begun(folder)
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


def _begun(folder: Path) -> bool:
    """Whether a unit is committed."""
    return any(commit.end for commit in read_commits(folder))


def is_running(folder: Path) -> bool:
    """Whether a process on this machine holds the run folder open for writing."""
    try:
        with (folder / ".run" / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def resume_state(plan: Plan, folder: Path, commits: Sequence[Commit]) -> State:
    """The pool, counters and stop rules as the committed units leave them; the rows come from the shards."""
    imported = [instruction for run in plan.imports for instruction in run.instructions()]
    pool = Pool(plan.seeds, imported, sample_imported=plan.config.pool.sample_imported, window=plan.window)
    stops = Stops(plan.config, plan.window)
    counters = Counters.from_json(commits[-1].counters)
    if commits[-1].end != counters.units:
        raise InputError(
            f"{folder}: the last commit ends at unit {commits[-1].end} and counts {counters.units}: damaged"
        )
    for commit in commits:
        tables = read_tables(folder, [commit], "pool", ["instruction_id", "instruction"])
        rows = [row for table in tables for row in table.to_pylist()]
        if len(rows) != sum(admitted for _, admitted in commit.gate):
            raise InputError(f"{folder}: commit {commit.number} counts other rows than its pool/ file holds: damaged")
        remaining = iter(rows)
        for unit, (candidates, admitted) in enumerate(commit.gate, start=commit.first):
            for _ in range(admitted):
                row = next(remaining)
                pool.admit(row["instruction_id"], row["instruction"])
            pool.close_unit()
            stops.after_gate(unit, candidates, admitted)
    stops.after_ready(counters.units - 1, counters.tokens, counters.seconds / 3600)
    if (commits[-1].ending or {}).get("reason") == Ended.NO_MORE:
        stops.no_more(counters.units)
    return State(pool, counters, stops, plan.run_name, plan.window)


def read_events(folder: Path) -> list[dict[str, Any]]:
    """Every event of `.run/log/`, in the order of attempts and flushes."""
    files = sorted((folder / ".run" / "log").glob("[0-9]*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def _without_gate(commit: Commit) -> Commit:
    """A commit as it is kept in memory, which must not grow with the units of a run."""
    return replace(commit, gate=())


def _known_files(folder: Path) -> list[CorpusFile]:
    """The corpus files as a run found them when it was planned."""
    path = folder / CORPUS_FILES
    if not path.is_file():
        return []
    return [CorpusFile(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def _lines(files: Sequence[CorpusFile]) -> bytes:
    return "".join(json.dumps(asdict(file), ensure_ascii=False) + "\n" for file in files).encode()


def _claim_attempt(folder: Path, target: int | None) -> int:
    """The number of this try: one more than any before it, claimed by a file that is created and never replaced."""
    log = folder / ".run" / "log"
    attempt = 1 + max((int(file.name.split("-")[0]) for file in log.glob("[0-9]*-*.jsonl")), default=0)
    start = {"time": round(time.time(), 3), "event": "start", "attempt": attempt, "target": target}
    if not create_file(log / f"{attempt:04d}-000000.jsonl", (json.dumps(start) + "\n").encode()):
        raise RunStopped(f"{folder}: another process has begun attempt {attempt}; this one has ended")
    return attempt
