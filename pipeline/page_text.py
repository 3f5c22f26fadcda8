"""An HTML page as plain text in the manner of Markdown, and where its headers are.

Paragraphs stand apart by blank lines; `pre` is fenced code, word for word; list items begin with "- " or "1. ", lower
headers with "## "; rows of a table read "a | b"; code in a line is in backticks. Links and emphasis leave their text
only. Scripts, forms, navigation and whatever is hidden are left out. Broken HTML is read as browsers read it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from selectolax.lexbor import LexborDocumentOptions, LexborHTMLParser, LexborNode

# Deeper elements become part of those above them, as in browsers: the parser's time grows with the square of the depth.
_DEEPEST = 400
_MANY_TAGS = 10_000  # a page with fewer cannot be deep enough to take long
_MOST_BOXES = 8  # lists and quotations in each other that are still indented

# Of elements that nest until they are closed: not of empty ones, nor of those that the next of their kind closes.
_TAG = re.compile(
    r"<(/?)(?!(?:p|li|dt|dd|tr|td|th|tbody|thead|tfoot|h[1-6]|option|optgroup|br|hr|img|input|meta|link|area|base|col"
    r"|colgroup|embed|source|track|wbr|param|html|head|body)(?![^\s/<>]))[a-z][^\s/<>]*[^<>]*>?",
    re.IGNORECASE,
)
# The parser compares each attribute with all before it, and a tag this long (a picture in it, most often) says nothing.
_LONG_TAG = re.compile(r"<([a-z][^\s/<>]{0,99}+)[^<>]{4000,}+", re.IGNORECASE)
_LEFT_OUT = frozenset(
    "script style noscript template nav aside iframe object svg canvas audio video button select datalist input "
    "textarea dialog annotation annotation-xml noembed noframes".split()
)
# A header or footer is that of the page unless it stands in an article; some sites put the whole page into a form.
_LEFT_OUT_BY_PLACE = ", ".join(
    [
        ":is(header, footer):not(article *, main *, section *)",
        "form:not(:has(main, article, h1))",
        "[hidden], [aria-hidden=true], [style*='display:none' i], [style*='display: none' i]",
        "[role=navigation], [role=banner], [role=contentinfo], [role=search], [role=complementary], [role=menu]",
        "a.headerlink",
    ]
)
# A table that arranges the page rather than holds data: its cells are read as any other part of the page.
_ARRANGING = "table:has(table, h1, h2, h3, h4, h5, h6, pre, ul, ol, blockquote)"
_HEADERS = frozenset(("h1", "h2", "h3", "h4", "h5", "h6"))
_VERBATIM = frozenset(("pre", "xmp", "listing", "plaintext"))
_CODE = frozenset(("code", "kbd", "samp", "tt"))
_LISTS = frozenset(("ul", "ol", "menu", "dir"))
_BLOCKS = frozenset(
    "address article blockquote body caption center dd details div dl dt fieldset figcaption figure footer form header "
    "hgroup hr legend li main p section summary table tbody td tfoot th thead tr".split()
).union(_HEADERS, _VERBATIM, _LISTS)
_SHOWN = _BLOCKS.union(_CODE, ("br",))
_MARKS_OF_LINKS = " ¶§"  # behind a header, put there by generators of documentation


def read_page(html: str) -> tuple[list[str], list[tuple[int, int, str]]]:
    """A page's blocks, which joined are its text, and its headers: the number of the block, the level, the title.

    Never raises; a lone surrogate is read as "?".
    """
    html = _LONG_TAG.sub(r"<\1 ", html)
    if html.count("<") > _MANY_TAGS:
        html = _flattened(html)
    # Events of the parser, which nothing here uses, make long lists of options slow.
    tree = LexborHTMLParser(html.encode("utf-8", "replace").decode(), options=LexborDocumentOptions.WO_EVENTS)
    page = _Page()
    if tree.body is not None:
        _walk(tree.body, page)
    return page.blocks, page.headings


def _flattened(html: str) -> str:
    """A page without the tags that are nested too deep."""
    depth = 0

    def shallow(tag: re.Match[str]) -> str:
        nonlocal depth
        if tag[1]:
            depth = max(depth - 1, 0)
            return tag[0] if depth < _DEEPEST else ""
        depth += 1
        return tag[0] if depth <= _DEEPEST else ""

    return _TAG.sub(shallow, html)


def _walk(body: LexborNode, page: _Page) -> None:
    """Tell the page of every text and element in order, with the elements' ends; without recursion."""
    left_out = {node.mem_id for node in body.css(_LEFT_OUT_BY_PLACE)}
    arranging = {node.mem_id for node in body.css(_ARRANGING)}
    node, open_tags = body.first_child, list[str]()
    while node is not None:
        tag = node.tag or ""
        if tag == "-text":
            page.text(node.text_content or "")
        elif tag[:1] != "-" and tag not in _LEFT_OUT and node.mem_id not in left_out:
            if tag == "table" and node.mem_id in arranging:
                tag = "div"
            tag = tag if tag in _SHOWN else ""  # of all others only their text counts
            if tag:
                page.enter(tag, node)
            if (child := node.first_child) is not None:
                node = child
                open_tags.append(tag)
                continue
            if tag:
                page.leave(tag)
        while node is not None and node.next is None and open_tags:
            node = node.parent
            if closed := open_tags.pop():
                page.leave(closed)
        node = node.next if node is not None else None
    page.flush()


