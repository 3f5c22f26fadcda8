"""The segments of a corpus in order: its documents, cut and filtered.

Every piece comes out once, kept or refused, with the place after it. Reading may begin at any such place, and gives
then exactly the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pipeline.backtranslation_settings import CorpusSettings
from pipeline.documents import Document
from pipeline.records import Segment, Unfit
from pipeline.segment_filters import SegmentFilter
from pipeline.segmenting import Piece, cut
from pipeline.sources import Corpus, read_documents

SHOWN = 400  # characters of a text that a Found carries


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """The first piece not yet read: number of the file, of the row in it, of the piece in that, all from 0."""

    file: int = 0
    row: int = 0
    piece: int = 0


START = Place()


@dataclass(frozen=True, slots=True)
class Found:
    """One piece: the segment that it is, or why it is none.

    `text` is its beginning, at most 400 characters. `bytes` were read with it, uncompressed: a document's come with its
    first piece.
    """

    segment: Segment | None
    unfit: Unfit | None
    header: str | None
    text: str
    after: Place
    bytes: int
    name: str


class SegmentReader:
    """Reads a corpus. Memory holds one document, and what `Duplicates` states for each segment kept."""

    def __init__(self, corpus: Corpus, settings: CorpusSettings) -> None:
        self.corpus = corpus
        self._settings = settings
        self._filter = SegmentFilter(settings)

    def remember(self, texts: Iterable[str]) -> None:
        """Hold the texts of segments that were kept before the place where reading begins, in their order."""
        self._filter.remember(texts)

    def read(self, place: Place = START) -> Iterator[Found]:
        """Every piece from `place` on, in order. Raises InputError naming a file that cannot be read."""
        for document in read_documents(self.corpus, place.file, place.row):
            begun = place.piece if (document.file, document.row) == (place.file, place.row) else 0
            yield from self._of_document(document, begun)

    def _of_document(self, document: Document, begun: int) -> Iterator[Found]:
        """The pieces of a document from number `begun` on. One without any text counts as one piece, too short."""
        following = Place(document.file, document.row + 1)
        if document.text is None:
            if not begun:
                yield Found(None, document.unfit, None, "", following, document.bytes, document.name)
            return
        pieces = list(cut(document.kind, document.text, self._settings.max_characters)) or [Piece(None, (), "")]
        for number, piece in enumerate(pieces[begun:], begun):
            last = number == len(pieces) - 1
            after = following if last else Place(document.file, document.row, number + 1)
            name = document.name if document.kind == "plain" else f"{document.name}#{number + 1}"
            unfit = self._filter.unfit(piece.header, piece.text)
            segment = None if unfit else Segment(name, _origin(document, piece), piece.header, piece.text)
            size = 0 if number else document.bytes
            yield Found(segment, unfit, piece.header, piece.text[:SHOWN], after, size, name)


def _origin(document: Document, piece: Piece) -> str:
    return document.origin or " > ".join(header for header in piece.path if header) or document.name
