"""Rows and previews drawn on the terminal. Model text is shown, never obeyed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console, Group
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from pipeline.errors import ContentFault
from pipeline.preview import PreviewedUnit
from pipeline.report import printable, row_lines

_LABEL_STYLES = {"reason": "bold red", "instruction": "bold cyan", "output": "bold green"}


def draw_rows(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows of a table, one panel each."""
    console = Console(highlight=False)
    console.print(Rule(Text(title)))
    for row in rows:
        name = row.get("id") or row.get("instruction_id") or f"unit {row['unit']}"
        console.print(Panel(_labelled(row_lines(row)), title=Text(printable(name)), title_align="left"))


def draw_preview(unit: PreviewedUnit) -> None:
    """Print one previewed unit: each prompt with its raw answer, then the verdicts and rows."""
    console = Console(highlight=False)
    console.print(Rule(Text(f"unit {unit.number}")))
    for request, answer in unit.exchanges:
        title = Text(f"{request.key.stage}, candidate {request.key.candidate}")
        if isinstance(answer, ContentFault):
            body, end = Text(printable(str(answer)), "red"), "refused"
        else:
            body = Text(printable(answer.text), "green")
            end = f"{answer.finish_reason}, {answer.prompt_tokens} + {answer.completion_tokens} tokens"
        console.print(
            Panel(Group(Text(printable(request.prompt), "dim"), body), title=title, subtitle=end, title_align="left")
        )
    assert unit.result is not None
    admitted = {row.instruction_id for row in unit.result.admitted}
    for row in unit.result.admitted:
        nearest = f"  (nearest {row.nearest_id}, {row.nearest_score:.3f})" if row.nearest_score is not None else ""
        console.print(Text.assemble(("admitted  ", "green"), printable(row.instruction), nearest))
    for reject in unit.result.rejects:
        what = reject.output if reject.id else reject.instruction or reject.text
        why = f"{reject.reason} {reject.detail}".strip()
        label = "closed    " if reject.id is None and reject.instruction_id in admitted else "refused   "
        console.print(Text.assemble((label, "red"), printable(what or ""), f"  ({printable(why)})"))
    for example in unit.result.examples:
        console.print(Panel(_labelled(row_lines(asdict(example))), title=Text(example.id), title_align="left"))


def _labelled(lines: Iterable[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    for label, value in lines:
        table.add_row(Text(label, _LABEL_STYLES.get(label, "bold")), Text(printable(value)))
    return table
