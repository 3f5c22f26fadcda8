"""Documents cut by their headers: the rule, Markdown as it is written, pages as browsers read them."""

from __future__ import annotations

import re
import time
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.segmenting import Kind, Piece, cut


def pieces(kind: Kind, text: str, most: int = 10_000) -> list[tuple[str | None, str]]:
    """Headers and texts of a document's pieces."""
    return [(piece.header, piece.text) for piece in cut(kind, text, most)]


def page(html: str) -> str:
    """The text of a page without headers."""
    (piece,) = cut("html", html, 10_000)
    assert piece.header is None
    return piece.text


GUIDE = """Before.

# A

Of A.

## B

Of B.

### C

Of C.

## D

Of D.

# E

Of E.
"""


# The rule


@pytest.mark.parametrize("kind", ["markdown", "html"])
def test_a_section_holds_its_lower_headers(kind: Kind) -> None:
    """A section short enough is one piece, lower headers included; text before all headers is a piece without one."""
    text = GUIDE if kind == "markdown" else as_page(GUIDE)

    assert pieces(kind, text) == [
        (None, "Before."),
        ("A", "Of A.\n\n## B\n\nOf B.\n\n### C\n\nOf C.\n\n## D\n\nOf D."),
        ("E", "Of E."),
    ]


@pytest.mark.parametrize("kind", ["markdown", "html"])
def test_a_long_section_is_cut_at_its_lower_headers(kind: Kind) -> None:
    """Longer than the limit, its own text is a piece and each lower section is cut by the same rule."""
    text = GUIDE if kind == "markdown" else as_page(GUIDE)
    b_whole = "Of B.\n\n### C\n\nOf C."

    assert [header for header, _ in pieces(kind, text, 44)] == [None, "A", "B", "D", "E"]
    assert pieces(kind, text, len(b_whole))[2] == ("B", b_whole)
    assert pieces(kind, text, len(b_whole) - 1)[2:4] == [("B", "Of B."), ("C", "Of C.")]


def as_page(markdown: str) -> str:
    """The same guide in HTML."""
    lines = [line for line in markdown.splitlines() if line]
    marks = [(line.count("#"), line.strip("# ")) for line in lines]
    return "".join(f"<h{level}>{words}</h{level}>" if level else f"<p>{words}</p>" for level, words in marks)


def test_paths_are_the_headers_from_the_top() -> None:
    """Each piece's path ends with its own header; a header skipped over leaves no gap."""
    found = list(cut("markdown", "#### X\nx\n# A\n### B\nb\n## C\nc\n## D\nd\n", 1))

    assert [piece.path for piece in found] == [("X",), ("A", "B"), ("A", "C"), ("A", "D")]


def test_what_holds_no_text_is_no_piece() -> None:
    """Headers alone, white space and nothing at all give no piece."""
    assert [pieces(kind, text) for kind in ("plain", "markdown", "html") for text in ("", " \n\n\t")] == [[]] * 6
    assert pieces("markdown", "# A\n\n## B\n", 1) == []
    assert pieces("html", "<h1>A</h1>") == []


def test_plain_text_is_one_piece() -> None:
    """Whatever its length, as it is written, without the blank lines around it."""
    assert list(cut("plain", "\n\n  # a\n\nb \n", 1)) == [Piece(None, (), "  # a\n\nb")]


# Markdown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A\n===\na\n\nB\n---\nb", [("A", "a\n\nB\n---\nb")]),
        ("# A #\na", [("A", "a")]),
        ("#\na", [("", "a")]),
        ("#A\na", [(None, "#A\na")]),
        ("```\n# no\n```\n\n~~~md\n# no\n~~~\n\n    # no", [(None, "```\n# no\n```\n\n~~~md\n# no\n~~~\n\n    # no")]),
        ("- a\n\n  # no\n\n> # no\n", [(None, "- a\n\n  # no\n\n> # no")]),
        ("# A `b` *c* [d](e) &amp; \\* {#anchor}\na", [("A `b` c d & *", "a")]),
        ("---\ntitle: x\n---\n# A\na", [("A", "a")]),
        ("+++\ntitle = 'x'\n+++\na", [(None, "a")]),
        ("---\n\na\n\n---\n\nb", [(None, "---\n\na\n\n---\n\nb")]),
        ("---\ntitle: never closed\n", [(None, "---\ntitle: never closed")]),
        ("# A\r\n\r\na\rb\r\n", [("A", "a\nb")]),
    ],
)
def test_markdown(text: str, expected: list[tuple[str | None, str]]) -> None:
    """Headers of both styles cut, those in code, lists and quotations do not; front matter is left out."""
    assert pieces("markdown", text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a <!-- x --> b", "a  b"),
        ("a\n\n<!-- x\n# y\n\nz -->\n\nb", "a\n\n\nb"),
        ("```\n<!-- x -->\n```", "```\n<!-- x -->\n```"),
        ("    <!-- x -->\n\na", "    <!-- x -->\n\na"),
        ("say `<!-- x -->` <!-- y -->so", "say `<!-- x -->` so"),
        ("a <!-- never closed", "a <!-- never closed"),
        ("a <!--> b", "a  b"),
    ],
)
def test_comments_are_left_out(text: str, expected: str) -> None:
    """HTML comments are no text of Markdown, but where they are code they are."""
    assert pieces("markdown", text) == [(None, expected)]


