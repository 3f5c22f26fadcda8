"""What `instructmill export` writes: the pairs of a seed file or of a run, as rows, a few at a time.

Of a run that is still going these are the rows of the commits that were there when it was opened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.errors import InputError
from pipeline.reading import open_folder
from pipeline.records import Reason, Seed
from pipeline.runs import is_running
from pipeline.seeds import parse_seeds, read_seed_text, seeds_of
from pipeline.shards import Commit, read_tables
from pipeline.storage import OBJECT_STORES, Folder, folder_at

SEED = "seed"  # in the place of a recipe's name
WANTED = 4  # scores from here on are wanted, in preference training
UNWANTED = 2  # and down from here unwanted; 3 is neither

_COLUMNS = "id instruction_id instruction input output parents score source recipe model".split()


class Row(NamedTuple):
    """One instruction with one of its instances.

    `source` and `origin` say where its text is from, in backtranslation. `parents` are the demonstrations it was
    written from. `label` is whether a scored pair is wanted; None where nobody asks.
    """

    id: str
    instruction_id: str
    instruction: str
    input: str
    output: str
    recipe: str = SEED
    parents: tuple[str, ...] = ()
    score: int | None = None
    source: str | None = None
    origin: str | None = None
    model: str | None = None
    label: bool | None = None


@dataclass(frozen=True)
class Source:
    """Where rows come from: `rows` gives them all, and `shown` each instruction with the demonstrations it was written
    from, where there are such. Both may be called again. `manifest` is a run's, None for a seed file."""

    name: str
    rows: Callable[[], Iterator[Row]]
    manifest: dict[str, Any] | None = None
    commits: Sequence[Commit] = ()
    shown: Callable[[], Iterable[tuple[str, Sequence[str]]]] = tuple
    going: bool = False  # still written to

    @property
    def recipe(self) -> str:
        """The run's recipe, or "seed"."""
        return self.manifest["config"]["recipe"] if self.manifest else SEED


def open_source(source: str, *, scored: bool = False, seeds: bool = False) -> Source:
    """A run folder or a seed file. With `scored` the rows are a run's pairs that are wanted or unwanted, those refused
    for a low score among them; with `seeds` the seeds of the run come before its rows.

    Raises InputError where there is neither, or a run that has no such rows.
    """
    remote = source.startswith(OBJECT_STORES)  # seed files are on the disk
    if not remote and (source.startswith("shipped:") or not Path(source).expanduser().is_dir()):
        if not source.startswith("shipped:") and not Path(source).expanduser().is_file():
            raise InputError(f"{source}: there is no such run folder or seed file")
        if scored:
            raise InputError(f"{source}: --format kto is for scored pairs and a seed file has no scores; name a run")
        if seeds:
            raise InputError(f"{source}: --seeds is for a run, and this is a seed file; leave it out")
        tasks = parse_seeds(read_seed_text(source), source)
        if not tasks:
            raise InputError(f"{source}: the file holds no seed task, so there is nothing to export")
        return Source(Path(source.removeprefix("shipped:")).name, lambda: _seed_rows(tasks))
    folder = folder_at(source)
    going = is_running(folder)  # before the ledger: of a run that ends meanwhile all rows are here
    manifest, commits = open_folder(source)
    run = manifest["run"]
    if scored:
        if manifest["config"]["recipe"] == "self-instruct":
            raise InputError(
                f"{source}: --format kto is for scored pairs, and a run of self-instruct has no scores; "
                "name a run of backtranslation or curate"
            )
        if seeds:
            raise InputError("--seeds: seeds have no score, so they are no rows of --format kto; leave it out")
        return Source(run, lambda: _scored_rows(folder, commits), manifest, commits, going=going)
    if not commits[-1].counters["examples"]:
        raise InputError(
            f"{source}: the run has accepted no row yet, so there is nothing to export; let it go on first"
        )
    before = _seeds_of(manifest, source) if seeds else []

    def rows() -> Iterator[Row]:
        yield from _seed_rows(before)
        for table in read_tables(folder, commits, "data", _COLUMNS):
            yield from map(_row, table.to_pylist())

    def shown() -> Iterator[tuple[str, Sequence[str]]]:
        for table in read_tables(folder, commits, "data", ["instruction_id", "parents"]):
            yield from zip(table["instruction_id"].to_pylist(), table["parents"].to_pylist(), strict=True)

    return Source(run, rows, manifest, commits, shown, going)


def _seeds_of(manifest: dict[str, Any], source: str) -> list[Seed]:
    if "seeds" not in manifest:
        raise InputError(f"--seeds: {source} is a run of curate, which has no seeds; leave it out")
    return seeds_of(manifest)


def _seed_rows(tasks: Sequence[Seed]) -> Iterator[Row]:
    for task in tasks:
        for place, one in enumerate(task.instances):
            yield Row(f"{task.id}/{place}", task.id, task.instruction, one.input, one.output)


def _scored_rows(folder: Folder, commits: Sequence[Commit]) -> Iterator[Row]:
    """Commit by commit, the accepted pairs and then those refused for their score."""
    for commit in commits:
        for kind, columns in (("data", _COLUMNS), ("rejected", [*_COLUMNS, "reason"])):
            for table in read_tables(folder, [commit], kind, columns):
                for values in table.to_pylist():
                    score = values["score"]
                    if score is None or values.get("reason", Reason.LOW_SCORE) != Reason.LOW_SCORE:
                        continue
                    if score >= WANTED or score <= UNWANTED:
                        yield _row(values)._replace(label=score >= WANTED)


def _row(values: dict[str, Any]) -> Row:
    source = values["source"] or {}
    return Row(
        id=values["id"] or f"{values['instruction_id']}/0",
        instruction_id=values["instruction_id"],
        instruction=values["instruction"],
        input=values["input"] or "",
        output=values["output"],
        recipe=values["recipe"],
        parents=tuple(values["parents"] or ()),
        score=values["score"],
        source=source.get("id"),
        origin=source.get("origin"),
        model=values["model"],
    )
