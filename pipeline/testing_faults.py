"""Storage that fails or kills at a chosen moment: what the tests of faults run on.

folder = FaultyFolder("runs/r", fail_at(7))          # the seventh call fails, once
folder = FaultyFolder("runs/r", kill_at(7))          # the process is killed in it, before anything is visible
folder = FaultyFolder("runs/r", disk_of(50_000))     # no more than so many bytes can be written
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path

from pipeline.storage import HIDDEN, Folder, Place, folder_at

Fault = Callable[[int, str, bytes, bool], None]
"""Told of each act that changes the folder: its number from 1, the file's name, its content, and whether the act is
done (called before it and after it). It may raise, or kill."""


class FaultyFolder:
    """A run folder whose acts of writing and removing meet a fault. `acts` counts them."""

    def __init__(self, place: Place, fault: Fault) -> None:
        self._inner: Folder = folder_at(place)
        self._fault = fault
        self.acts = 0
        self.place = self._inner.place
        self.local: Path | None = self._inner.local

    def __str__(self) -> str:
        return self.place

    def read(self, name: str) -> bytes:
        return self._inner.read(name)

    def write(self, name: str, content: bytes) -> None:
        self._act(name, content, lambda: self._inner.write(name, content))

    def create(self, name: str, content: bytes) -> bool:
        created: list[bool] = []
        self._act(name, content, lambda: created.append(self._inner.create(name, content)))
        return created[0]

    def names(self, under: str) -> list[str]:
        return self._inner.names(under)

    def remove(self, name: str) -> None:
        self._act(name, b"", lambda: self._inner.remove(name))

    def holds_other_things(self) -> bool:
        return self._inner.holds_other_things()

    def require_writable(self) -> None:
        self._inner.require_writable()

    def _act(self, name: str, content: bytes, act: Callable[[], object]) -> None:
        self.acts += 1
        number = self.acts
        self._fault(number, name, content, False)
        act()
        self._fault(number, name, content, True)


def fail_at(*numbers: int, after: bool = False) -> Fault:
    """These acts fail: before they are done, or with `after` when they are, as where an answer is lost."""

    def fault(number: int, name: str, content: bytes, done: bool) -> None:
        if number in numbers and done is after:
            raise OSError(errno.EIO, f"the storage does not answer (act {number}: {name})")

    return fault


def kill_at(number: int, *, after: bool = False, torn: Path | None = None) -> Fault:
    """This process is killed in this act, before or after it is done. With `torn`, the local run folder, half of the
    file is left there under a hidden name, as a kill in the middle of writing leaves it."""

    def fault(at: int, name: str, content: bytes, done: bool) -> None:
        if at == number and done is after:
            if torn is not None:
                file = torn / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.with_name(f"{HIDDEN}1-{file.name}").write_bytes(content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)

    return fault


def disk_of(size: int) -> Fault:
    """A disk that takes so many bytes and no more."""
    written = 0

    def fault(number: int, name: str, content: bytes, done: bool) -> None:
        nonlocal written
        if done:
            return
        if written + len(content) > size:
            raise OSError(errno.ENOSPC, "No space left on device", name)
        written += len(content)

    return fault
