"""The embedded demo model: its card, its size, and the corpus that it was trained on."""

from __future__ import annotations

import hashlib
import json
import re
import struct
from datetime import date, timedelta
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from embedded.corpus import DEMO_PROMPTS, SHARES, Corpus, Document, shipped_seeds
from embedded.grammar import FRAMES, Frame, make_task
from pipeline.parsing import judge_instances, parse_input_first, parse_instructions, parse_output_first, with_lead
from pipeline.prompting import shipped_text

EMBEDDED = Path(__file__).resolve().parents[1] / "embedded"
CARD = json.loads((EMBEDDED / "card.json").read_text(encoding="utf-8"))


def _documents(stage: str, count: int = 60) -> list[Document]:
    corpus = Corpus(5, shipped_seeds())
    return [corpus.document(stage) for _ in range(count)]


def _frame(text: str) -> Frame:
    return next(frame for frames in FRAMES.values() for frame in frames if any(text in one for one in frame.wordings))


def _pairs(text: str, count: int = 40, **slots: str) -> list[tuple[str, str]]:
    rng = Random(7)
    return [_frame(text).answer(rng, dict(slots)) for _ in range(count)]


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_card_names_the_shipped_model(name: str) -> None:
    """Each file of the model is the one whose hash the card holds."""
    found = hashlib.sha256((EMBEDDED / "model" / name).read_bytes()).hexdigest()
    assert CARD["sha256"][f"model/{name}"] == found


@pytest.mark.parametrize("name", DEMO_PROMPTS)
def test_card_names_the_prompts_that_were_learnt(name: str) -> None:
    """A demo prompt is the one that the model was trained on; change it and the model must be trained again."""
    found = hashlib.sha256(shipped_text(f"demo/{name}.txt").encode()).hexdigest()
    assert CARD["sha256"][f"prompts/demo/{name}.txt"] == found


def test_model_is_small() -> None:
    """The model has two to six million parameters, and its folder takes at most ten megabytes."""
    weights = (EMBEDDED / "model" / "model.safetensors").read_bytes()
    (size,) = struct.unpack("<Q", weights[:8])
    header = {name: value for name, value in json.loads(weights[8 : 8 + size]).items() if name != "__metadata__"}
    count = 0
    for tensor in header.values():
        assert tensor["dtype"] == "BF16"
        begin, end = tensor["data_offsets"]
        count += (end - begin) // 2
    assert count == CARD["parameters"]
    assert 2_000_000 <= count <= 6_000_000
    assert sum(path.stat().st_size for path in (EMBEDDED / "model").iterdir()) <= 10_000_000


