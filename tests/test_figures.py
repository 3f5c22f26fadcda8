"""Drawings of a survey, and what of them goes into a page."""

from __future__ import annotations

import asyncio
import contextlib
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from pipeline import figures, runs
from pipeline.config import parse_config
from pipeline.diversity import Diversity, Verb
from pipeline.errors import InputError
from pipeline.figures import DRAWINGS, has, to_svg
from pipeline.score_counts import Round
from pipeline.survey import Survey, survey
from pipeline.testing import ScriptedEngine, run_to_end

TITLE = 'Scores "so & far"'
EVIL = "</svg><script>$x_1$ & \"'"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Survey:
    """A survey that has all there is to draw, with a judge and a noun that would break a page."""
    folder = tmp_path_factory.mktemp("figures") / "r"
    values = {"name": "t", "target": 60, "window": 8, "shards": {"rows": 25}, "engine": {"kind": "scripted"}}
    asyncio.run(run_to_end(parse_config(values, "test"), folder, ScriptedEngine()))
    verb = Verb("write", 40, ((EVIL[:12], 20), ("$x_1$", 10)))
    return replace(
        survey(runs.read(folder)),
        diversity=Diversity((verb, Verb("come", 3, ())), 2, 2, 43, 30, 60, 60),
        rounds=(Round(1, EVIL, {1: 4, 2: 0, 3: 1, 4: 3, 5: 2}, 1), Round(2, "second", {1: 1, 5: 9}, 0)),
        engine_time={"useful": 80.0, "tail": 15.0, "loading": 5.0},
    )


@pytest.fixture(scope="module")
def empty(tmp_path_factory) -> Survey:
    """A survey of a run that has committed nothing."""
    folder = tmp_path_factory.mktemp("figures") / "empty"
    config = parse_config({"name": "t", "target": 60, "engine": {"kind": "scripted"}}, "test")
    runs.open_run(config, folder).close()
    return survey(runs.read(folder))


@pytest.fixture(scope="module")
def svgs(whole) -> dict[Any, str]:
    """Every drawing of it, by that title."""
    return {drawing: to_svg(drawing(whole), TITLE) for drawing in DRAWINGS}


def texts(svg: str) -> str:
    """What is written in a drawing."""
    return " ".join(element.text or "" for element in ElementTree.fromstring(svg).findall(".//{*}text"))


each = pytest.mark.parametrize("drawing", DRAWINGS, ids=lambda drawing: drawing.__name__)


@each
def test_it_is_one_svg_element_with_a_name(drawing, whole, svgs):
    """It is well-formed, and a reader that shows no pictures is told what it shows."""
    assert has(drawing, whole)
    root = ElementTree.fromstring(svgs[drawing])

    assert root.get("role") == "img"
    assert root.get("aria-label") == root.find("{*}title").text == TITLE
    assert texts(svgs[drawing]).strip()


@each
def test_the_same_survey_gives_the_same_bytes(drawing, whole, svgs):
    """No date, no random names."""
    assert to_svg(drawing(whole), TITLE) == svgs[drawing]


@each
def test_the_page_sets_its_colours(drawing, svgs):
    """Nothing is painted behind it, text is in the page's colour and font, and there is no style of its own."""
    svg = svgs[drawing]

    assert "currentColor" in svg
    assert "<style" not in svg
    for colour in (figures.INK, figures.GRID, figures.PAPER, "DejaVu", "sans"):
        assert colour not in svg
    for element in ElementTree.fromstring(svg).findall(".//{*}text"):
        assert "fill: currentColor" in element.get("style") or "fill: #ffffff" in element.get("style")
        assert "font-family: inherit" in element.get("style")


@each
def test_two_drawings_share_no_names(drawing, whole, svgs):
    """On one page each drawing refers to parts of its own alone, and to no other place."""
    svg = svgs[drawing]
    first, second = (set(re.findall(r'\bid="([^"]*)"', each)) for each in (svg, to_svg(drawing(whole), "b")))

    assert first
    assert not first & second
    assert set(re.findall(r'(?:href="#|url\(#)([^")]*)', svg)) <= first
    assert set(re.findall(r'"(https?:[^"]*)"', svg)) == {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


@each
def test_it_draws_on_axes_that_it_is_given(drawing, whole):
    """A notebook can put it beside others."""
    from matplotlib.figure import Figure

    figure = Figure()
    axes = figure.subplots(1, 3)

    assert drawing(whole, axes if drawing is figures.lengths else axes[0]) is figure
    figure.draw_without_rendering()


@each
def test_an_empty_run_is_drawn_or_said_to_have_nothing(drawing, empty):
    """No drawing of a run without rows ends in a fault that was not announced."""
    assert not has(drawing, empty)
    said = contextlib.nullcontext()
    if drawing not in (figures.acceptance, figures.rejects, figures.novelty):
        said = pytest.raises(ValueError, match=r"^the survey has nothing of what this shows$")
    with said:
        to_svg(drawing(empty), "a")


def test_what_a_model_wrote_is_shown_as_it_is(svgs):
    """Markup is escaped, and a dollar is no formula."""
    scores, verbs = svgs[figures.scores], svgs[figures.verbs]

    assert "<script" not in scores + verbs
    assert EVIL in texts(scores)
    assert "$x_1$" in texts(verbs)


def test_the_threshold_is_drawn_where_the_refused_begin(whole):
    """The line stands at the run's threshold, and the legend names it and counts what was not looked for."""
    axes = figures.novelty(whole).axes[0]

    assert axes.lines[0].get_xdata()[0] == 0.7
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "threshold 0.7",
        f"admitted ({whole.novelty.far} more below 0.65)",
        "refused",
    ]


def test_every_reason_has_its_bar(whole):
    """One bar for each reason, the most frequent at the top, as long as its count."""
    axes = figures.rejects(whole).axes[0]
    drawn = sorted((round(bar.get_y() + bar.get_height() / 2), bar.get_width()) for bar in axes.patches)

    assert axes.yaxis_inverted()
    assert [count for _, count in drawn] == [each.count for each in whole.rejects]
    assert [label.get_text() for label in axes.get_yticklabels()] == [each.reason for each in whole.rejects]


def test_verbs_without_objects_are_no_drawing(whole):
    """Where no verb has an object there is nothing in the rings, and drawing them is no fault."""
    plain = replace(whole, diversity=replace(whole.diversity, top=(Verb("come", 3, ()),)))

    assert not has(figures.verbs, plain)
    assert texts(to_svg(figures.verbs(plain), "a")) == ""


def test_the_style_of_a_notebook_is_left_alone(whole):
    """Drawing changes no setting of matplotlib, and loads no pyplot, which would ask for a screen."""
    script = (
        "import sys, matplotlib\n"
        "before = matplotlib.rcParams.copy()\n"
        "from pipeline.figures import _new_figure, _styled, to_svg\n"
        "to_svg(_styled(lambda: _new_figure(2, 2))(), 'a')\n"
        "assert matplotlib.rcParams.copy() == before\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    root = Path(figures.__file__).parents[1]
    subprocess.run([sys.executable, "-c", script], check=True, cwd=root)


def test_a_missing_extra_is_one_sentence(whole, monkeypatch):
    """Without matplotlib the sentence names the extra that brings it."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    with pytest.raises(InputError, match=r"^matplotlib is not installed.*`pip install 'instructmill\[report\]'`"):
        figures.rejects(whole)
