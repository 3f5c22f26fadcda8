"""One document of a corpus: what its bytes, or the fields of its row, say as text.

What cannot be read as text is no error: it is a document with a reason, and the corpus goes on.
"""

from __future__ import annotations

import codecs
import json
import re
from dataclasses import dataclass

from pipeline.records import Unfit
from pipeline.segmenting import Kind

# By the first bytes; those of UTF-32 begin with those of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_DECLARED = re.compile(
    rb"""<meta[^>]{0,200}?charset\s{0,9}=\s{0,9}["']?\s{0,9}([a-zA-Z0-9_.:-]{1,40})""", re.IGNORECASE
)
_DECLARED_WITHIN = 1024  # bytes of a page, as browsers look
# Not every name that Python can decode is an encoding of pages ("rot13", "punycode").
_OF_PAGES = re.compile(r"cp\d|windows-|iso-?8859|latin|koi8|gb|big5|hz|euc|shift|sjis|iso-2022|mac|tis-620|johab")
_LIKE_WINDOWS_1252 = frozenset(
    ("iso-8859-1", "iso8859-1", "latin1", "latin-1", "us-ascii", "ascii")
)  # so browsers read


@dataclass(frozen=True, slots=True)
class Document:
    """One text of a corpus, whole, or the reason why there is none.

    `file` is its file's number in the corpus and `row` its own in the file, both from 0. `name` is what ids begin with:
    "guide.md", or "pages.jsonl#17" with the row's (in JSON lines, the line's) number from 1. `origin` is the row's own
    word about where it is from, or "". `bytes` were read for it, uncompressed.
    """

    file: int
    row: int
    name: str
    origin: str
    kind: Kind
    text: str | None
    unfit: Unfit | None
    bytes: int


def decoded(data: bytes, kind: Kind) -> str | None:
    """Bytes of a file as text: by its byte-order mark, the charset a page declares, or as UTF-8.

    None where they cannot be read so, or hold a NUL, which no text does.
    """
    mark, encoding = next(((mark, name) for mark, name in _MARKS if data.startswith(mark)), (b"", ""))
    if not encoding:
        encoding = _declared(data) if kind == "html" else "utf-8"
    try:
        text = data[len(mark) :].decode(encoding)
    except (UnicodeError, LookupError):
        return None
    return None if "\0" in text else text


def _declared(page: bytes) -> str:
    """The encoding that a page names in its first bytes; UTF-8 where it names none that pages are written in."""
    found = _DECLARED.search(page[:_DECLARED_WITHIN])
    name = found[1].decode("ascii").lower() if found else ""
    if name in _LIKE_WINDOWS_1252:
        return "windows-1252"
    return name if _OF_PAGES.match(name) else "utf-8"


def of_file(file: int, name: str, kind: Kind, data: bytes) -> Document:
    """A file of text as one document."""
    text = decoded(data, kind)
    return Document(file, 0, name, "", kind, text, Unfit.NOT_TEXT if text is None else None, len(data))


def of_line(file: int, row: int, name: str, line: bytes, field: str, origin_field: str) -> Document:
    """A line of JSON as a document."""
    try:
        values = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return refused(file, row, f"{name}#{row + 1}", Unfit.NOT_TEXT, len(line))
    except (ValueError, RecursionError):
        unfit = Unfit.NOT_TEXT if b"\0" in line else Unfit.MALFORMED
        return refused(file, row, f"{name}#{row + 1}", unfit, len(line))
    if not isinstance(values, dict):
        return refused(file, row, f"{name}#{row + 1}", Unfit.MALFORMED, len(line))
    return of_row(file, row, name, values.get(field), values.get(origin_field), len(line))


def of_row(file: int, row: int, name: str, text: object, origin: object, size: int | None = None) -> Document:
    """A row's two fields as a document of plain text; `size` in bytes, or None for that of the text."""
    name = f"{name}#{row + 1}"
    if not isinstance(text, str):
        return refused(file, row, name, Unfit.MALFORMED, size or 0)
    if "\0" in text or not _is_unicode(text):
        return refused(file, row, name, Unfit.NOT_TEXT, size or len(text))
    size = size or len(text.encode())
    words = str(origin) if isinstance(origin, str | int | float) and not isinstance(origin, bool) else ""
    return Document(file, row, name, words.encode("utf-8", "replace").decode(), "plain", text, None, size)


def refused(file: int, row: int, name: str, unfit: Unfit, size: int, kind: Kind = "plain") -> Document:
    """A document that cannot be read; `size` in bytes of what was read to know that."""
    return Document(file, row, name, "", kind, None, unfit, size)


def _is_unicode(text: str) -> bool:
    """Whether a text has no lone surrogates, which JSON can write and no file of text can hold."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False
