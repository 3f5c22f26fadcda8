"""The demo's corpus: our own Markdown files in `texts/`, cut into titled sections, and which of them are poor."""

from __future__ import annotations

import re
from importlib.resources import files

# What the filters of a corpus should refuse, by the reason.
REFUSED = {
    "short": ("Short beds", "Baking clay beads", "Links"),
    "navigational": ("Newsletter", "Forum"),
    "upper case": ("SALE OF GARDEN TOOLS", "THE LOST GLOVE"),
    "repeated": ("Our school and the rain barrel",),
    "duplicate": ("How a candle burns",),
    "near duplicate": ("How snow is made",),
}
# What a judge should score low, by what is wrong with it.
POOR = {
    "blog": (
        "My kitchen and my new pan",
        "Our garden and the rabbits",
        "My thoughts on the rain",
        "My cat and I",
        "Our new old house",
        "My first chair",
        "Our town and my bus",
        "What I think about old shoes",
    ),
    "advert": (
        "Cheap knives for every kitchen",
        "Boat trips for the whole family",
        "New windows for less money",
        "Learn to draw in ten days",
        "The best flats in our town",
        "The best beds for your back",
        "Free lessons and cheap guitars",
    ),
    "forum": ("A question about sick roses", "Help with my old dog", "Which radio to buy"),
    "method": ("Notes on writing about canals", "How to write about winter"),
    "other": ("The use of old newspapers", "The way of a letter in a bottle"),
    "cut": (
        "How to cook rice",
        "How fog comes and goes",
        "Feeding birds in the snow",
        "What makes a floor creak",
        "How a pump lifts water",
        "A parcel from far away",
    ),
}


def shipped_sections() -> list[tuple[str, str]]:
    """Every section's title and text, in the order of the files' names."""
    folder = files("embedded") / "texts"
    texts = [one.read_text(encoding="utf-8") for one in sorted(folder.iterdir(), key=lambda one: one.name)]
    parts = [part for text in texts for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]]
    return [(title.strip(), body.strip()) for title, body in (part.split("\n", 1) for part in parts)]


def kind_of(title: str) -> str:
    """What is wrong with a section, or "good"."""
    return next((kind for kind, titles in POOR.items() if title in titles), "good")


def to_judge() -> list[tuple[str, str]]:
    """The sections that a run's filters let through."""
    refused = {title for reason, titles in REFUSED.items() if "duplicate" not in reason for title in titles}
    return list({title: body for title, body in shipped_sections() if title not in refused}.items())
