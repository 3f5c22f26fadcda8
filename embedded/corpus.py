"""The corpus: endless documents, one prompt and its completion each, for every stage the demo model serves.

`python -m embedded.corpus --show 5` prints samples of each stage. Nothing here is drawn from another corpus: the tasks
come from the grammar, the demonstrations from the shipped seed tasks, and the prompts from the shipped prompt files.
"""

from __future__ import annotations

import argparse
import json
import re
import string
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random

# Importing a module of frames registers its tasks.
from embedded import frames_labels, frames_numbers, frames_practice, frames_prose, frames_words  # noqa: F401
from embedded.grammar import Task, make_task
from embedded.headers import asked
from embedded.passages import judged, noisy, passage
from pipeline.prompting import (
    EXAMPLE_LEAD,
    LABEL_LEAD,
    classification_demonstrations,
    demonstration_text,
    input_first_demonstrations,
    numbered_tasks,
    output_first_demonstrations,
    shipped_text,
)
from pipeline.records import Instance, Seed

NEW_ITEMS = 7
DEMO_PROMPTS = (
    "bootstrap",
    "classification",
    "instance_input_first",
    "instance_output_first",
    "augmentation",
    "curation",
)
SEEDS_FILE = "seeds.jsonl"
# Demonstrations of the instance stages are seed tasks no longer than this, so that the prompts stay short.
SHORT_SEED_CHARS = 300
# A seed's text is not to be learnt by heart, so a prompt with seeds in it counts for nothing in the loss.
SHARES = {
    "bootstrap": 0.42,
    "classification": 0.10,
    "input_first": 0.26,
    "output_first": 0.10,
    "augmentation": 0.05,
    "curation": 0.07,
}
# What a training that goes on from another is for. Copying a title into an instruction has to be learnt first, on short
# texts, before it can be learnt over long ones.
COPYING = {
    "bootstrap": 0.02,
    "classification": 0.0,
    "input_first": 0.0,
    "output_first": 0.0,
    "augmentation": 0.92,
    "curation": 0.06,
}
# Mostly what backtranslation asks for, and enough of the rest that nothing is forgotten.
BACKTRANSLATION = {
    "bootstrap": 0.17,
    "classification": 0.05,
    "input_first": 0.17,
    "output_first": 0.08,
    "augmentation": 0.35,
    "curation": 0.18,
}
COURSES = {"self-instruct": SHARES, "copying": COPYING, "backtranslation": BACKTRANSLATION}
# A score is one token among thousands, an instruction a dozen, so each of theirs counts for more in the loss.
STRESS = {"augmentation": 3.0, "curation": 10.0}


@dataclass(frozen=True, slots=True)
class Document:
    """A prompt and what should follow it. `learn_prompt`: the prompt is the grammar's own text, so learn it as well."""

    stage: str
    prompt: str
    completion: str
    learn_prompt: bool


def shipped_seeds() -> tuple[Seed, ...]:
    """The seed tasks of the repository."""
    rows = (json.loads(line) for line in shipped_text(SEEDS_FILE).splitlines() if line.strip())
    return tuple(
        Seed(
            row["id"],
            row["instruction"],
            tuple(Instance(one["input"], one["output"]) for one in row["instances"]),
            row["is_classification"],
        )
        for row in rows
    )


def natural_sentences(seeds: Sequence[Seed]) -> tuple[str, ...]:
    """Plain sentences of the seed tasks' texts, among which the made-up ones may stand; nobody speaks of himself."""
    texts = [text for seed in seeds for one in seed.instances for text in (one.input, one.output)]
    found = (line for text in texts for line in re.split(r"(?<=[.!?]) +|\n+", text))
    plain = (line for line in found if re.fullmatch(r"[A-Z][^\n!?@|]{28,150}\.", line))
    return tuple(line for line in plain if not re.search(r"\b([Ww]e|[Mm]y|I|me|us|[Oo]ur)\b", line))


def demo_prompt(name: str, **variables: str) -> str:
    """A prompt of the demo, filled as `pipeline.prompting` fills it."""
    return string.Template(shipped_text(f"demo/{name}.txt").removesuffix("\n")).substitute(variables)


def as_seed(task: Task) -> Seed:
    """A task of the grammar in the form in which demonstrations are given."""
    return Seed("", task.instruction, task.instances, task.is_classification)


def _is_short(seed: Seed) -> bool:
    return len(seed.instruction) + sum(len(one.input) + len(one.output) for one in seed.instances) <= SHORT_SEED_CHARS


