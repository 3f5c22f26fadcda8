"""The full nearest of what a run admitted: what its gate would have recorded with a floor of 0."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.console import clock
from pipeline.errors import InputError, RunStopped
from pipeline.novelty_files import DEFAULTS, Filter, Options, Tally, require_pool, scorer_for
from pipeline.other_runs import other_run
from pipeline.reading import open_folder
from pipeline.row_files import ending, read_pieces
from pipeline.row_writer import require_new
from pipeline.runs import is_running
from pipeline.scoring import Scorer
from pipeline.seeds import seeds_of
from pipeline.storage import folder_at

FILLED = pa.schema([("instruction_id", pa.string()), ("nearest_id", pa.string()), ("nearest_score", pa.float64())])


def fill(folder: Path, out: Path | None = None, workers: int = 0) -> str:
    """Write the full nearest of every admitted instruction of a run that is not running, and return what was written.

    Looked for, whatever its F, among the seeds and everything admitted before. Goes to RUN/.run/nearest.parquet, which
    is replaced, or to `out`, which must be new. Raises InputError where the folder holds no run, or where its seeds are
    not what they were, and RunStopped where another process is writing to it.
    """
    if folder.is_file():
        raise InputError(f"{folder}: --fill takes a run folder; for a file leave --fill out")
    manifest, _ = open_folder(folder)
    require_pool(folder)
    if is_running(folder):
        raise RunStopped(f"{folder}: another process is writing to this run; wait for it or stop it")
    if out is not None:
        require_new(out)
        if ending(out) != ".parquet":
            raise InputError(f"{out}: --fill writes Parquet; give --out a name that ends in .parquet")
    names, texts = held_first(manifest)
    tokenizer = manifest["config"]["novelty"].get("tokenizer", DEFAULTS.tokenizer)
    options = Options(folder, threshold=1.0, floor=0.0, tokenizer=tokenizer)  # nothing is above 1: all are kept
    tally = Tally()

    async def run(scorer: Scorer) -> list[dict[str, Any]]:
        filter = Filter(options, scorer)
        filter.hold(names, texts)
        rows = []
        try:
            for piece in read_pieces(folder, "instruction"):
                judged = await filter.judge(piece.names, piece.texts)
                tally.add(judged)
                values = (
                    (name, each.nearest, each.nearest_score) for name, each in zip(piece.names, judged, strict=True)
                )
                rows += [dict(zip(FILLED.names, value, strict=True)) for value in values]
        finally:
            await scorer.close()
        return rows

    try:
        with scorer_for(tokenizer, 0.0, workers) as scorer:
            rows = asyncio.run(run(scorer))
    finally:
        tally.end()
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=FILLED), sink, compression="zstd")
    path = out or folder / ".run" / "nearest.parquet"
    folder_at(path.parent).write(path.name, sink.getvalue().to_pybytes())
    return f"{len(rows):,} instructions with their nearest in {path}, {clock(tally.seconds)}"


def held_first(manifest: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Ids and instructions of what a run's pool began with: its seeds, then what it had from other runs."""
    seeds = seeds_of(manifest)
    names, texts = [seed.id for seed in seeds], [seed.instruction for seed in seeds]
    for entry in manifest.get("imports", ()):
        for each in other_run(entry["folder"], "pool.from", [entry], pinned_only=True).instructions():
            names.append(each.id)
            texts.append(each.instruction)
    return names, texts
