"""Documents cut into pieces by their headers.

The rule, for Markdown and HTML alike: a section is a header with the text under it, lower headers included. A section
longer than `max_characters` is cut at its lower headers instead: its own text, before the first of them, is a piece,
and each lower section is cut by the same rule. Text before the first header is a piece without one. So no text is in
two pieces and none is lost; a header is not part of its piece's text, but lower headers are, and what holds no text is
no piece.

Markdown stays as written, less front matter and HTML comments. HTML becomes plain text in the manner of Markdown
(`pipeline/page_text.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.token import Token

from pipeline.page_text import read_page

Kind = Literal["plain", "markdown", "html"]

_LONGEST_TITLE = 1000  # characters; a longer header stays as it is written, since inline markup is slow to read
_ATTRIBUTES = re.compile(r"\s*\{[#.:][^{}]*\}\s*$")  # "## Title {#anchor}"
_BLANK_START = re.compile(r"\A\s*\n")
_FRONT_MATTER = {
    "---": (re.compile(r"[\w\"'-][^:]*:(\s|$)|#"), ("---", "...")),
    "+++": (re.compile(r"[^=]*=|#"), ("+++",)),
}


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text of a document under its header: None before the first, "" for a header without words.

    `path` holds the headers from the top, its own last.
    """

    header: str | None
    path: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Heading:
    """Where a header is among the lines of Markdown or the blocks of a page: it begins at `at`, its text at `after`."""

    at: int
    after: int
    level: int
    title: str


def cut(kind: Kind, text: str, max_characters: int) -> Iterator[Piece]:
    """The pieces of a document, in order, by the rule above; plain text is one, however long. Never raises."""
    if kind == "markdown":
        yield from _cut_markdown(text, max_characters)
    elif kind == "html":
        blocks, found = read_page(text)
        headings = [Heading(at, at + 1, level, title) for at, level, title in found]
        yield from _sections(
            headings, len(blocks), lambda start, end: _trimmed("".join(blocks[start:end])), max_characters
        )
    elif whole := _trimmed(text):
        yield Piece(None, (), whole)


def _sections(
    headings: Sequence[Heading], end: int, text_of: Callable[[int, int], str], max_characters: int
) -> Iterator[Piece]:
    """The pieces of a document whose parts are numbered up to `end`; a section ends at the next header as high."""
    if text := text_of(0, headings[0].at if headings else end):
        yield Piece(None, (), text)
    above: list[Heading] = []
    place = 0
    while place < len(headings):
        heading = headings[place]
        above = [one for one in above if one.level < heading.level] + [heading]
        following = place + 1
        while following < len(headings) and headings[following].level > heading.level:
            following += 1
        text = text_of(heading.after, headings[following].at if following < len(headings) else end)
        if following > place + 1 and len(text) > max_characters:
            following = place + 1
            text = text_of(heading.after, headings[following].at)
        if text:
            yield Piece(heading.title, tuple(one.title for one in above), text)
        place = following


def _trimmed(text: str) -> str:
    """Without blank lines at its start and white space at its end; the first line keeps its indentation."""
    return _BLANK_START.sub("", text).rstrip() if text.strip() else ""


# Markdown


