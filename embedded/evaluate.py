"""How well does the embedded model serve a bootstrap, and how well backtranslation?

python -m embedded.evaluate [--target 1000] [--temperature 0.9]    # the demo's configuration, engines and all
python -m embedded.evaluate --backtranslation                      # instructions and scores, with transformers alone
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

from embedded.corpus import demo_prompt, natural_sentences, shipped_seeds
from embedded.headers import content_words
from embedded.passages import judged, passage
from embedded.sections import kind_of, to_judge
from pipeline import cli
from pipeline.report import read_rows


def main() -> None:
    """Evaluate what was asked for, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=int, default=1000, help="admitted instructions (1000)")
    parser.add_argument("--temperature", type=float, default=0.9, help="of the bootstrap (0.9)")
    parser.add_argument("--backtranslation", action="store_true", help="instructions for texts, and their scores")
    parser.add_argument("--model", type=Path, default=Path(__file__).parent / "model", help="for --backtranslation")
    parser.add_argument("--show", type=int, default=0, help="for --backtranslation: so many samples")
    options = parser.parse_args()
    if options.backtranslation:
        backtranslate(Writer(options.model), options.show)
        return
    sets = [f"target={options.target}", f"bootstrap.sampling.temperature={options.temperature}"]
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = ["run", "shipped:demo.toml", "--out", str(run)]
        code = cli.main([*command, *(part for setting in sets for part in ("--set", setting))])
        if code == 0:
            describe({kind: read_rows(run, kind) for kind in ("data", "pool", "rejected")})
        raise SystemExit(code)


def describe(rows: dict[str, list[dict[str, Any]]]) -> None:
    """Items per prompt, novelty by hundreds of admitted, classification, and instructions with a row."""
    pool, rejected = rows["pool"], rows["rejected"]
    refused = [row for row in rejected if row["stage"] in ("bootstrap", "filter", "novelty", "gate")]
    items = Counter(row["unit"] for row in [*pool, *refused])
    print(f"\nprompts {len(items)}, items per prompt {items.total() / len(items):.2f}")
    print(f"exactly seven items {sum(count == 7 for count in items.values()) / len(items):.0%} of prompts")
    for first in range(0, len(pool), 100):
        hundred = pool[first : first + 100]
        units = range(hundred[0]["unit"], hundred[-1]["unit"] + 1)
        near = sum(row["reason"] == "not_novel" and row["unit"] in units for row in rejected)
        print(f"novel, admitted {first + 1} to {first + len(hundred)}: {len(hundred) / (len(hundred) + near):.0%}")
    print(f"called classification {sum(bool(row['is_classification']) for row in pool) / len(pool):.0%}")
    with_rows = {row["instruction_id"] for row in rows["data"]}
    print(
        f"admitted with a row {len(with_rows) / len(pool):.0%}, rows per admitted {len(rows['data']) / len(pool):.2f}"
    )


class Writer:
    """The model under transformers: an instruction for a text, and the probabilities of a pair's scores."""

    def __init__(self, folder: Path) -> None:
        # Of the two commands only this one needs them.
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.manual_seed(1)
        self._torch = torch
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self._digits = [self._tokenizer.encode(f" {n}", add_special_tokens=False)[0] for n in range(1, 6)]

    def _ids(self, prompt: str) -> Any:
        return self._torch.tensor([self._tokenizer.encode(prompt, add_special_tokens=False)])

    def instruction(self, text: str, *, sampled: bool) -> str:
        """One instruction, greedy or with the paper's sampling; "" if it does not end in time."""
        ids = self._ids(demo_prompt("augmentation", text=text))
        drawn = {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "top_k": 0} if sampled else {"do_sample": False}
        out = self._model.generate(ids, max_new_tokens=64, pad_token_id=self._tokenizer.eos_token_id, **drawn)[
            0, ids.shape[1] :
        ]
        if out[-1] != self._tokenizer.eos_token_id:
            return ""
        return str(self._tokenizer.decode(out, skip_special_tokens=True)).strip()

    def scores(self, instruction: str, output: str) -> list[float]:
        """The probabilities of the five digits; what they lack to one went elsewhere."""
        ids = self._ids(demo_prompt("curation", instruction=instruction, output=output))
        with self._torch.no_grad():
            last = self._model(ids).logits[0, -1].float().softmax(-1)
        return [float(last[digit]) for digit in self._digits]


