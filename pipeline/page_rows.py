"""Rows and rejects as a report's page shows them: their texts, and where they come from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.lineage import Instruction, Kind, named
from pipeline.records import Reason
from pipeline.report import row_lines

if TYPE_CHECKING:
    from pipeline.reading import Snapshot
    from pipeline.survey import Survey

LONGEST = 4_000  # characters of a text that are on the page
BEGINNING = 900  # and that are seen without a click, with some more where little would be left
TEXTS = frozenset(("instruction", "input", "output", "text"))


@dataclass(frozen=True)
class Ancestor:
    """An instruction that a row grew from, or was near to: what it is, its id, its text or why there is none."""

    role: str
    id: str
    kind: str
    text: str


@dataclass(frozen=True)
class Shown:
    """One row: its name, its texts (label, beginning and the rest), other facts by label, and its lineage."""

    name: str
    texts: tuple[tuple[str, str, str], ...]
    facts: tuple[tuple[str, str], ...]
    lineage: tuple[Ancestor, ...]


def shown_rows(run: Snapshot, survey: Survey) -> list[Shown]:
    """The accepted rows of a survey, to be shown."""
    return _shown(run, survey.rows)


def shown_rejects(run: Snapshot, survey: Survey) -> list[tuple[str, int, list[Shown]]]:
    """Each reason, how many rejects have it, and some of them."""
    counts: dict[str, int] = {}
    for each in survey.rejects:
        counts[each.reason] = counts.get(each.reason, 0) + each.count
    shown = iter(_shown(run, [row for rows in survey.refused_rows.values() for row in rows]))
    return [
        (reason, counts.get(reason, 0), [next(shown) for _ in rows]) for reason, rows in survey.refused_rows.items()
    ]


def _shown(run: Snapshot, rows: Iterable[Mapping[str, Any]]) -> list[Shown]:
    rows = list(rows)
    ids = dict.fromkeys(id for row in rows for id in (*(row["parents"] or ()), row["nearest_id"]) if id)
    known = named(run, list(ids))
    return [_row(row, known) for row in rows]


def _row(row: Mapping[str, Any], known: Mapping[str, Instruction]) -> Shown:
    lines = [(label, _cut(text)) for label, text in row_lines(row) if label not in ("nearest", "parents", "reason")]
    texts = [line for line in lines if line[0] in TEXTS]
    lineage = [_ancestor("demonstration", known[id]) for id in row["parents"] or ()]
    if row["nearest_id"]:
        near, score = known[row["nearest_id"]], f"ROUGE-L {row['nearest_score']:.3f}"
        if row.get("reason") == Reason.NOT_NOVEL and near.text:  # the two texts are what there is to judge
            texts.append((f"too near to {near.id}, {score}", _cut(near.text)))
        else:
            lineage.insert(0, _ancestor(f"nearest, {score}", near))
    return Shown(
        name=row["id"] or row["instruction_id"] or f"unit {row['unit']}",
        texts=tuple((label, *_split(text)) for label, text in texts),
        facts=tuple(line for line in lines if line[0] not in TEXTS),
        lineage=tuple(lineage),
    )


def _ancestor(role: str, instruction: Instruction) -> Ancestor:
    kind = {Kind.SEED: "seed", Kind.ADMITTED: "machine-made"}.get(instruction.kind, "from elsewhere")
    return Ancestor(role, instruction.id, kind, _cut(instruction.text or instruction.note))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} [... and {len(text) - LONGEST:,} characters more]"


def _split(text: str) -> tuple[str, str]:
    """The beginning of a text, to a whole word where it has any, and the rest."""
    if len(text) <= BEGINNING * 1.3:
        return text, ""
    at = text.rfind(" ", BEGINNING // 2, BEGINNING) + 1 or BEGINNING
    return text[:at], text[at:]
