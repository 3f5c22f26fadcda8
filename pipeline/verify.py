"""`instructmill verify`: is a run folder whole? From its files alone, live or dead; the first fault in one sentence.

One commit is in memory at a time; beside it the ids of what was admitted and, for the novelty check, their tokens
(0.2 to 0.3 KB each).
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from pipeline.counters import Counters
from pipeline.errors import InputError
from pipeline.fingerprint import fingerprint
from pipeline.novelty import NoveltyIndex
from pipeline.novelty_fill import held_first
from pipeline.reading import open_folder
from pipeline.records import Segment
from pipeline.recount import COLUMNS, Recount, Table
from pipeline.runs import is_running, read_events
from pipeline.segment_parts import FOLDER as SEGMENTS
from pipeline.segment_parts import Part, read_parts
from pipeline.shards import COMMITS, MANIFEST, TABLES, Commit, decode, shard_name
from pipeline.stops import Ended
from pipeline.storage import Folder, Place, folder_at

SAMPLE = 300  # instructions that are compared with all others, without --full


def verify(place: Place, *, full: bool = False) -> str:
    """What was checked and found whole, in a few lines. With `full` every admitted instruction is compared.

    Checks the commits that are there when it begins. Raises InputError naming the first fault by file and row, and
    OSError where the storage fails.
    """
    folder = folder_at(place)
    # Before the ledger: what is under way in a live run then is in the ledger, or is named by nothing yet.
    there = [f"{under}/{name}" for under in (*TABLES, SEGMENTS) for name in folder.names(under)]
    logged = [event["number"] for event in read_events(folder) if event["event"] == "commit"]
    manifest, commits = open_folder(folder)
    _require_manifest(folder, manifest)
    _require_ledger(folder, manifest, commits, logged)
    texts = _Texts(folder)
    recount = Recount(manifest)
    ids: list[str] = []
    held = _Held(folder, manifest)
    for commit in commits:
        data, pool, rejected = (_table(folder, commit, kind) for kind in TABLES)
        recount.add(_record(folder, commit), commit, data, pool, rejected)
        if manifest["config"]["recipe"] == "backtranslation":
            texts.require_sources(commit, data, rejected)
        held.extend(pool)
        ids += [row["instruction_id"] for row in pool.rows]
    texts.finish()
    compared = held.require_apart(commits, ids, full=full)
    counters = Counters.from_json(commits[-1].counters)
    named = {file.path for commit in commits for file in commit.files} | texts.files
    lines = [
        f"OK: run {manifest['run']} in {folder}{', which is being written to' if is_running(folder) else ''}",
        f"  {len(commits):,} commits in sequence, of {counters.units:,} units without gap or overlap",
        f"  {len(named):,} files whole, of this version's schema, with the rows and hashes recorded",
        f"  {counters.admitted:,} admitted, {counters.examples:,} rows and {recount.rejects:,} rejects in order, no id "
        "twice; counts and gate as recorded, the three sums close",
        *texts.lines(),
        *compared,
    ]
    if strangers := [name for name in there if name.endswith(".parquet") and name not in named]:
        lines.append(
            f"  note: {len(strangers)} file(s) that no record names, such as {strangers[0]}: of a commit under way, or "
            "left by a killed run; the next start removes them"
        )
    return "\n".join(lines)


def _record(folder: Folder, commit: Commit) -> str:
    return f"{folder}/{COMMITS}/{commit.number:06d}.json"


def _require_manifest(folder: Folder, manifest: Mapping[str, Any]) -> None:
    """The manifest has what is needed of it, and its fingerprint is that of its values."""
    for key in ("run", "fingerprint", "values", "config", "window"):
        if key not in manifest:
            raise InputError(f"{folder}/{MANIFEST}: {key} is missing; the run folder is damaged")
    if manifest["fingerprint"] != fingerprint(manifest["values"]):
        raise InputError(f"{folder}/{MANIFEST}: its fingerprint is not that of its values; one of them was changed")


def _require_ledger(
    folder: Folder, manifest: Mapping[str, Any], commits: Sequence[Commit], logged: Collection[int]
) -> None:
    """Ranges of units without gap or overlap from 0, files under the names they must have, sums that close, and an
    ending that no unit follows where none can."""
    end, attempt, ended = 0, 1, False
    for commit in commits:
        record = _record(folder, commit)
        if commit.first != end or commit.end < commit.first or (commit.number == 0 and commit.end):
            raise InputError(
                f"{record}: its units are [{commit.first}, {commit.end}), and the one before ends at {end}"
            )
        if ended and commit.end > commit.first:
            raise InputError(f"{record}: it has units, and the one before says that there are no more")
        if len(commit.gate) != commit.end - commit.first:
            raise InputError(f"{record}: it has {commit.end - commit.first} units, and {len(commit.gate)} at the gate")
        if commit.attempt < attempt:
            raise InputError(f"{record}: of attempt {commit.attempt}, and the one before of attempt {attempt}")
        kinds = [file.path.split("/")[0] for file in commit.files]
        known = [shard_name(kind, commit.number, commit.attempt) for kind in kinds if kind in TABLES]
        if [file.path for file in commit.files] != known or len(set(kinds)) != len(kinds):
            raise InputError(
                f"{record}: it names files that are none of its own: {', '.join(file.path for file in commit.files)}"
            )
        _require_ending(record, commit)
        for what, left, parts, right in _sums(record, commit):
            if left != right:
                raise InputError(f"{record}: its sum is open: {left:,} {what}, but {parts} = {right:,}")
        end, attempt = commit.end, commit.attempt
        ended = (commit.ending or {}).get("reason") == Ended.NO_MORE
    if logged and max(logged) >= len(commits):
        raise InputError(
            f"{folder}/{COMMITS}/{max(logged):06d}.json: the log tells of this commit, and it is not there"
        )


def _sums(record: str, commit: Commit) -> list[tuple[str, int, str, int]]:
    try:
        return Counters.from_json(commit.counters).sums()
    except (TypeError, AttributeError) as error:
        raise InputError(f"{record}: its counters cannot be read ({error}); the run folder is damaged") from None


def _require_ending(record: str, commit: Commit) -> None:
    """An ending names a rule there is, and a unit that is committed."""
    if commit.ending is None:
        return
    reason, unit = commit.ending.get("reason"), commit.ending.get("unit")
    if reason not in set(Ended) or not isinstance(unit, int) or not -1 <= unit < commit.end:
        raise InputError(f"{record}: it says that the run ended after unit {unit} for {reason!r}, which cannot be")


def _content(folder: Folder, name: str, sha256: str | None) -> bytes:
    """The bytes of a file that a record names."""
    try:
        content = folder.read(name)
    except FileNotFoundError:
        raise InputError(f"{folder}/{name}: a record names this file, and it is not there") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise InputError(f"{folder}/{name}: its SHA-256 is not the recorded one; the file was changed or damaged")
    return content


def _table(folder: Folder, commit: Commit, kind: str) -> Table:
    """The rows of one table in a commit, those columns of them that are looked at."""
    for file in commit.files:
        if file.path.startswith(f"{kind}/"):
            path = f"{folder}/{file.path}"
            found = decode(_content(folder, file.path, file.sha256), path, kind, COLUMNS[kind])
            if found.num_rows != file.rows:
                raise InputError(f"{path}: it has {found.num_rows} rows, and its record says {file.rows}")
            return Table(path, found.to_pylist())
    return Table(f"{folder}/{kind}")


class _Texts:
    """The segments of a run over a corpus, one part at a time, as its rows come by."""

    def __init__(self, folder: Folder) -> None:
        """Raises InputError where the records are not in sequence."""
        self._folder = folder
        self._parts = read_parts(folder)
        self.files = {f"{SEGMENTS}/{part.file}" for part in self._parts if part.file}
        self._segments = self._read()

    def _read(self) -> Iterator[Segment]:
        """Every segment in order; each part is held against its record first."""
        characters = 0
        for part in self._parts:
            record = f"{self._folder}/{SEGMENTS}/{part.number:06d}.json"
            segments = self._part(part, record)
            characters += sum(len(segment.text) for segment in segments)
            counts = _tally_of(part, record)
            if counts != (part.end + sum(part.tally["refused"].values()), part.end, characters):
                raise InputError(
                    f"{record}: its tally does not add up: pieces, kept and characters are {_listed(counts)}; up to it "
                    f"{part.end} segments of {characters} characters are kept, and {part.tally['refused']} refused"
                )
            if part.at_end and part is not self._parts[-1]:
                raise InputError(f"{record}: it says that the corpus is at its end, and is not the last part")
            yield from segments

    def _part(self, part: Part, record: str) -> list[Segment]:
        rows: list[dict[str, Any]] = []
        if part.file is not None:
            if "/" in part.file:
                raise InputError(f"{record}: it names a file that is not its own: {part.file}")
            name = f"{SEGMENTS}/{part.file}"
            rows = decode(_content(self._folder, name, part.sha256), f"{self._folder}/{name}", "segments").to_pylist()
        if len(rows) != part.end - part.first:
            raise InputError(f"{record}: it has segments [{part.first}, {part.end}), and its file {len(rows)} rows")
        return [Segment(**row) for row in rows]

    def require_sources(self, commit: Commit, data: Table, rejected: Table) -> None:
        """Unit n is about segment n: every row of it says so, and an accepted one has its text."""
        of_unit: dict[int, Segment] = {}
        for unit in range(commit.first, commit.end):
            segment = next(self._segments, None)
            if segment is None:
                raise InputError(f"{_record(self._folder, commit)}: there is no segment for unit {unit}")
            of_unit[unit] = segment
        for table in (data, rejected):
            for number, row in table:
                segment = of_unit[row["unit"]]
                if (row["source"] or {}).get("id") != segment.id:
                    raise table.fault(number, f"its source is not {segment.id}, the segment of unit {row['unit']}")
                if table is data and row["output"] != segment.text:
                    raise table.fault(number, f"its output is not the text of {segment.id}")

    def finish(self) -> None:
        """Look at the parts that no unit has come to yet."""
        for _ in self._segments:
            pass

    def lines(self) -> list[str]:
        """What was found whole; nothing for a run without a corpus."""
        if not self._parts:
            return []
        last = self._parts[-1]
        return [f"  {len(self._parts):,} parts of segments in sequence, {last.end:,} segments, tallies add up"]


def _tally_of(part: Part, record: str) -> tuple[int, int, int]:
    """Pieces, kept and characters up to a part."""
    try:
        pieces, kept, characters, _ = (part.tally[key] for key in ("pieces", "kept", "characters", "refused"))
    except (KeyError, TypeError):
        raise InputError(
            f"{record}: not a record of segments (its tally is not whole); the run folder is damaged"
        ) from None
    return pieces, kept, characters


def _listed(counts: Sequence[int]) -> str:
    return ", ".join(f"{count:,}" for count in counts)


class _Held:
    """Everything that the gate has held, and whether any two of it are nearer than the threshold (invariant 5)."""

    def __init__(self, folder: Folder, manifest: Mapping[str, Any]) -> None:
        self._folder = folder
        novelty = manifest["config"]["novelty"]
        self._threshold: float = novelty["threshold"]
        self._index: NoveltyIndex | None = None
        self._names: list[str] = []
        self._note: list[str] = []
        if not novelty["enabled"]:
            return
        self._index = NoveltyIndex(novelty["tokenizer"], self._threshold)
        try:
            self._names, texts = held_first(dict(manifest))
        except InputError as error:  # they are no files of this folder
            self._note = [f"  note: not compared with its seeds and imports: {error}"]
        else:
            self._index.extend(texts)

    def extend(self, pool: Table) -> None:
        """Hold what one commit admitted."""
        if self._index is None:
            return
        for number, row in pool:
            if not self._index.has_tokens(row["instruction"]):
                raise pool.fault(number, "admitted, and without a token to compare it by")
            self._index.add(row["instruction"])

    def require_apart(self, commits: Sequence[Commit], ids: Sequence[str], *, full: bool) -> list[str]:
        """Raises InputError naming two that are nearer than the threshold; returns what was compared."""
        if self._index is None or not ids:
            return []
        chosen = range(len(ids)) if full else sorted(random.Random(0).sample(range(len(ids)), min(SAMPLE, len(ids))))
        wanted = set(chosen)
        names, first, position = [*self._names, *ids], len(self._names), 0
        for commit in commits:
            for file in commit.files:
                if not file.path.startswith("pool/") or not wanted & set(range(position, position + file.rows)):
                    position += file.rows if file.path.startswith("pool/") else 0
                    continue
                for number, row in _table(self._folder, commit, "pool"):
                    if position in wanted:
                        near = self._nearest(row["instruction"], first + position, both=not full)
                        if near is not None:
                            raise InputError(
                                f"{self._folder}/{file.path}, row {number}: {row['instruction_id']} is nearer to "
                                f"{names[near[0]]} than the threshold of {self._threshold}: ROUGE-L {near[1]:.4f}"
                            )
                    position += 1
        others = f"{len(self._names):,} seeds and imports and all admitted" if self._names else "all admitted"
        what, more = f"all {len(ids):,}", ""
        if len(chosen) < len(ids):
            what, more = f"{len(chosen):,} of {len(ids):,}", "; --full compares all"
        return [f"  {what} admitted compared with {others}: none nearer than {self._threshold}{more}", *self._note]

    def _nearest(self, text: str, position: int, *, both: bool) -> tuple[int, float] | None:
        """The nearest to what is held at `position` among what is before it, or with `both` after it, above the
        threshold."""
        assert self._index is not None
        spans = [(0, position), (position + 1, len(self._index))] if both else [(0, position)]
        for span in spans:
            found = self._index.nearest(text, *span)
            if found is not None and found[1] > self._threshold:
                return found
        return None
