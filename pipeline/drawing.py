"""Rows and previews drawn on the terminal. Model text is shown, never obeyed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

from rich.console import Console, Group
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from pipeline.console import printable
from pipeline.counters import Counters
from pipeline.errors import ContentFault
from pipeline.lineage import Instruction, Kind, Lineage
from pipeline.preview import PreviewedUnit
from pipeline.records import Prompt, UnitResult
from pipeline.report import row_lines

FEWEST_SHARED = 200  # characters of a prompt that are worth leaving out
LONGEST = 400  # characters of an instruction that a line may hold
_LABEL_STYLES = {"reason": "bold red", "instruction": "bold cyan", "output": "bold green"}


def draw_rows(
    title: str, rows: Sequence[Mapping[str, Any]], known: Mapping[str, Instruction] = MappingProxyType({})
) -> None:
    """Print rows of a table, one panel each; what is `known` by its id is shown with its text where it is nearest."""
    console = Console(highlight=False)
    console.print(Rule(Text(title)))
    for row in rows:
        near = known.get(row.get("nearest_id") or "")
        text = f"\n{near.text}" if near is not None and near.text else ""
        console.print(_panel(row, [(label, said + text * (label == "nearest")) for label, said in row_lines(row)]))


def draw_reasons(counters: Counters) -> None:
    """Print what was refused, by reason: how many, which share of all that was, and of what it is."""
    refused = {
        "instruction": counters.refused_candidates,
        "instance": counters.refused_instances,
        "admitted instruction": counters.closing_reasons,
        "unit": counters.failure_reasons,
    }
    total = sum(counts.total() for counts in refused.values())
    lines = [(count, reason, what) for what, counts in refused.items() for reason, count in counts.items()]
    table = Table(box=None, padding=(0, 2), header_style="bold")
    table.add_column("reason", no_wrap=True, min_width=max((len(reason) for _, reason, _ in lines), default=0))
    table.add_column("rejects", justify="right")
    table.add_column("share", justify="right")
    table.add_column("what it is")
    for count, reason, what in sorted(lines, key=lambda line: (-line[0], *line[1:])):
        table.add_row(Text(printable(reason), "red"), f"{count:,}", f"{count / total:.1%}", what)
    Console(highlight=False).print(table)


def draw_lineage(lineage: Lineage) -> None:
    """Print one row, reject or seed whole, and below it a tree of what it grew from, each instruction once."""
    console = Console(highlight=False)
    itself = lineage.instruction
    for row in (*lineage.rows, *lineage.rejects):
        lines = [line for line in row_lines(row) if line[0] not in ("parents", "nearest")]
        console.print(_panel(row, [*lines, *_made_by(row)]))
    if itself.kind == Kind.SEED:
        lines = [("seed", "in the run's seed file"), ("instruction", itself.text or itself.note)]
        console.print(_panel({"id": itself.id}, lines))
        return
    near = lineage.nearest
    what = f"at ROUGE-L {itself.nearest_score:.3f}" if near else "none recorded"
    console.print(Text.assemble(("nearest   ", "bold"), what))
    if near:
        console.print(Text.assemble("          ", _named(near)))
    if not itself.parents:
        sources = [row["source"]["id"] for row in (*lineage.rows, *lineage.rejects) if row["source"]]
        what = f"the text of {printable(sources[0])}" if sources else "no demonstrations"
        console.print(Text.assemble(("grew from ", "bold"), what))
        return
    console.print(Text.assemble(("grew from ", "bold"), "what its prompt showed:"))
    console.print(_tree(lineage))
    kinds = Counter(each.kind for each in lineage.ancestors)
    parts = [f"{kinds[Kind.ADMITTED]:,} machine-made ancestors, {kinds[Kind.SEED]:,} seeds"]
    parts += [f"{kinds[Kind.ELSEWHERE]:,} from elsewhere"] if kinds[Kind.ELSEWHERE] else []
    parts += [f"{lineage.beyond:,} more ancestors not looked up"] if lineage.beyond else []
    console.print(Text(", ".join(parts), "dim"))


def _tree(lineage: Lineage) -> Tree:
    """The demonstrations of the instruction in order, and below a machine-made one those of its own prompt: there the
    machine-made ones have a line each, and the others one together."""
    tree = Tree(_named(lineage.instruction))
    drawn: set[str] = set()
    shown: dict[tuple[str, ...], str] = {}  # whose prompt these demonstrations are, where they are drawn
    waiting: list[tuple[Tree, str]] = [(tree, id) for id in reversed(lineage.instruction.parents)]
    while waiting:  # the first branch whole before the second
        branch, id = waiting.pop()
        each = lineage.instructions.get(id)
        if each is None or id in drawn:
            branch.add(_line((printable(id), "cyan"), ("  as above" if id in drawn else "  not looked up", "dim")))
            continue
        drawn.add(id)
        twin = shown.setdefault(each.parents, id) if each.parents else id
        if twin != id:
            branch.add(_named(each, f"same prompt as {twin}"))
            continue
        below = branch.add(_named(each))
        plain = [parent for parent in each.parents if (known := lineage.instructions.get(parent)) and not known.parents]
        if plain:
            below.add(Text(printable(", ".join(plain)), "dim"))
        waiting += [(below, parent) for parent in reversed(each.parents) if parent not in plain]
    return tree


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


def _panel(row: Mapping[str, Any], lines: Iterable[tuple[str, str]]) -> Panel:
    name = row.get("id") or row.get("instruction_id") or f"unit {row['unit']}"
    return Panel(_labelled(lines), title=Text(printable(name)), title_align="left")


def _made_by(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """By which model and prompts a row was made."""
    said = [(label, row.get(label)) for label in ("model", "judge")]
    said.append(("prompts", ", ".join(row.get("prompt_hashes") or ())))
    return [(label, text) for label, text in said if text]


def _named(instruction: Instruction, note: str = "") -> Text:
    """An instruction on one line, cut where the terminal ends: its id, what is to be said of it, its text."""
    words = printable(" ".join((instruction.text or "")[:LONGEST].split()))
    notes = [note, instruction.note, instruction.kind if instruction.kind in (Kind.SEED, Kind.REFUSED) else ""]
    said = "".join(f"  ({printable(note)})" for note in notes if note)
    return _line((printable(instruction.id), "cyan"), (said, "dim"), f"  {words}" if words else "")


def _line(*parts: str | Text | tuple[str, str]) -> Text:
    return Text.assemble(*parts, no_wrap=True, overflow="ellipsis")


def _labelled(lines: Iterable[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    for label, value in lines:
        table.add_row(Text(label, _LABEL_STYLES.get(label, "bold")), Text(printable(value)))
    return table
