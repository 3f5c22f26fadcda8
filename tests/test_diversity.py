"""Verb and object of instructions, by the rules of `pipeline/diversity.py`."""

from __future__ import annotations

import sys

import pytest

from pipeline import diversity
from pipeline.diversity import Verb, count_verbs, verb_and_noun
from pipeline.errors import InputError


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        ("Write a short poem about the sea.", ("write", "poem")),
        ("Please carefully sort the given numbers.", ("sort", "number")),
        ("Given a list of cities, find the largest one by population.", ("find", None)),
        ("Based on the text, suggest three possible titles.", ("suggest", "title")),
        ("You are given a paragraph. Summarize the main idea in one line.", ("summarize", "idea")),
        ("In this task, you need to identify the correct grammatical tense.", ("identify", "tense")),
        ("Your task is to classify each review.", ("classify", "review")),
        ("Can you give me some useful tips for better sleep?", ("give", "tip")),
        ("Could you help me write a cover letter?", ("write", "letter")),
        ("How do I bake sourdough bread at home?", ("bake", "bread")),
        ("Give me a detailed, friendly answer.", ("give", "answer")),
        ("Tell me why the sky is blue.", ("tell", None)),
        ("Come up with a name for a cat.", ("come", None)),
        ("Write down the steps of photosynthesis.", ("write", "step")),
        ('Translate "good morning" into French.', ("translate", None)),
        ("List two emojis and explain them.", ("list", "emoji")),
        ("What is the capital of France?", (None, None)),
        ("The text should be corrected.", (None, None)),
        ("", (None, None)),
        ("??!", (None, None)),
        ("1 2 3", (None, None)),
        ("写一首诗", (None, None)),
    ],
)
def test_verb_and_object(instruction, expected):
    """The verb that an instruction asks for, and the head of its object; None where there is none."""
    assert verb_and_noun(instruction) == expected


def test_the_commonest_verbs_with_their_commonest_objects():
    """Twenty verbs and four objects of each at most, in a fixed order; the counts are of the whole sample."""
    objects = ["poem", "story", "letter", "essay", "song"]
    texts = [f"Write a {each}." for number, each in enumerate(objects) for _ in range(5 - number)]
    others = "answer build change cook draw eat find give help join keep learn make name open paint read sell take use"
    texts += [f"{verb.capitalize()} it now." for verb in f"{others} visit walk".split()]
    found = count_verbs([*texts, "Why?"], of=999)

    assert found.top[0] == Verb("write", 15, (("poem", 5), ("story", 4), ("letter", 3), ("essay", 2)))
    assert len(found.top) == 20
    assert [each.verb for each in found.top[1:]] == sorted(others.split())[:19]
    assert (found.verbs, found.pairs, found.with_verb, found.with_noun) == (23, 5, 37, 15)
    assert (found.sample, found.of) == (38, 999)


def test_a_very_long_text_is_looked_at_in_part():
    """Two megabytes without a request are given up after the first lines."""
    assert verb_and_noun("of the " * 300_000 + ". Write a poem.") == (None, None)


def test_a_missing_extra_is_one_sentence(monkeypatch):
    """Without the dictionary the sentence names the extra that brings it."""
    monkeypatch.setitem(sys.modules, "lemminflect", None)
    diversity._lemmas.cache_clear()
    diversity._dictionary.cache_clear()

    with pytest.raises(InputError, match=r"^lemminflect is not installed.*`pip install 'instructmill\[report\]'`"):
        verb_and_noun("Write a poem.")


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text", ["In the morning" + ", in the morning" * 120, "if, " * 500, "Given " + ", given" * 300]
)
def test_clauses_without_end_take_no_time(text):
    """A model that repeats itself writes hundreds of clauses: they are looked at once each."""
    assert verb_and_noun(text)[1] is None
