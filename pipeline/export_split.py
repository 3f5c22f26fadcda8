"""Which rows of an export are for training and which for testing, so that no relative of one is among the other.

Rows fall in *families*, and a family's hash says on which side it is, so the same rows are the test rows in every
format, in every round of `curate` and on every machine:

* backtranslation: the document. All segments of one file, and all rows of a corpus with the same origin (its URL).
* self-instruct: the prompt. All instructions of one unit with all their instances.
* a seed file: the task.

In self-instruct an instruction also has parents: the instructions that its prompt showed. Seeds are shown everywhere
and make nobody relatives; put in with `--seeds` they are for training. But each unit shows two machine-made
instructions as well, drawn from all that the pool holds, and so nearly all of a run hangs together: families joined
along parents would be one family, and following one of two parents only would leave the other on the other side. So
families stay single units, and what would straddle is left out instead: a row for training whose instruction was shown
to a test unit, or whose prompt showed an instruction of one. The sentence at the end counts them. Nothing is left out
with a test share of 0, nor where prompts show seeds alone. More distant kin, such as two units that were shown the same
instruction, may be on two sides.

Memory grows with the test rows' parents alone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Literal

from pipeline.export_rows import SEED, Row, Source
from pipeline.sources import COMPRESSED, KINDS

Side = Literal["train", "test"]
_CUT = tuple(
    ending + packed for ending, kind in KINDS.items() if kind in ("markdown", "html") for packed in ("", *COMPRESSED)
)  # files cut by their headers
_PIECE = re.compile(r"#\d+\Z")
_MACHINE_MADE = re.compile(r"(.+)/\d+\Z")


def family(row: Row) -> str:
    """What a row stays together with: its document, its prompt, or its seed task."""
    if row.recipe == SEED:
        return row.instruction_id
    if row.source is None:
        return _unit(row.instruction_id)
    document = _PIECE.sub("", row.source)
    if document.lower().endswith(_CUT):
        return document  # the origin of its segments is their headers
    return row.origin or row.source


def is_for_test(name: str, share: float) -> bool:
    """Whether a family of this name is among the `share` (0 to 1) of families for testing."""
    return _place(name) < share * 2**64


def share_that_splits(names: Iterable[str]) -> float | None:
    """The least share, in hundredths, that sets some of these families aside and not all; None where none does.

    It is for a person to choose: taken by itself, another round or format would have other rows for testing.
    """
    places = {_place(name) for name in names}
    if len(places) < 2:
        return None
    share = (int(min(places) / 2**64 * 100) + 1) / 100
    return share if share * 2**64 <= max(places) else None


def _place(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


class Split:
    """The side of each row of a source."""

    def __init__(self, source: Source, share: float) -> None:
        """Reads, for self-instruct, the parents of all rows. Raises InputError for a damaged run."""
        self._share = share
        self._run = source.name if source.recipe == "self-instruct" else None
        self._seeds_split = source.manifest is None
        self._shown: set[str] = set()  # to units for testing
        if self._run is not None and share > 0:
            for id, shown in source.shown():
                if is_for_test(_unit(id), share):
                    self._shown.update(self._of_this_run(shown))

    def side(self, row: Row) -> Side | None:
        """Where a row belongs; None for one that is left out."""
        if row.recipe == SEED and not self._seeds_split:
            return "train"
        if is_for_test(family(row), self._share):
            return "test"
        if row.instruction_id in self._shown:
            return None
        if any(is_for_test(_unit(parent), self._share) for parent in self._of_this_run(row.parents)):
            return None
        return "train"

    def _of_this_run(self, ids: Iterable[str]) -> list[str]:
        """The instructions among demonstrations that this run made."""
        if self._run is None:
            return []
        return [id for id in ids if id.startswith(f"{self._run}/") and _MACHINE_MADE.match(id)]


def _unit(instruction_id: str) -> str:
    found = _MACHINE_MADE.match(instruction_id)
    return found[1] if found else instruction_id
