"""What the invariants of the design rest on and no other test holds."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time

from pipeline.shards import read_commits
from pipeline.storage import folder_at
from pipeline.testing import ScriptedEngine, run_to_end
from pipeline.unit import Unit


def unit(number: int, run_seed: int = 42) -> Unit:
    """A unit that draws nothing from a pool."""
    return Unit(number, "t", run_seed, lambda size, machine_made, rng: [])


def test_every_unit_and_candidate_has_a_random_stream_of_its_own() -> None:
    """Another unit, candidate or run seed draws other numbers; the same one draws the same again."""

    def drawn() -> list[float]:
        of_units = [unit(number, seed).stream() for seed in (42, 7) for number in (0, 1)]
        of_candidates = [unit(0).stream(candidate) for candidate in (0, 1)] + [unit(1).stream(0), unit(0, 7).stream(0)]
        return [stream.random() for stream in of_units + of_candidates]

    assert len(set(drawn())) == 8
    assert drawn() == drawn()


def test_a_created_file_is_whole_as_soon_as_it_is_seen(tmp_path) -> None:
    """Whoever waits for a commit record, and reads it at the first moment that it is there, finds all of it."""
    folder, content = folder_at(tmp_path / "r"), b"record" * 500_000
    names = [f"commits/{number:06d}.json" for number in range(30)]
    seen: list[bytes] = []
    over = threading.Event()

    def read() -> None:
        for name in names:
            while not over.is_set():
                with contextlib.suppress(FileNotFoundError):
                    seen.append(folder.read(name))
                    break

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number, name in enumerate(names, start=1):
            assert folder.create(name, content)
            while len(seen) < number and reader.is_alive():
                time.sleep(0.001)
    finally:
        over.set()
        reader.join()

    assert [len(each) for each in seen] == [len(content)] * len(names)


def test_a_range_is_committed_when_a_table_is_full_and_not_before(scripted, tmp_path) -> None:
    """Every commit but the first and the last has one table of `shards.rows` rows or more."""
    asyncio.run(run_to_end(scripted(target=120), tmp_path / "r", ScriptedEngine()))
    fullest = [max(file.rows for file in commit.files) for commit in read_commits(tmp_path / "r")]

    assert len(fullest) > 4
    assert min(fullest[1:-1]) >= 25


def test_what_a_run_remembers_of_its_commits_does_not_grow(scripted, tmp_path) -> None:
    """After many commits, and after a restart, it holds the last one alone, without its units."""
    for target in (60, 120):
        run = asyncio.run(run_to_end(scripted(target=target), tmp_path / "r", ScriptedEngine()))

        assert [commit.number for commit in run.commits] == [len(read_commits(tmp_path / "r")) - 1]
        assert run.commits[0].gate == ()
