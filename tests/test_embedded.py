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

from embedded.corpus import COURSES, DEMO_PROMPTS, Corpus, Document, natural_sentences, shipped_seeds
from embedded.grammar import FRAMES, Frame, make_task
from embedded.headers import asked, content_words, header
from embedded.passages import NOISE, SCORES, judged, noisy, passage
from embedded.sections import POOR, REFUSED, shipped_sections, to_judge
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


@pytest.mark.parametrize("course", COURSES)
def test_shares_cover_every_prompt(course: str) -> None:
    """The shares of the stages add up to one, in each course."""
    assert sum(COURSES[course].values()) == pytest.approx(1)
    assert COURSES[course].keys() == COURSES["self-instruct"].keys()


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
    assert {document.completion for document in _documents("curation")} == {" 1", " 2", " 3", " 4", " 5"}


def test_score_follows_the_kind_of_answer() -> None:
    """A pair's score is that of its answer's kind; advertisements sell, and what was cut stops inside a sentence."""
    rng, natural = Random(4), natural_sentences(shipped_seeds())
    kinds = set()
    for _ in range(400):
        instruction, answer, score, kind = judged(rng, natural)
        kinds.add(kind)
        assert kind in SCORES[score]
        assert instruction[-1] in ".?"
        assert answer.endswith((".", "!", "?", "|", "Contact", '"')) != kind.startswith("cut"), answer
    assert kinds == {kind for of_score in SCORES.values() for kind in of_score}


def test_scores_are_now_and_then_one_off() -> None:
    """The noise moves a score by one at most, and about as often as it says."""
    rng = Random(2)
    moved = [abs(noisy(rng, 3) - 3) for _ in range(2000)]
    assert set(moved) == {0, 1}
    assert sum(moved) / 2000 == pytest.approx(NOISE, abs=0.03)


def test_answer_is_about_its_title() -> None:
    """A whole text names its title's subject; one that was written for another title hardly ever does."""
    rng, natural = Random(6), natural_sentences(shipped_seeds())
    whole = [passage(rng, natural, "plain") for _ in range(60)]
    assert sum(one.header.subject in one.body for one in whole) >= 57
    shifted = zip(whole, [*whole[1:], whole[0]], strict=True)
    assert sum(one.header.subject in other.body for one, other in shifted) < 15


def test_augmentation_documents_fit_a_row() -> None:
    """The text is no longer than a segment of the demo, and the instruction is one line."""
    for document in _documents("augmentation"):
        assert len(document.prompt) <= 1900
        assert document.completion.startswith(" ")
        assert "\n" not in document.completion


def test_instruction_names_the_title() -> None:
    """Every word of a title stands in the instruction for it, so there is something to copy."""
    rng = Random(8)
    for form in ("clause", "topic", "story", "call"):
        for _ in range(50):
            title = header(rng, form).title
            assert all(word in asked(rng, title, form).lower() for word in content_words(title))


def test_shipped_texts_are_a_small_corpus() -> None:
    """Ten to fourteen Markdown files in ASCII, each with one title, and about a hundred sections of fitting length."""
    texts = [path.read_text(encoding="utf-8") for path in sorted((EMBEDDED / "texts").glob("*.md"))]
    assert 10 <= len(texts) <= 14
    assert all(text.isascii() for text in texts)
    assert all(len(re.findall(r"^# ", text, re.MULTILINE)) == 1 for text in texts)
    fitting = to_judge()
    assert 90 <= len(fitting) <= 130
    assert all(600 <= len(body) <= 1500 for _, body in fitting)


def test_shipped_texts_have_what_should_be_refused() -> None:
    """Every section that is listed as refused is there for the reason given, and nothing else is repeated."""
    sections = shipped_sections()
    titles = [title for title, _ in sections]
    bodies = dict(sections)
    doubles = {title for title in titles if titles.count(title) > 1}
    assert doubles == {*REFUSED["duplicate"], *REFUSED["near duplicate"]}
    assert all(len(bodies[title]) < 600 for title in REFUSED["short"])
    assert all(title.isupper() for title in REFUSED["upper case"])
    assert {title for title in titles if title.isupper()} == set(REFUSED["upper case"])
    of = {title: {body for one, body in sections if one == title} for title in doubles}
    assert {len(of[title]) for title in REFUSED["duplicate"]} == {1}
    assert {len(of[title]) for title in REFUSED["near duplicate"]} == {2}


def test_a_quarter_of_the_shipped_texts_is_poor() -> None:
    """The sections that a judge should score low are there, a quarter to a third of those that reach it."""
    titles = {title for title, _ in to_judge()}
    poor = [title for of_kind in POOR.values() for title in of_kind]
    assert titles.issuperset(poor)
    assert 0.2 <= len(poor) / len(titles) <= 0.34


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