def _cut_markdown(text: str, max_characters: int) -> Iterator[Piece]:
    lines = _without_front_matter(text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\ufffd").split("\n"))
    tokens = _block_tokens("\n".join(lines))
    headings = [
        Heading(token.map[0], token.map[1], int(token.tag[1:]), _title(token.content))
        for token in tokens
        if token.type == "heading" and token.map
    ]
    code = bytearray(len(lines) + 1)  # 1 for lines of code, whose comments are code too
    for token in tokens:
        if token.type != "heading" and token.map:
            code[token.map[0] : token.map[1]] = b"\1" * (token.map[1] - token.map[0])
    shown = _without_comments(lines, code)

    def text_of(start: int, end: int) -> str:
        return _trimmed("\n".join(line for line in shown[start:end] if line is not None))

    yield from _sections(headings, len(lines), text_of, max_characters)


def _reader() -> MarkdownIt:
    """A parser of blocks alone, which hands over headings and code as it goes.

    Text inside paragraphs is never looked at, so that a line of any length costs nothing; and all else that it finds is
    dropped after each block, since a long document's tokens take a hundred times the room of its text.
    """
    parser = MarkdownIt("commonmark")
    parser.core.ruler.enableOnly(["normalize", "block"])

    def hand_over(state: StateBlock, _start: int, _end: int, _silent: bool) -> bool:
        if state.level == 0:
            state.env["kept"] += _worth_keeping(state.tokens)
            state.tokens.clear()
        return False  # it is no block of its own: the other rules look at this line

    parser.block.ruler.before("code", "hand_over", hand_over)
    return parser


def _worth_keeping(tokens: Sequence[Token]) -> Iterator[Token]:
    """Headings that stand in no list and no quotation, with their text, and code."""
    for place, token in enumerate(tokens):
        if token.type == "heading_open" and token.level == 0:
            token.type, token.content = "heading", tokens[place + 1].content
            yield token
        elif token.type in ("fence", "code_block"):
            yield token


def _block_tokens(text: str) -> list[Token]:
    found: dict[str, list[Token]] = {"kept": []}
    rest = _BLOCKS.parse(text, found)
    return [*found["kept"], *_worth_keeping(rest)]


_BLOCKS = _reader()
_INLINE = MarkdownIt("commonmark")


def _title(written: str) -> str:
    """A header's words: links and emphasis without their marks, code in its backticks."""
    if len(written) > _LONGEST_TITLE:
        return " ".join(written.split())
    words = []
    for token in (child for line in _INLINE.parseInline(_ATTRIBUTES.sub("", written)) for child in line.children or ()):
        if token.type in ("softbreak", "hardbreak"):
            words.append(" ")
        elif token.type == "code_inline":
            words.append(f"`{token.content}`")
        elif token.type in ("text", "image"):
            words.append(token.content)
    return " ".join("".join(words).split())


def _without_front_matter(lines: list[str]) -> list[str]:
    """Lines without the settings, in YAML or TOML between two rulers, that a site's pages begin with."""
    ruler = lines[0].rstrip().lstrip("\ufeff")
    if ruler not in _FRONT_MATTER or len(lines) < 3:
        return lines
    setting, ends = _FRONT_MATTER[ruler]
    if not setting.match(lines[1]):
        return lines
    end = next((number for number, line in enumerate(lines) if number and line.rstrip() in ends), None)
    return lines if end is None else lines[end + 1 :]


def _without_comments(lines: Sequence[str], code: bytearray) -> list[str | None]:
    """Lines without the HTML comments outside code; None for a line that held nothing else."""
    shown: list[str | None] = list(lines)
    start = 0
    while start < len(lines):
        end = start
        while end < len(lines) and code[end] == code[start]:
            end += 1
        stretch = "\n".join(lines[start:end])
        if not code[start] and "<!--" in stretch:
            for number, line in enumerate(_cut_out_comments(stretch).split("\n"), start):
                words = line.replace("\0", "")
                shown[number] = words if words.strip() or line == lines[number] else None
        start = end
    return shown


def _cut_out_comments(text: str) -> str:
    """Text without comments but with their line ends, a NUL behind each.

    A comment right behind a backtick is code, and one that is never closed stays.
    """
    parts: list[str] = []
    place = end = 0
    while (start := text.find("<!--", place)) >= 0:
        if end < start + 2 and (end := text.find("-->", start + 2)) < 0:
            break
        if text[start - 1 : start] == "`":
            parts.append(text[place : start + 4])
            place = start + 4
        else:
            parts += text[place:start], "\n\0" * text.count("\n", start, end)
            place = end + 3
    return "".join([*parts, text[place:]])