def _asked(name: str, pairs: list[tuple[str, str]]) -> None:
    """How many instructions are well-formed and name what the title names; `pairs` of title and instruction."""
    formed = sum(one[:1].isupper() and one[-1:] in ".?" and "\n" not in one for _, one in pairs)
    named = [[word in one.lower() for word in content_words(title)] for title, one in pairs if content_words(title)]
    every = sum(all(found) for found in named) / len(named)
    words = sum(map(sum, named)) / sum(map(len, named))
    print(f"{name}: well-formed {formed / len(pairs):.0%}, names {words:.0%} of the words, all of them {every:.0%}")


def backtranslate(writer: Writer, show: int = 0) -> None:
    """Instructions and scores, for new made-up pairs and for the shipped texts."""
    rng, natural = Random(77), natural_sentences(shipped_seeds())
    made = [passage(rng, natural) for _ in range(80)]
    sections = to_judge()
    instructions: dict[str, str] = {}
    for sampled in (False, True):
        way = "sampled" if sampled else "greedy"
        found = [(one.header.title, f"{one.header.title}\n\n{one.body}") for one in made]
        _asked(f"made-up texts, {way}", [(title, writer.instruction(text, sampled=sampled)) for title, text in found])
        instructions = {title: writer.instruction(f"{title}\n\n{body}", sampled=sampled) for title, body in sections}
        _asked(f"shipped texts, {way}", list(instructions.items()))
    _judge_made(writer, [judged(rng, natural) for _ in range(400)])
    _judge_shipped(writer, sections, instructions, show)


def _judge_made(writer: Writer, pairs: list[tuple[str, str, int, str]]) -> None:
    table: dict[int, Counter[int]] = {n: Counter() for n in range(1, 6)}
    by_kind: dict[str, Counter[bool]] = {}
    for instruction, answer, score, kind in pairs:
        chances = writer.scores(instruction, answer)
        given = 1 + chances.index(max(chances))
        table[score][given] += 1
        by_kind.setdefault(kind, Counter())[given == score] += 1
    right = sum(row[score] for score, row in table.items()) / len(pairs)
    close = sum(row[given] for score, row in table.items() for given in row if abs(given - score) < 2) / len(pairs)
    print(f"new pairs: intended score {right:.0%}, at most one off {close:.0%}; given, by intended score:")
    for score, row in table.items():
        print(f"  {score}: {[row[given] for given in range(1, 6)]}")
    print("  " + ", ".join(f"{kind} {row[True] / row.total():.0%}" for kind, row in sorted(by_kind.items())))


def _judge_shipped(writer: Writer, sections: list[tuple[str, str]], instructions: dict[str, str], show: int) -> None:
    table: dict[str, Counter[int]] = {}
    masses: list[float] = []
    strays: Counter[int] = Counter()
    for number, (title, body) in enumerate(sections):
        chances = writer.scores(instructions[title], body)
        masses.append(sum(chances))
        given = 1 + chances.index(max(chances))
        table.setdefault(kind_of(title), Counter())[given] += 1
        if number < show:
            print(f"  {given} {[f'{one:.2f}' for one in chances]} {kind_of(title)}: {title} -> {instructions[title]}")
        if kind_of(title) == "good":
            other = writer.scores(instructions[sections[number - 7][0]], body)
            strays[1 + other.index(max(other))] += 1
    print(f"shipped texts with sampled instructions: mass of the digits at least {min(masses):.4f}; scores 1 to 5:")
    for kind, row in {**table, "good, with another's instruction": strays}.items():
        print(f"  {kind}: {[row[given] for given in range(1, 6)]}")


if __name__ == "__main__":
    main()