def test_end_token_is_set_in_each_file() -> None:
    """Model, generation and tokenizer settings name the same end token, so every server stops at it."""
    settings = {
        name: json.loads((EMBEDDED / "model" / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("config", "generation_config", "tokenizer_config", "tokenizer")
    }
    ids = {one["content"]: one["id"] for one in settings["tokenizer"]["added_tokens"]}
    end = ids[settings["tokenizer_config"]["eos_token"]]
    assert settings["config"]["eos_token_id"] == end
    assert settings["generation_config"]["eos_token_id"] == end


def test_judge_and_label_words_are_single_tokens() -> None:
    """After the lead, a score and a yes or no are one token each, which the constrained stages count on."""
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(EMBEDDED / "model" / "tokenizer.json"))
    lead = tokenizer.encode("Score:", add_special_tokens=False).ids
    for word in (" 1", " 2", " 3", " 4", " 5", " Yes", " No"):
        assert len(tokenizer.encode(word, add_special_tokens=False).ids) == 1
        assert len(tokenizer.encode(f"Score:{word}", add_special_tokens=False).ids) == len(lead) + 1


def test_same_seed_gives_the_same_corpus() -> None:
    """The corpus follows from its seed number alone."""
    first, again, other = (list(islice(Corpus(seed, shipped_seeds()), 80)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_shares_cover_every_prompt() -> None:
    """The shares of the stages add up to one."""
    assert sum(SHARES.values()) == pytest.approx(1)


def test_bootstrap_documents_parse() -> None:
    """Each list goes on with seven new items, none of which is shown in the prompt or repeated."""
    for document in _documents("bootstrap"):
        items = parse_instructions(document.completion.rstrip())
        assert document.completion.startswith(" ")
        assert document.completion.endswith("\n\n")
        assert len(set(items)) == 7
        assert not any(item in document.prompt for item in items)
        assert all(4 <= len(item.split()) <= 150 for item in items)


def test_classification_documents_are_yes_or_no() -> None:
    """The answer is one of the two words the decoder allows, and both occur."""
    assert {document.completion for document in _documents("classification")} == {" Yes\n", " No\n"}


@pytest.mark.parametrize("stage", ["input_first", "output_first"])
def test_instance_documents_have_valid_instances(stage: str) -> None:
    """What the model is to write for a task parses into instances that pass the paper's rules, all of them."""
    parse = parse_input_first if stage == "input_first" else parse_output_first
    for document in _documents(stage):
        found = parse(with_lead(document.prompt, document.completion))
        assert found
        judged = judge_instances(found, truncated=False, limit=5, rng=Random(0))
        assert all(one.reason is None for one in judged)
        assert document.completion.endswith("\n\n")


def test_judge_documents_end_in_a_score() -> None:
    """Each score from one to five occurs, and nothing else."""
    assert {document.completion for document in _documents("curate")} == {" 1", " 2", " 3", " 4", " 5"}


def test_augment_documents_fit_the_context() -> None:
    """The text is no longer than a segment of the demo, and the instruction is one line."""
    for document in _documents("augment"):
        assert len(document.prompt) <= 1600
        assert document.completion.startswith(" ")
        assert "\n" not in document.completion


def test_instructions_pass_the_filters() -> None:
    """No instruction of the grammar has a word on the paper's black list or a mark of the grammar left in it."""
    listed = re.compile(r"\b(images?|graphs?|pictures?|files?|maps?|draw|plot|go to)\b|[\[\]{}|]", re.IGNORECASE)
    rng = Random(3)
    for _ in range(3000):
        instruction = make_task(rng).instruction
        assert not listed.search(instruction), instruction
        assert instruction[0].isalnum()


def test_sorting_and_sums_are_right() -> None:
    """Sorted words, sums and medians agree with a second computation."""
    for given, output in _pairs("in alphabetical order|from A to Z|by first"):
        assert output.split(", ") == sorted(given.split(", "))
    for given, output in _pairs("Add up [all|]"):
        assert int(output) == sum(int(one) for one in given.split(", "))


def test_numerals_are_right() -> None:
    """Roman and binary numerals read back as the number they were written for."""
    values = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100}
    for given, output in _pairs("a Roman numeral"):
        digits = [values[sign] for sign in output]
        total = sum(-one if one < after else one for one, after in zip(digits, [*digits[1:], 0], strict=True))
        assert total == int(given)
    for given, output in _pairs("[to|into] binary"):
        assert int(output, 2) == int(given)


def test_weekdays_are_right() -> None:
    """A weekday some days on agrees with the calendar; 4 January 2021 was a Monday."""
    (pair,) = set(_pairs("[comes|is] {shift} days after", 1, day="Friday", shift="twelve"))
    assert pair[1] == (date(2021, 1, 8) + timedelta(days=12)).strftime("%A")


def test_labels_are_right() -> None:
    """Even and odd numbers have the label that they were drawn for."""
    frame = next(frame for frame in FRAMES["label"] if frame.labels == ("Even", "Odd"))
    rng = Random(1)
    for label in frame.labels * 30:
        given, output = frame.answer(rng, {"label": label})
        assert output == label
        if given.isdigit():
            assert (int(given) % 2 == 0) == (label == "Even")
