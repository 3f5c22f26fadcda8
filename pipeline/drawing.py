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

from pipeline.console import printable
from pipeline.errors import ContentFault
from pipeline.preview import PreviewedUnit
from pipeline.records import Prompt, UnitResult
from pipeline.report import row_lines

FEWEST_SHARED = 200  # characters of a prompt that are worth leaving out
_LABEL_STYLES = {"reason": "bold red", "instruction": "bold cyan", "output": "bold green"}


def draw_rows(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows of a table, one panel each."""
    console = Console(highlight=False)
    console.print(Rule(Text(title)))
    for row in rows:
        name = row.get("id") or row.get("instruction_id") or f"unit {row['unit']}"
        console.print(Panel(_labelled(row_lines(row)), title=Text(printable(name)), title_align="left"))


class PreviewDrawing:
    """Prints previewed units one after the other. What a prompt shares with the one before it of its stage is not shown
    twice: the demonstrations of stages 2 and 3 are the same in the whole run."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._before: dict[str, str] = {}

    def draw(self, unit: PreviewedUnit) -> None:
        """Print one unit: each prompt with its raw answer, then what was parsed, the verdicts and the rows."""
        self._console.print(Rule(Text(f"unit {unit.number}")))
        for request, answer in unit.exchanges:
            key = request.key
            title = Text(f"{key.stage}, candidate {key.candidate}" + (f", instance {key.sample}" if key.sample else ""))
            if isinstance(answer, ContentFault):
                body, end = Text(printable(str(answer)), "red"), "refused"
            else:
                body = Text(printable(answer.text), "green")
                end = f"{answer.finish_reason}, {answer.prompt_tokens} + {answer.completion_tokens} tokens"
            prompt = Text(printable(self._new_part(request.key.stage, _as_text(request.prompt))), "dim")
            self._console.print(Panel(Group(prompt, Rule(style="dim"), body), title=title, subtitle=end))
        self._draw_result(unit.result)

    def _new_part(self, stage: str, prompt: str) -> str:
        pairs = zip(self._before.get(stage, ""), prompt, strict=False)
        shared = next((place for place, (old, new) in enumerate(pairs) if old != new), 0)
        self._before[stage] = prompt
        shared = prompt.rfind("\n", 0, shared) + 1
        if shared < FEWEST_SHARED:
            return prompt
        return f"[{shared:,} characters as in the {stage} prompt before]\n{prompt[shared:]}"

    def _draw_result(self, result: UnitResult) -> None:
        admitted = {row.instruction_id for row in result.admitted}
        parsed = f"parsed: {result.candidates} instructions, {result.instances} instances"
        self._console.print(Text(parsed, "bold"))
        for row in result.admitted:
            nearest = f"  (nearest {row.nearest_id}, {row.nearest_score:.3f})" if row.nearest_score is not None else ""
            self._console.print(Text.assemble(("admitted  ", "green"), printable(row.instruction), nearest))
        for reject in result.rejects:
            what = reject.output if reject.id else reject.instruction or reject.text
            why = f"{reject.reason} {reject.detail}".strip()
            label = "closed    " if reject.id is None and reject.instruction_id in admitted else "refused   "
            self._console.print(Text.assemble((label, "red"), printable(what or ""), f"  ({printable(why)})"))
        for example in result.examples:
            drawn = _labelled(row_lines(asdict(example)))
            self._console.print(Panel(drawn, title=Text(example.id), title_align="left"))


def _as_text(prompt: Prompt) -> str:
    if isinstance(prompt, str):
        return prompt
    return "\n".join(f"[{message.role}]\n{message.content}" for message in prompt)


def _labelled(lines: Iterable[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    for label, value in lines:
        table.add_row(Text(label, _LABEL_STYLES.get(label, "bold")), Text(printable(value)))
    return table