# Ways for a word to stand in Markdown, so that any sequence of them nests and breaks in odd ways. What may be a header
# has text under it, since one without is no piece.
WAYS = [
    *(
        f"{way}\n\nx\n"
        for way in ("# W", "## W", "### W #", "W\n===", "W\n---", "---", "## <b>W</b>", "# [W](x)", "  # W")
    ),
    *("W", "- W", "  - W", "1. W", "> # W", "> W", "```\nW\n```", "``` W", "~~~", "    # W", "\tW", "<div>W</div>"),
    *("<pre>W", "</pre>", "[W]: x", "#W", "***", "W  ", "a | W", "![W](x)", "`W", "**W", ""),
]


@given(st.lists(st.tuples(st.sampled_from(WAYS), st.booleans()), max_size=14), st.integers(1, 120))
@settings(max_examples=500, deadline=None)
def test_no_text_of_markdown_is_lost_or_doubled(parts: list[tuple[str, bool]], most: int) -> None:
    """Every word comes out once: in the text of one piece, or as its header."""
    lines = [way.replace("W", f"w{n}w") + "\n" * blank for n, (way, blank) in enumerate(parts)]
    found = list(cut("markdown", "\n".join(["begin", *lines]), most))
    words = [f"w{n}w" for n, (way, _) in enumerate(parts) if "W" in way]
    told = Counter(re.findall(r"w\d+w", "\n".join(f"{one.header}\n{one.text}" for one in found)))

    assert told == Counter(words)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 30)), max_size=12), st.integers(1, 200))
@settings(max_examples=300, deadline=None)
def test_every_paragraph_is_in_one_piece(parts: list[tuple[int, int]], most: int) -> None:
    """Of any tree of sections, each paragraph and each lower header comes out once and in order, in both formats."""
    lines = [f"{'#' * level} h{n}h" if level else f"w{n}w " + "x" * (size + 1) for n, (level, size) in enumerate(parts)]
    markdown = "\n\n".join(lines)
    html = "".join(
        f"<h{level}>h{n}h</h{level}>" if level else f"<p>{line}"
        for n, ((level, _), line) in enumerate(zip(parts, lines, strict=True))
    )
    found = list(cut("markdown", markdown, most))
    words = [line for line in lines if line[0] == "w"]
    told = [line for piece in found for line in piece.text.split("\n") if line.startswith("w")]

    assert told == words
    assert [(one.header, one.path, one.text) for one in cut("html", html, most)] == [
        (one.header, one.path, one.text) for one in found
    ]


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode), st.sampled_from(["markdown", "html", "plain"]))
@settings(max_examples=400, deadline=None)
def test_any_bytes_are_cut(data: bytes, kind: Any) -> None:
    """Whatever a file holds, cutting it raises nothing."""
    for text in (data.decode("latin-1"), data.decode("utf-8", "surrogateescape"), data.decode("utf-8", "replace")):
        assert all(piece.text.strip() for piece in cut(kind, text, 20))


# Pages


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>a\n  b<p>c &amp; &lt;d&gt; &eacute;&nbsp;f", "a b\n\nc & <d> é f"),
        ("a<br>b<div>c<div>d</div></div>e", "a\nb\n\nc\n\nd\n\ne"),
        ("a <em>b</em><a href=x>c</a> <b>d</b>", "a bc d"),
        ("<ul><li>a<li>b <i>c</i></ul><p>d", "- a\n- b c\n\nd"),
        ("<ol><li>a<li><p>b<p>c</ol><ol start=7><li>d</ol>", "1. a\n2. b\n\n   c\n7. d"),
        ("<ul><li>a<ol><li>b<li>c</ol><li>d</ul>", "- a\n  1. b\n  2. c\n- d"),
        ("<pre>\na  <b>b</b>\n\n   c\n</pre>", "```\na  b\n\n   c\n```"),
        ("<pre>a<br>b<div>c</div><div>d</div></pre>", "```\na\nb\nc\nd\n```"),
        ("<pre>a ``` b</pre>", "````\na ``` b\n````"),
        ("<pre> </pre>x", "x"),
        ("run <code>a  <i>b</i></code>, <kbd>c`d</kbd><code></code>!", "run `a b`, ``c`d``!"),
        ("<blockquote><p>a<br>b<p>c</blockquote>", "> a\n> b\n\n> c"),
        (
            "<table><caption>T</caption><tr><th>a<th>b<tr><td><p>c<p>d<td><code>e</code></table>f",
            "T\na | b\nc d | `e`\n\nf",
        ),
        ("<table><tr><td><p>a<ul><li>b</ul><td>c</table>", "a\n\n- b\n\nc"),
        ("<dl><dt>a<dd>b<dt>c<dd>d</dl>", "a\n\nb\n\nc\n\nd"),
    ],
)
def test_pages_become_plain_text(html: str, text: str) -> None:
    """Paragraphs, lists, code, tables and quotations in the manner of Markdown."""
    assert page(html) == text


