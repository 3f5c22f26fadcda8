"""A run, read: its facts and its tables as they were at one moment.

What is committed never changes. So the ledger is read once, when a run is opened, and whatever is read later is of that
prefix, also while the run goes on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pipeline.counters import Counters
from pipeline.errors import InputError
from pipeline.lock import is_held
from pipeline.shards import COMMITS, MANIFEST, SCHEMA_VERSION, TABLES, Commit, read_commits, read_manifest, records
from pipeline.storage import Folder, Place, folder_at
from pipeline.tables import Rows

if TYPE_CHECKING:
    from pipeline.lineage import Lineage

ANCESTORS = 100
_SHARD = re.compile(r"[a-z]+-(\d{6})(-a\d+)?\.parquet")


class Snapshot:
    """A run as it was when it was opened: what is committed by then, whatever comes later.

    `manifest` is what planning wrote down, `counters` are the counts over the committed `units`, `ending` says why the
    run ended (None where it has not), `commits` is the ledger without what each unit did at the gate, `state` is
    "running", "finished" or "stopped"; on a local disk a run is seen running only from the machine it runs on.
    """

    def __init__(self, place: Place) -> None:
        """Raises InputError where there is no run, or one of another version, or a damaged one; OSError where the
        storage fails."""
        self.folder = folder_at(place)
        running = is_held(self.folder)  # before the ledger: of a run that ends meanwhile the end is seen
        self.manifest, commits = open_folder(self.folder)
        self.commits = tuple(replace(commit, gate=()) for commit in commits)  # which is long
        last = commits[-1]
        self.name: str = self.manifest["run"]
        self.recipe: str = self.manifest["config"]["recipe"]
        self.units = last.end
        self.counters = Counters.from_json(last.counters)
        self.ending = last.ending
        self.state = "running" if running else "finished" if last.ending else "stopped"

    def __repr__(self) -> str:
        so_far = " so far" if self.state == "running" else ""
        return (
            f"run {self.name} in {self.folder}: {self.state}; {self.examples.count:,} examples, "
            f"{self.pool.count:,} in the pool, {self.rejects.count:,} rejects{so_far}"
        )

    @property
    def examples(self) -> Rows:
        """The accepted rows, `data/`."""
        return self._rows("data")

    @property
    def pool(self) -> Rows:
        """The admitted instructions, `pool/`."""
        return self._rows("pool")

    @property
    def rejects(self) -> Rows:
        """What was refused, `rejected/`."""
        return self._rows("rejected")

    def refresh(self) -> Snapshot:
        """The run as it is now. This snapshot stays as it was."""
        return Snapshot(self.folder)

    def lineage(self, id: str, most: int = ANCESTORS) -> Lineage:
        """Where a row, an instruction or a seed comes from: see `pipeline.lineage.trace`."""
        from pipeline.lineage import trace

        return trace(self, id, most)

    def _rows(self, kind: str) -> Rows:
        return Rows(self.folder, kind, self.commits, None if self.recipe == "curate" else self.name)


def open_folder(place: Place) -> tuple[dict[str, Any], list[Commit]]:
    """Manifest and ledger of a run folder. Raises InputError when it holds no run, a damaged one, or one of another
    version."""
    folder = folder_at(place)
    manifest = read_manifest(folder)
    if manifest is not None:
        _require_schema(folder, manifest)
    commits = read_commits(folder) if manifest else []
    if manifest is None or not commits:
        require_no_remains(folder)
        raise InputError(f"{folder}: the folder holds no run; `instructmill run CONFIG --out {folder}` makes one")
    return manifest, commits


def require_no_remains(folder: Folder) -> None:
    """Raises InputError where a folder without a manifest or without a ledger holds what is left of a run."""
    ledger = bool(records(folder, COMMITS))
    numbers = [found[1] for kind in TABLES for name in folder.names(kind) if (found := _SHARD.fullmatch(name))]
    try:
        folder.read(MANIFEST)
    except (FileNotFoundError, NotADirectoryError):
        if ledger or numbers:
            raise InputError(f"{folder}: a damaged run: {MANIFEST} is missing; put it back") from None
        return
    if not ledger and any(int(number) for number in numbers):  # those of commit 0 come before its record
        raise InputError(f"{folder}: a damaged run: its ledger, the files in {COMMITS}/, is missing; put it back")


def _require_schema(folder: Folder, manifest: Mapping[str, Any]) -> None:
    """Raises InputError where the tables are of another version, which their manifest knows before a file is read."""
    found = manifest.get("values", {}).get("schema_version", SCHEMA_VERSION)
    if found != SCHEMA_VERSION:
        age = "a newer" if found > SCHEMA_VERSION else "an older"
        made_by = manifest.get("versions", {}).get("instructmill")
        use = f"InstructMill {made_by}" if made_by else "that version"
        raise InputError(
            f"{folder}: made by {age} version of InstructMill (its tables are of schema {found}, this one reads "
            f"{SCHEMA_VERSION}); read it with {use}"
        )