@dataclass(slots=True)
class _Box:
    """What stands before each line of a list item or a quotation, and before its first one until that is written."""

    first: str
    rest: str
    begun: bool = False

    def lead(self) -> str:
        text = self.rest if self.begun else self.first
        self.begun = True
        return text


class _Page:
    """Collects texts and elements into blocks. A block is a paragraph, a header, a table or a piece of code."""

    def __init__(self) -> None:
        self.blocks: list[str] = []  # each with the line ends before it
        self.headings: list[tuple[int, int, str]] = []
        self._lines: list[list[str]] = [[]]  # of the block that is being read; a new one after each <br>
        self._boxes: list[_Box] = []
        self._numbers: list[int | None] = []  # of the lists around: the next item's number, None without
        self._in_list = False  # the last block was part of one
        self._header = 0  # the level of the header that is being read
        self._verbatim = 0  # how many <pre> are open
        self._code: int | None = None  # how many texts were in the line when code began
        self._rows: list[str] | None = None  # of the table of data that is being read
        self._cells: list[str] = []

    def text(self, text: str) -> None:
        self._lines[-1].append(text)

    def enter(self, tag: str, node: LexborNode) -> None:
        if self._verbatim:
            self._verbatim += tag in _VERBATIM
            self._end_verbatim_line(tag)
            if tag == "br":
                self.text("\n")
        elif tag == "br" and self._code is not None:
            self.text(" ")
        elif tag == "br":
            self._lines.append([])
        elif tag in _CODE and self._code is None:
            self._code = len(self._lines[-1])
            self.text("`")
        elif tag in _BLOCKS:
            self.flush()
            if self._rows is None:
                self._enter_block(tag, node)
            elif tag in ("td", "th", "caption"):
                self._lines = [[]]

    def _enter_block(self, tag: str, node: LexborNode) -> None:
        if tag in _HEADERS:
            self._end_header()  # of broken HTML: a header in a header
            self._header = int(tag[1])
        elif tag in _VERBATIM and not self._header:
            self._verbatim = 1
        elif tag == "table" and not self._header:
            self._rows = []
        elif tag in _LISTS:
            start = (node.attributes.get("start") or "1")[:9]
            number = int(start) if start.isascii() and start.isdecimal() else 1
            self._numbers.append(number if tag == "ol" else None)
        elif tag == "li":
            number_here = self._numbers[-1] if self._numbers else None
            marker = "- " if number_here is None else f"{number_here}. "
            self._boxes.append(_Box(marker, " " * len(marker)))
            if number_here is not None:
                self._numbers[-1] = number_here + 1
        elif tag == "blockquote":
            self._boxes.append(_Box("> ", "> "))

    def leave(self, tag: str) -> None:
        if self._verbatim:
            self._end_verbatim_line(tag)
            self._verbatim -= tag in _VERBATIM
            if not self._verbatim:
                self._end_verbatim()
        elif tag in _CODE and self._code is not None:
            self._end_code()
        elif tag in _BLOCKS:
            if self._rows is not None:
                self._leave_part_of_table(tag)
                return
            self.flush()
            if tag in _HEADERS:
                self._end_header()
            elif tag in _LISTS and self._numbers:
                self._numbers.pop()
            elif tag in ("li", "blockquote") and self._boxes:
                self._boxes.pop()

    def flush(self) -> None:
        """End the paragraph; inside a header or a table it is only a word that ends."""
        if self._header or self._rows is not None:
            self.text(" ")
        elif text := self._taken().strip("\n"):
            self._write(text)

    def _taken(self) -> str:
        """What was read since the last block, each line's white space made single spaces."""
        self._code = None
        lines, self._lines = self._lines, [[]]
        return "\n".join(" ".join("".join(line).split()) for line in lines)

    def _write(self, text: str) -> None:
        """Add a block. An item of a list follows the one before it without a blank line."""
        boxes = self._boxes[:_MOST_BOXES]
        new_item = any(not box.begun and box.first != "> " for box in boxes)
        self.blocks.append("" if not self.blocks else "\n" if new_item and self._in_list else "\n\n")
        self._in_list = any(box.first != "> " for box in boxes)
        if boxes:
            first, rest = "".join([box.lead() for box in boxes]), "".join([box.rest for box in boxes])
            text = first + "\n".join((rest + line if place else line) for place, line in enumerate(text.split("\n")))
        self.blocks[-1] += text

    def _end_header(self) -> None:
        if self._header:
            title = " ".join(self._taken().split()).rstrip(_MARKS_OF_LINKS)
            self.headings.append((len(self.blocks), self._header, title))
            self.blocks.append(f"{chr(10) * 2 if self.blocks else ''}{'#' * self._header} {title}")
            self._in_list = False
            self._header = 0

    def _end_code(self) -> None:
        """Close the backticks, or take the open one away where there was nothing to enclose."""
        assert self._code is not None
        line = self._lines[-1]
        code = " ".join("".join(line[self._code + 1 :]).split())
        ticks = "``" if "`" in code else "`"
        spaces = [" "] if len(line) > self._code + 1 else []
        line[self._code :] = [ticks + code + ticks] if code else spaces
        self._code = None

    def _end_verbatim_line(self, tag: str) -> None:
        """Inside <pre> the edge of a block ends a line, unless it has ended."""
        line = self._lines[-1]
        if tag in _BLOCKS and line and not line[-1].endswith("\n"):
            line.append("\n")

    def _end_verbatim(self) -> None:
        text = "".join("".join(line) for line in self._lines).strip("\n").rstrip()
        self._lines = [[]]
        if text.strip():
            ticks = max((len(run) for run in re.findall("`{3,}", text)), default=2) + 1
            self._write(f"{'`' * ticks}\n{text}\n{'`' * ticks}")

    def _leave_part_of_table(self, tag: str) -> None:
        assert self._rows is not None
        if tag in ("td", "th"):
            self._cells.append(" ".join(self._taken().split()))
        elif tag in ("tr", "caption", "table"):
            row = " | ".join(self._cells) if tag == "tr" else " ".join(self._taken().split())
            self._cells = []
            if row.strip(" |"):
                self._rows.append(row)
            if tag == "table":
                rows, self._rows = self._rows, None
                if rows:
                    self._write("\n".join(rows))
        else:
            self.flush()