@pytest.mark.parametrize(
    "left_out",
    [
        "<script>x</script>",
        "<style>x</style>",
        "<nav>x</nav>",
        "<header><p>x</header>",
        "<footer>x</footer>",
        "<aside>x</aside>",
        "<form><input value=x>x</form>",
        "<button>x</button>",
        "<select><option>x</select>",
        "<textarea>x</textarea>",
        "<iframe src=x>x</iframe>",
        "<template><p>x</template>",
        "<noscript>x</noscript>",
        "<svg><text>x</text></svg>",
        "<p hidden>x</p>",
        "<div style='color:red; Display: none'>x</div>",
        "<span aria-hidden=true>x</span>",
        "<div role=navigation>x</div>",
        "<!-- x -->",
    ],
)
def test_what_is_no_text_of_a_page_is_left_out(left_out: str) -> None:
    """Scripts, styles, navigation, forms and what is hidden give nothing, and what is around them stays."""
    assert page(f"<p>a</p>{left_out}<p>b</p>") == "a\n\nb"


def test_an_article_keeps_its_header() -> None:
    """A header or footer within an article is part of it, and a form around the page's title is the page."""
    assert pieces("html", "<form><article><header><h1>T</h1></header><p>a<footer>b</footer></article></form>") == [
        ("T", "a\n\nb")
    ]


def test_marks_of_header_links_are_no_words() -> None:
    """Sphinx's and rustdoc's links beside a header are left out; a sharp at its end is its own."""
    html = '<h1>A<a class="headerlink" href="#a">¶</a></h1>a<h1>B §</h1>b<h1>C#</h1>c<h1><code>d</code> e</h1>d'

    assert [header for header, _ in pieces("html", html)] == ["A", "B", "C#", "`d` e"]


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("</p></div>a</b><b>b<p>c</b>d", [(None, "ab\n\ncd")]),
        ("<h1>A<h2>B</h1>c<li>d", [("A", "## B\n\nc\n\n- d")]),
        ("<table>a<tr>b<td>c", [(None, "ab\n\nc")]),
        ("<p>a<!-- never closed <p>b", [(None, "a")]),
        ("<p a='x>b", []),
        ("<frameset><frame>", []),
        ("a & b &unknown; < c <", [(None, "a & b &unknown; < c <")]),
        ("<pre><h1>A</h1>b", [(None, "```\nA\nb\n```")]),
    ],
)
def test_broken_pages(html: str, expected: list[tuple[str | None, str]]) -> None:
    """Whatever is not closed, or closed twice, is read as browsers read it."""
    assert pieces("html", html) == expected


# Large and deep


def many(part: str, size: int = 300_000) -> str:
    """A part repeated to so many characters."""
    return part * (size // len(part))


@pytest.mark.parametrize(
    "html",
    [
        *map(many, ("<div>", "<b><p>", "<table><tr><td>", "<ul><li>", "<x-y>", "<a", "<select><option>a", "<font>x")),
        "<p " + " ".join(f"a{n}=1" for n in range(40_000)) + ">x",
    ],
)
def test_pages_made_to_take_long(html: str) -> None:
    """Depth, options and attributes without end take time that grows with the page and not with its square."""
    began = time.monotonic()
    list(cut("html", html, 3000))

    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "text",
    [
        *map(many, ("`<!--", "[", "> ", "- ", "*", "<!--", "`", "---\n", "# a\n## b\n", "- a\n")),
        "# a" + " " * 300_000 + "b {#c}\nx",
    ],
)
def test_markdown_made_to_take_long(text: str) -> None:
    """Marks without end take time that grows with the text and not with its square."""
    began = time.monotonic()
    list(cut("markdown", text, 3000))

    assert time.monotonic() - began < 20


@pytest.mark.parametrize("kind", ["plain", "markdown", "html"])
def test_a_single_line_of_50_mb(kind: Kind) -> None:
    """One line of 50 MB is one piece within seconds."""
    line = "word " * (10 << 20)
    began = time.monotonic()
    (piece,) = cut(kind, line, 3000)

    assert len(piece.text) == len(line) - 1
    assert time.monotonic() - began < 20
