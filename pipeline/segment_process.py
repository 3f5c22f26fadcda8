"""A corpus is read in a process of its own: cutting and filtering a text costs more than all else that a driver does
for it, and would hold Python's lock beside the event loop.

    driver: the corpus, the run folder -> process           once
    driver: parts there are, rows, seconds -> process       for each part
    process: the next part's record, its Parquet file -> driver

That is lines of JSON over pipes, each with the bytes that follow it. The process writes nothing. It ends with its
input, so that it outlives a killed driver for no longer than a part takes, or a look through the parts there are.
"""

from __future__ import annotations

import builtins
import json
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from pipeline.backtranslation_settings import CorpusSettings
from pipeline.errors import InputError, RunStopped
from pipeline.segment_parts import NextPart, PartReader
from pipeline.sources import Corpus, CorpusFile
from pipeline.storage import Folder

ATTEMPTS = 3  # at one part, by processes that end without a word: killed for memory, say


class CorpusProcess:
    """The driver's side: a `PartReader` in another process, which begins with the first part asked for.

    `note(kind, **values)` is told of every one that ended by itself.
    """

    def __init__(self, corpus: Corpus, folder: Folder, note: Callable[..., None] = lambda *_, **__: None) -> None:
        self._corpus, self._folder, self._note = corpus, folder, note
        self._process: subprocess.Popen[bytes] | None = None
        self._reading = threading.Lock()
        self._closed = False

    def read(self, parts: int, rows: int, seconds: float) -> NextPart:
        """The next part where the run has so many (`PartReader.read`). Blocks; to be called from one thread.

        Raises InputError where the corpus cannot be read, RunStopped where the process keeps ending or was closed.
        """
        with self._reading:
            for _ in range(ATTEMPTS):
                try:
                    answer, content = self._ask({"parts": parts, "rows": rows, "seconds": seconds})
                    break
                except (BrokenPipeError, EOFError):
                    status = self._end()
                    if self._closed:
                        raise RunStopped("stopped while the corpus was read") from None
                    self._note("corpus_process_lost", status=status)
            else:
                memory = "; is there memory for it? `corpus.near_duplicates = 0` takes much less" if status < 0 else ""
                raise RunStopped(
                    f"the process that reads the corpus ended {ATTEMPTS} times, at last with status {status}{memory}"
                )
            if "fault" in answer or answer["at_end"]:
                self._end()
            if "fault" in answer:
                raise _fault(**answer)
            return NextPart(**answer, content=content)

    def close(self) -> None:
        """End the process; a `read` under way ends too. May be called twice, and from another thread."""
        self._closed = True
        if (process := self._process) is not None:
            process.kill()
        with self._reading:
            self._end()

    def _ask(self, wanted: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """Raises EOFError or BrokenPipeError where the process ends."""
        if self._process is None:
            self._process = self._started()
            files = [asdict(file) for file in self._corpus.files]
            settings = self._corpus.settings.model_dump(mode="json")
            about = {"settings": settings, "files": files, "paths": self._corpus.paths, "folder": self._folder.place}
            _say(self._process.stdin, about)
        if self._closed:
            raise EOFError
        _say(self._process.stdin, wanted)
        return _heard(self._process.stdout)

    def _started(self) -> subprocess.Popen[bytes]:
        ours = str(Path(__file__).resolve().parents[1])
        paths = [ours, *(path or os.getcwd() for path in sys.path if isinstance(path, str))]
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "pipeline.segment_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,  # Ctrl-C is the driver's affair
        )

    def _end(self) -> int:
        """End the process, if there is one; its exit status."""
        process, self._process = self._process, None
        if process is None:
            return 0
        process.kill()
        process.communicate()
        return process.returncode


def _say(pipe: IO[bytes] | None, what: dict[str, Any], content: bytes = b"") -> None:
    assert pipe is not None
    pipe.write(json.dumps({**what, "bytes": len(content)}).encode() + b"\n" + content)
    pipe.flush()


def _heard(pipe: IO[bytes] | None) -> tuple[dict[str, Any], bytes]:
    """What was said, and what followed it. Raises EOFError where the other side is gone."""
    assert pipe is not None
    line = pipe.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    heard: dict[str, Any] = json.loads(line)
    content = pipe.read(size := heard.pop("bytes"))
    if len(content) < size:
        raise EOFError
    return heard, content


def _told(error: Exception) -> dict[str, Any]:
    """A fault as it is sent: the name of its kind, and what its constructor takes."""
    if isinstance(error, InputError | RunStopped):
        return {"fault": type(error).__name__, "told": [str(error)]}
    if isinstance(error, OSError):
        name = type(error).__name__ if hasattr(builtins, type(error).__name__) else "OSError"
        file = None if error.filename is None else os.fsdecode(error.filename)
        return {"fault": name, "told": [str(error)] if error.errno is None else [error.errno, error.strerror, file]}
    if os.environ.get("INSTRUCTMILL_TRACEBACK"):
        traceback.print_exception(error)
    return {"fault": type(error).__name__, "told": [str(error)]}


def _fault(fault: str, told: list[Any]) -> Exception:
    kind = {"InputError": InputError, "RunStopped": RunStopped}.get(fault) or getattr(builtins, fault, None)
    if isinstance(kind, type) and issubclass(kind, InputError | RunStopped | OSError):
        return kind(*told)
    return RuntimeError(f"{fault} in the process that reads the corpus: {told[0]}")


def main() -> None:
    """The process's side: answer until the input ends."""
    heard, said = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # what a library reads or prints is none of this
    os.dup2(2, 1)
    try:
        about, _ = _heard(heard)
        files = tuple(CorpusFile(**file) for file in about["files"])
        corpus = Corpus(CorpusSettings(**about["settings"]), files, paths=tuple(about["paths"]))
        reader: PartReader | None = None
        while True:
            wanted, _ = _heard(heard)
            try:
                if reader is None or reader.parts != wanted["parts"]:
                    reader = PartReader(corpus, about["folder"], wanted["parts"])
                part = reader.read(wanted["rows"], wanted["seconds"])
            except Exception as error:  # noqa: BLE001 -- whatever it is, the driver is told, and ends this process
                _say(said, _told(error))
            else:
                _say(said, {name: value for name, value in vars(part).items() if name != "content"}, part.content)
    except (EOFError, BrokenPipeError):
        return


if __name__ == "__main__":
    main()
