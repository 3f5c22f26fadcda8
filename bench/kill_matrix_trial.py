"""What the trials of the kill matrix share: two small runs, their undisturbed rows, and what came of a trial."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.config import Config, load_config
from pipeline.errors import MillError
from pipeline.report import read_rows
from pipeline.shards import TABLES, read_commits
from pipeline.storage import Place, folder_at
from pipeline.testing import ScriptedEngine, run_to_end
from pipeline.testing_faults import FaultyFolder
from pipeline.verify import verify

WINDOW = 8
SELF_INSTRUCT = f"""
name = "k"
target = 250
window = {WINDOW}
[shards]
rows = 50
seconds = 600
"""
BACKTRANSLATION = f"""
recipe = "backtranslation"
name = "k"
window = {WINDOW}
[corpus]
source = "{{corpus}}"
[curation]
min_score = 3
[shards]
rows = 12
seconds = 600
"""
# More requests at once than two windows of units make, so that only the window bounds what is under way.
ENGINE = """
[engine]
kind = "scripted"
[engine.scripted]
capacity = 128
delay_s = 0.06
"""
THINGS = "harbour lantern orchard violin glacier market bicycle compass bakery tunnel meteor theatre".split()

Rows = dict[str, list[str]]


@dataclass(frozen=True)
class Subject:
    """One configuration: its file, and what an undisturbed run had: rows, units, and acts of writing."""

    config: Path
    rows: Rows
    units: int
    acts: int

    def load(self, *overrides: str) -> Config:
        """The configuration with some keys set otherwise."""
        return load_config(str(self.config), overrides)


@dataclass
class Line:
    """One line of the table: a fault, where the run folder was, and what came of so many times of it."""

    fault: str
    where: str
    wanted: int
    times: int = 0
    runs: int = 0
    early: int = 0  # kills before their process had asked anything
    lost: int = 0
    doubled: int = 0
    redone: list[tuple[int, int]] = field(default_factory=list)  # units of each kill, and the longest range of its run
    wrong: list[str] = field(default_factory=list)

    def stream(self, seed: int) -> random.Random:
        """The random stream of the next trial."""
        return random.Random(f"{seed} {self.fault} {self.where} {self.runs}")

    def ended(self, subject: Subject, place: Place, faults: Sequence[str], redone: Sequence[int] = ()) -> bool:
        """Look at the folder of a trial that is over; False where anything is not as it should be.

        `redone` has the units that were asked again after each kill of the driver.
        """
        wrong = list(faults)
        found: Rows = {}
        try:
            found = rows_of(place)
            longest = max(commit.end - commit.first for commit in read_commits(place))
            self.redone += [(units, longest) for units in redone]
            if max(redone, default=0) > 2 * WINDOW + longest:
                wrong.append(f"{max(redone)} units redone after one kill")
            verify(place, full=True)
            wrong += strangers(place)
        except (MillError, OSError) as error:
            wrong.append(str(error))
        for kind in TABLES:
            expected, there = subject.rows[kind], found.get(kind, [])
            if there != expected:
                wrong.append(f"the rows of {kind}/ are others, or in another order")
            self.lost += (Counter(expected) - Counter(there)).total()
            self.doubled += (Counter(there) - Counter(expected)).total()
        self.runs += 1
        if wrong:
            self.wrong.append(f"{self.fault}, {place}: {'; '.join(wrong)}")
        return not wrong


def strangers(place: Place) -> list[str]:
    """The shards that no commit names, which `datasets` would read all the same, and files that are not whole."""
    named = {file.path for commit in read_commits(place) for file in commit.files}
    there = {f"{kind}/{name}" for kind in TABLES for name in folder_at(place).names(kind)}
    return [f"{path}: no commit names it" for path in sorted(there - named)]


def rows_of(place: Place) -> Rows:
    """Every row of a run folder as text, by table, in order."""
    return {kind: [json.dumps(row, sort_keys=True) for row in read_rows(place, kind)] for kind in TABLES}


def subjects(work: Path) -> list[Subject]:
    """Both recipes, each run undisturbed once in this process."""
    corpus = work / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"text": _text(number)}) + "\n" for number in range(110)))
    found = []
    for name, table in (("self-instruct", SELF_INSTRUCT), ("backtranslation", BACKTRANSLATION)):
        config = work / f"{name}.toml"
        config.write_text(table.format(corpus=corpus) + ENGINE)
        folder = FaultyFolder(work / f"{name}-whole", lambda *_: None)
        asyncio.run(run_to_end(load_config(str(config)), folder, ScriptedEngine()))
        found.append(Subject(config, rows_of(folder), read_commits(folder)[-1].end, folder.acts))
    return found


def _text(number: int) -> str:
    """A text of some 800 characters, like no other."""
    rng = random.Random(number)
    pairs = [(*rng.choices(THINGS, k=2), rng.randint(2, 9999)) for _ in range(15)]
    return " ".join(f"The {one} of {number} stood by a {two} with {many} marks." for one, two, many in pairs)
