"""ROUGE-L to what we hold, against the `rouge_score` package bit for bit."""

from __future__ import annotations

import itertools
import json
import random
import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rapidfuzz import process
from rapidfuzz.distance import LCSseq
from rouge_score import scoring
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenize import tokenize

from pipeline import novelty
from pipeline.novelty import NoveltyIndex, rouge_tokens, tokenizer, unicode_tokens

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
REFERENCE = RougeScorer(["rougeL"], use_stemmer=False)
FLOORS = (0.3, 0.5, 0.7, 0.9, 1.0)
Found = tuple[int, float] | None


@pytest.fixture(params=[512, 0], ids=["one-by-one", "listed"])
def few(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Few texts are looked at one by one; then the same with every text in the lists, which are made all the time."""
    monkeypatch.setattr(novelty, "FEW", request.param)
    return int(request.param)


def index_of(*texts: str, floor: float = 0.0, tokenizer: str = "rouge") -> NoveltyIndex:
    """An index that holds these texts."""
    index = NoveltyIndex(tokenizer, floor)
    index.extend(texts)
    return index


def reference(text: str, held: str) -> float:
    """What `rouge_score` says, asked as the paper's code asks it."""
    return float(REFERENCE.score(text, held)["rougeL"].fmeasure)


def quick_scores(text: list[str], held: list[list[str]]) -> list[float]:
    """`rouge_score`'s arithmetic, its own code, over an LCS from rapidfuzz, whose code and ours share nothing.

    `rouge_score`'s own LCS takes 36 microseconds a pair. It judges every pair of the smaller tests, and of the larger
    ones the pair that decides.
    """
    if not text or not held:
        return [0.0] * len(held)
    common = process.cdist([text], held, scorer=LCSseq.similarity, dtype=np.int64)[0].tolist()
    pairs = zip(common, held, strict=True)
    return [scoring.fmeasure(length / len(one), length / len(text)) if one else 0.0 for length, one in pairs]


def nearest_of(scores: list[float], floor: float, first: int, last: int) -> Found:
    """The answer that the scores of all held texts ask for."""
    best = max(range(first, last), key=lambda position: (scores[position], -position), default=None)
    return (best, scores[best]) if best is not None and scores[best] >= max(floor, 1e-9) else None


FEW_WORDS = st.lists(st.sampled_from("abc"), max_size=12).map(" ".join)  # few words: ties, repeats and 0.7 happen
MANY_WORDS = st.lists(st.sampled_from("abcdefghijklmnop"), max_size=90).map(" ".join)  # more than a word of 64 bits
ANY_TEXT = st.text(st.sampled_from("abAB12 -_.é你\n"), max_size=30)
TEXTS = st.one_of(FEW_WORDS, ANY_TEXT, MANY_WORDS)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("floor", [0.0, *FLOORS])
@given(text=TEXTS, held=st.lists(TEXTS, max_size=6))
@example(text="a b c d e f g x y z", held=["a b c d e f g p q r"])
@example(text="", held=["a"])
@example(text="a", held=["", "é"])
@example(text="a " * 300, held=["a " * 299, "b " + "a " * 299])
@settings(max_examples=150, deadline=None)
def test_all_is_as_rouge_score_has_it(floor: float, text: str, held: list[str]) -> None:
    """Every score is the package's to the last bit, and the nearest is the earliest of the largest, from the floor."""
    index = index_of(*held, floor=floor)
    expected = [reference(text, one) for one in held]

    assert expected == index.scores(text).tolist()
    assert nearest_of(expected, floor, 0, len(held)) == index.nearest(text)


@given(text=st.text(max_size=40))
@settings(max_examples=200, deadline=None)
def test_tokens_equal_rouge_score(text: str) -> None:
    """Any text has the package's tokens."""
    assert tokenize(text, None) == rouge_tokens(text)


def words(common: int, length: int, other: str) -> str:
    """A text of `length` words of which the first `common` are shared and the others are its own."""
    return " ".join([*(f"c{n}" for n in range(common)), *(f"{other}{n}" for n in range(length - common))])


def at_exactly(tenths: int) -> list[tuple[int, int, int]]:
    """Every two lengths up to 60 and common length whose F is exactly so many tenths."""
    return [
        (m, n, common)
        for m, n in itertools.product(range(1, 61), repeat=2)
        for common in range(1, min(m, n) + 1)
        if 20 * common == tenths * (m + n)
    ]


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("threshold", FLOORS)
def test_the_boundary(threshold: float) -> None:
    """Where F is exactly the threshold, float arithmetic puts it just below, at or above it: each as in the package."""
    ways, above, below = at_exactly(round(10 * threshold)), 0, 0
    for m, n, common in ways:
        text, held = words(common, m, "x"), words(common, n, "y")
        f = reference(text, held)
        above += f > threshold
        below += f < threshold

        assert index_of("z", held, held, floor=threshold).nearest(text) == (None if f < threshold else (1, f))
    if threshold == 0.7:
        assert (len(ways), above, below) == (86, 50, 4)


def random_text(rng: random.Random) -> str:
    """Few words or many, short or long, with repeats, sometimes without any token."""
    vocabulary = rng.choice([["a", "b"], [*"abcdefgh"], [f"w{n}" for n in range(40)]])
    weights = [1 / (place + 1) for place in range(len(vocabulary))]
    length = rng.choice([0, 1, 2, 3, rng.randrange(4, 12), rng.randrange(4, 30), rng.randrange(60, 70), 140, 300])
    return " ".join(rng.choices(vocabulary, weights, k=length)) + rng.choice(["", "?", " …"])


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("floor", FLOORS)
def test_adding_and_asking_in_any_order(floor: float) -> None:
    """Position and score are the brute force's, in every range, however adding, bulk adding and asking alternate."""
    rng, index, held = random.Random(str(floor)), NoveltyIndex(floor=floor), []
    for _ in range(60):
        new = [random_text(rng) for _ in range(rng.choice([1, 1, 2, 20]))]
        new += rng.sample(held, min(len(held), 2))  # ties
        if len(new) == 1:
            assert index.add(new[0]) == len(held)
        else:
            index.extend(new)
        held += new
        tokens = [rouge_tokens(one) for one in held]
        asked = [random_text(rng), rng.choice(held), "words " + rng.choice(held)]
        first = rng.choice([0, 0, rng.randrange(len(held) + 1)])
        last = rng.choice([len(held), rng.randrange(first, len(held) + 1)])
        expected = [nearest_of(quick_scores(rouge_tokens(text), tokens), floor, first, last) for text in asked]

        assert index.nearest_many(asked, first, last) == expected
        assert [index.nearest(text, first, last) for text in asked] == expected
    assert len(index) == len(held)


@pytest.mark.parametrize("floor", [0.3, 0.7])
def test_a_pool_that_is_listed_and_grows(floor: float) -> None:
    """Answers stay the brute force's around every making of the lists, and for pools as they once were."""
    rng = random.Random(7)
    vocabulary = [f"w{n}" for n in range(200)]
    weights = [1 / (place + 3) for place in range(len(vocabulary))]
    texts = [" ".join(rng.choices(vocabulary, weights, k=rng.randrange(1, 25))) for _ in range(1500)]
    tokens = [rouge_tokens(text) for text in texts]
    index, made = NoveltyIndex(floor=floor), set()
    for position, text in enumerate(texts):
        if position > 500 and position % 7 == 0:
            scores = quick_scores(tokens[position], tokens[:position])
            once = rng.randrange(position)

            assert index.nearest(text) == nearest_of(scores, floor, 0, position)
            assert index.nearest(text, last=once) == nearest_of(scores, floor, 0, once)
            assert index.nearest(text, first=once) == nearest_of(scores, floor, once, position)
            made.add(index._lists.texts)
        index.add(text)
    assert len(made) >= 3


@pytest.mark.usefixtures("few")
def test_a_tie_goes_to_the_earliest() -> None:
    """Among equal scores the text held first is the nearest, in the range asked for."""
    index = index_of("p q r", "a b x", "y a b", "a b x")

    assert index.nearest("a b z") == (1, reference("a b z", "a b x"))
    assert index.nearest("a b x") == (1, 1.0)
    assert index.nearest("a b x", first=2) == (3, 1.0)
    assert index.nearest("a b x", first=2, last=3) == (2, reference("a b x", "y a b"))


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("text", ["", "  ", "?!", "你好", "é"], ids=["empty", "blank", "punctuation", "han", "accent"])
def test_a_text_without_tokens_is_near_nothing(text: str) -> None:
    """A text of no tokens scores 0 against all, itself included, held or asked for, and the index says so."""
    index = index_of(text, "a b c")

    assert not index.has_tokens(text)
    assert index.has_tokens("a")
    assert index.nearest(text) is None
    assert index.nearest("a b c", last=1) is None
    assert index.scores("a b c").tolist() == [0.0, 1.0]
    assert index.scores(text).tolist() == [0.0, 0.0]


def test_an_empty_index() -> None:
    """Nothing held: no nearest, and no scores."""
    index = NoveltyIndex()

    assert index.nearest("a b c") is None
    assert index.nearest_many([]) == []
    assert index.scores("a b c").shape == (0,)
    assert len(index) == 0


def test_scores_are_in_the_order_of_adding() -> None:
    """One float64 score per held text, in order, and asking changes nothing."""
    index = index_of("a b", "x y", "a y")
    scores = index.scores("a b new words")

    assert scores.dtype == np.float64
    assert scores.tolist() == index.scores("a b new words").tolist()
    assert np.argsort(-scores, kind="stable").tolist() == [0, 2, 1]
    assert len(index) == 3


@pytest.mark.usefixtures("few")
def test_texts_longer_than_a_posting_can_say() -> None:
    """Texts of more than 65,535 tokens are found like others, and do not hide shorter ones."""
    rng = random.Random(3)
    long = [rng.choice("abcd") for _ in range(70_000)]
    changed = [word if rng.random() < 0.9 else "x" for word in long[:68_000]]
    texts = ["a b c d", " ".join(changed), " ".join(long), " ".join(long[:60_000])]
    index = index_of(*texts, floor=0.5)
    tokens = [rouge_tokens(text) for text in texts]
    for asked in (changed, long, long[:66_000], long[5000:], [*"abcd"]):
        assert index.nearest(" ".join(asked)) == nearest_of(quick_scores(list(asked), tokens), 0.5, 0, len(texts))


@pytest.mark.usefixtures("few")
def test_a_question_that_outlives_the_serial_numbers() -> None:
    """After four billion questions, more than a stamp can count, no text is taken for one already seen."""
    index = index_of("a b c", "d e f")
    index.nearest("d e f")
    index._serial = 2**32 - 2

    for position, text in [(1, "d e f"), (0, "a b c"), (0, "a b c"), (1, "d e f")]:
        assert index.nearest(text) == (position, 1.0)


@pytest.mark.parametrize("span", [(0, 3), (-1, 2), (2, 1), (3, None)], ids=str)
def test_a_range_that_is_not_held(span: tuple[int, int | None]) -> None:
    """A pool length that the index has not reached, or no range at all, is an error and never a smaller answer."""
    with pytest.raises(ValueError, match="are not among the 2 held"):
        index_of("a", "b").nearest("a", *span)


@pytest.mark.parametrize("floor", [-0.1, 1.1, float("nan")])
def test_a_floor_that_no_score_can_have(floor: float) -> None:
    """The floor is a score."""
    with pytest.raises(ValueError, match="floor must lie between 0 and 1"):
        NoveltyIndex(floor=floor)


# Tokenisers

UNICODE_TOKENS = {
    "letters and digits of all scripts": ("Привет, мир! 123 αβγ", ["привет", "мир", "123", "αβγ"]),
    "case": ("ΣΊΣΥΦΟΣ Straße İstanbul", ["σίσυφοσ", "strasse", "i̇stanbul"]),
    "composed and taken apart are one": ("caf\u00e9 cafe\u0301", ["café", "café"]),
    "marks stay with their letter": ("हिन्दी में लिखो", ["हिन्दी", "में", "लिखो"]),
    "han by character, digits not": ("写一首2024年的诗", [*"写一首", "2024", *"年的诗"]),
    "kana by character, full width and half": ("カﾀｶﾞＡＢＣ１ ひらがなー々", [*"カタガ", "abc1", *"ひらがなー々"]),
    "thai by letter with its marks": ("ที่นี่ 10", ["ที่", "นี่", "10"]),
    "hangul by word": ("한국어 문장", ["한국어", "문장"]),
    "joiners are not seen": ("می\u200cخواهم co\u00adop", ["میخواهم", "coop"]),
    "no letters": ("🙂 … — _ \ud800 \u0301", []),
    "an underscore parts": ("a_é", ["a", "é"]),
}


@pytest.mark.parametrize("name", UNICODE_TOKENS)
def test_unicode_tokens(name: str) -> None:
    """The tokens of each kind of script are what a reader would call a word, or a letter where words are not parted."""
    text, expected = UNICODE_TOKENS[name]

    assert unicode_tokens(text) == expected


@given(text=st.text(st.characters(max_codepoint=127), max_size=60))
@settings(max_examples=200, deadline=None)
def test_on_ascii_the_tokenisers_agree(text: str) -> None:
    """For text in ASCII the choice of tokeniser changes nothing."""
    assert unicode_tokens(text) == unicode_tokens(f"{text} é")[:-1] == rouge_tokens(text)


@given(text=st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_unicode_tokens_of_any_text(text: str) -> None:
    """Any text has tokens that are not empty and are their own only token, or one letter each."""
    for token in unicode_tokens(text):
        assert "".join(unicode_tokens(token)) == token != ""


def test_marks_without_end_do_not_stop_the_tokeniser() -> None:
    """A letter with hundreds of thousands of marks, which would take hours to normalise, keeps the first thirty."""
    token = unicode_tokens("e" + "\u0323\u0301" * 250_000 + " x")

    assert [len(one) for one in token] == [30, 1]  # one of the thirty is composed with the letter


def test_the_index_uses_its_tokeniser() -> None:
    """Texts that the default tokeniser finds nothing in are compared with the other."""
    index = index_of("写一首诗", "写一首歌", tokenizer="unicode", floor=0.5)

    assert index.nearest("写一首歌吧") == (1, 2 * 1.0 * 0.8 / 1.8)
    assert index.has_tokens("诗")
    assert (tokenizer("rouge"), tokenizer("unicode")) == (rouge_tokens, unicode_tokens)


def test_an_unknown_tokeniser() -> None:
    """The error names what there is."""
    with pytest.raises(ValueError, match="unknown tokenizer 'words'; known: rouge, unicode"):
        NoveltyIndex("words")


# Real text


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared data is not in ../shared/data")
@pytest.mark.parametrize("threshold", [0.5, 0.7])
def test_all_real_instructions_are_filtered_as_by_rouge_score(threshold: float) -> None:
    """Filtered in order, every row has the reference's decision, nearest row and score; `rouge_score` judges each."""
    files = [*sorted(DATA.glob("*.jsonl")), *sorted(DATA.glob("self_instruct_chain_101/machine_generated_inst*.jsonl"))]
    lines = [line for file in [*files, ROOT / "prompts" / "seeds.jsonl"] for line in file.open(encoding="utf-8")]
    texts = [json.loads(line)["instruction"] for line in lines if line.strip()]
    index, held, tokens = NoveltyIndex(floor=0.4), [], []
    for text in texts:
        expected = nearest_of(quick_scores(rouge_tokens(text), tokens), 0.4, 0, len(tokens))
        found = index.nearest(text)

        assert found == expected
        assert found is None or found[1] == reference(text, held[found[0]])
        if found is None or found[1] <= threshold:
            index.add(text)
            held.append(text)
            tokens.append(rouge_tokens(text))
    assert len(texts) > 1000
    assert len(held) < len(texts)


@given(st.text(st.sampled_from("aZk9 _-'é’“—\u0301\u0300\u200dßſK日ひกั้ﬁ²½हि"), max_size=20))
def test_the_shortcut_through_ascii_changes_no_token(text: str) -> None:
    """Runs in ASCII are found first; the tokens are those that the rule for letters of any script finds."""
    token, _ = novelty._unicode_patterns()
    shortcut, rule = token.pattern.split("|", 1)
    assert shortcut.startswith("[a-z0-9]++")
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())

    assert token.findall(folded) == re.findall(rule, folded)