class Corpus:
    """Documents from one random stream: the same seed number and seed tasks give the same documents."""

    def __init__(self, number: int, seeds: Sequence[Seed], course: str = "self-instruct") -> None:
        self._rng = Random(number)
        self._course = course
        self._shares = COURSES[course]
        self._seeds = tuple(seeds)
        self._labelled = tuple(seed for seed in seeds if seed.is_classification)
        self._unlabelled = tuple(seed for seed in seeds if not seed.is_classification)
        self._natural = natural_sentences(seeds)
        self._makers: dict[str, Callable[[], Document]] = {
            "bootstrap": self._bootstrap,
            "classification": self._classification,
            "input_first": self._input_first,
            "output_first": self._output_first,
            "augmentation": self._augmentation,
            "curation": self._curation,
        }

    def __iter__(self) -> Iterator[Document]:
        while True:
            yield self.document(self._rng.choices(tuple(self._shares), tuple(self._shares.values()))[0])

    def document(self, stage: str) -> Document:
        return self._makers[stage]()

    def _task(self, *families: str) -> Task:
        """A task for stage 2 or 3, sometimes with words missing: there the model reads its own slips."""
        task = make_task(self._rng, self._rng.choice(families))
        words = task.instruction.split()
        if self._rng.random() < 0.15:
            for _ in range(self._rng.randint(1, 3)):
                del words[self._rng.randrange(len(words))]
        return replace(task, instruction=demonstration_text(" ".join(words)))

    def _bootstrap(self) -> Document:
        rng = self._rng
        # Half of the prompts are as in the demo run; the others keep the model from counting on exactly that mixture.
        of_seeds, of_machine = rng.choice(
            (
                (8, 0),
                (5, 3),
                (5, 3),
                (5, 3),
                (7, 1),
                (6, 2),
                (4, 4),
                (0, 8),
                (0, 8),
                (0, 8),
                (rng.randint(0, 3), rng.randint(3, 5)),
            )
        )
        tasks: dict[str, None] = {}
        while len(tasks) < of_machine + NEW_ITEMS:
            tasks[make_task(rng).instruction] = None
        machine = list(tasks)
        shown = [*machine[:of_machine], *(seed.instruction for seed in rng.sample(self._seeds, of_seeds))]
        rng.shuffle(shown)
        first = len(shown) + 1
        items = "\n".join(f"{n}. {demonstration_text(text)}" for n, text in enumerate(machine[of_machine:], first))
        prompt = demo_prompt("bootstrap", tasks=numbered_tasks(shown))
        return Document("bootstrap", prompt, items.removeprefix(f"{first}.") + "\n\n", not of_seeds)

    def _demonstrations(
        self, low: int, high: int, family: Sequence[str], seeds: Sequence[Seed]
    ) -> tuple[list[Seed], bool]:
        """Tasks to show first: of the grammar, and then to be learnt, or short seed tasks."""
        rng = self._rng
        if rng.random() < 0.5:
            return [as_seed(make_task(rng, rng.choice(family))) for _ in range(rng.randint(low + 1, high + 2))], True
        return rng.sample([seed for seed in seeds if _is_short(seed)], rng.randint(low, high)), False

    def _classification(self) -> Document:
        rng = self._rng
        task = self._task("exact", "prose", "label", "label", "category")
        if rng.random() < 0.5:
            shown = [as_seed(make_task(rng, rng.choice(("exact", "prose", "label", "category")))) for _ in range(8)]
        else:
            shown = rng.sample(self._labelled, rng.randint(2, 4)) + rng.sample(self._unlabelled, rng.randint(2, 4))
        rng.shuffle(shown)
        prompt = demo_prompt(
            "classification",
            demonstrations=classification_demonstrations(shown),
            instruction=task.instruction,
        )
        return Document("classification", prompt, " Yes\n" if task.is_classification else " No\n", not shown[0].id)

    def _input_first(self) -> Document:
        shown, own = self._demonstrations(1, 2, ("exact", "exact", "prose"), self._unlabelled)
        # Now and then a task that does ask for labels: stage 2 may have called it wrongly.
        task = self._task(*("exact",) * 5, *("prose",) * 4, "label")
        prompt = demo_prompt(
            "instance_input_first", demonstrations=input_first_demonstrations(shown, 2), instruction=task.instruction
        )
        block = input_first_demonstrations([as_seed(task)], 3)
        return Document(
            "input_first", prompt, block.removeprefix(f"Task: {task.instruction}\n{EXAMPLE_LEAD}") + "\n\n", own
        )

    def _output_first(self) -> Document:
        shown, own = self._demonstrations(1, 2, ("label", "category"), self._labelled)
        task = self._task("label", "label", "category")
        prompt = demo_prompt(
            "instance_output_first", demonstrations=output_first_demonstrations(shown, 4), instruction=task.instruction
        )
        block = output_first_demonstrations([as_seed(task)], 4)
        return Document(
            "output_first", prompt, block.removeprefix(f"Task: {task.instruction}\n{LABEL_LEAD}") + "\n\n", own
        )

    def _short_pair(self) -> tuple[str, str]:
        """A short text without a title, and an instruction that asks for it."""
        while True:
            task = make_task(self._rng, "prose")
            if not task.instances[0].input:
                return task.instances[0].output, task.instruction

    def _augmentation(self) -> Document:
        rng = self._rng
        if rng.random() < 0.06:
            text, instruction = self._short_pair()
            return Document("augmentation", demo_prompt("augmentation", text=text), f" {instruction}", False)
        made = passage(rng, self._natural, reach=self._reach())
        title = made.header.title
        alone = self._course == "copying" and rng.random() < 0.7
        prompt = demo_prompt("augmentation", text=title if alone else f"{title}\n\n{made.body}")
        return Document("augmentation", prompt, f" {asked(rng, title, made.header.form)}", False)

    def _reach(self) -> float:
        """The share of its full length that a text has: in copying none, later some short ones among the long."""
        if self._course == "copying":
            return 0.0
        way = self._rng.random()
        return 0.0 if way < 0.15 else self._rng.random() if way < 0.45 else 1.0

    def _curation(self) -> Document:
        """The score follows from what kind of answer it is, and whether it is about what was asked for."""
        instruction, answer, score, _ = judged(self._rng, self._natural, self._reach())
        prompt = demo_prompt("curation", instruction=instruction, output=answer)
        return Document("curation", prompt, f" {noisy(self._rng, score)}", False)


def main() -> None:
    """Print samples of each stage."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--show", type=int, default=2, help="documents of each stage to print")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--course", choices=COURSES, default="self-instruct")
    arguments = parser.parse_args()
    corpus = Corpus(arguments.seed, shipped_seeds(), arguments.course)
    for stage in SHARES:
        for _ in range(arguments.show):
            document = corpus.document(stage)
            print(f"===== {stage}\n{document.prompt}>>>{document.completion}<<<")


if __name__ == "__main__":
    main()
