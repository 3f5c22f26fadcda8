"""One writer at a time: a lock that the kernel frees on a local disk, a lease with an expiry in an object store.

Neither is what keeps rows from being doubled: that is the commit record, created and never replaced. They keep a second
writer from wasting its work, and let a holder that died be taken over without a person.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import secrets
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

from pipeline.errors import InputError, RunStopped
from pipeline.storage import Folder

LOCK = ".run/lock"
LEASES = ".run/lease"
LEASE_S = 60.0  # a holder that has not renewed for so long is taken to be gone
RENEW_S = 15.0
SKEW_S = 5.0  # how far two machines' clocks may be apart
CLOSE_S = 5.0  # a renewal that hangs for longer is not waited for: the lease expires by itself


class Lock(Protocol):
    """A run folder held for writing. `taken_over`: from a holder that never gave it back, and may only stand still."""

    taken_over: bool

    def require_held(self) -> None:
        """Raises RunStopped where somebody else has taken the folder over."""
        ...

    def close(self) -> None:
        """Let another process have the folder. May be called twice."""
        ...


def take(folder: Folder) -> Lock:
    """Hold a run folder for writing. Raises RunStopped naming who holds it, InputError where it cannot be written."""
    return _LocalLock(folder, folder.local) if folder.local else _Lease(folder)


def is_held(folder: Folder) -> bool:
    """Whether a process holds the run folder for writing; on a local disk, one of this machine."""
    if folder.local is None:
        last = _last(folder)
        return last is not None and last.is_live()
    try:
        with (folder.local / LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except BlockingIOError:
        return True
    return False


def me() -> str:
    """This process, as others are told of it."""
    return f"process {os.getpid()} on {platform.node()}"


class _LocalLock:
    """An flock, which ends with the process however that ends."""

    taken_over = False

    def __init__(self, folder: Folder, path: Path) -> None:
        try:
            (path / LOCK).parent.mkdir(parents=True, exist_ok=True)
            self._file = (path / LOCK).open("a+", encoding="utf-8")
        except OSError as error:
            raise InputError(f"{folder}: the run folder cannot be written ({error.strerror}); name another") from None
        if not self._locked():
            self._file.seek(0)
            holder = self._file.read().strip() or "unknown"
            self._file.close()
            raise RunStopped(f"{folder}: another process is writing to this run ({holder}); wait for it or stop it")
        self._file.truncate(0)
        self._file.write(me())
        self._file.flush()

    def _locked(self) -> bool:
        """Take the lock. Tried for a moment, since a reader that asks whether it is held holds it for that moment."""
        for _ in range(5):
            with suppress(BlockingIOError):
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            time.sleep(0.05)
        return False

    def require_held(self) -> None:
        return

    def close(self) -> None:
        self._file.close()


@dataclass(frozen=True)
class _Record:
    """One lease: its number, who holds it, and until when by the holder's clock; 0 for one that was given back."""

    number: int
    holder: str
    token: str  # the same in all records of one holder, and in nobody else's
    expires: float

    @property
    def name(self) -> str:
        return f"{LEASES}/{self.number:09d}.json"

    def is_live(self) -> bool:
        return time.time() < self.expires + SKEW_S


class _Lease:
    """Numbered records, each created and never replaced: the highest is the lease. A thread renews it.

    Numbers only grow. A holder that was paused and wakes finds a higher one than its own, and knows that it has lost.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._lost: str | None = None
        self._closing = threading.Event()
        self._turn = threading.Lock()  # the thread and `require_held` may both come to renew
        last = _last(folder)
        if last is not None and last.is_live():
            raise RunStopped(
                f"{folder}: another process is writing to this run ({last.holder}); wait for it or stop it. One that "
                f"died is taken over {max(last.expires + SKEW_S - time.time(), 0):.0f} s from now"
            )
        self.taken_over = last is not None and last.expires > 0
        self._held = _Record(last.number if last else 0, me(), secrets.token_hex(8), 0)
        if not self._next(time.time() + LEASE_S):
            raise RunStopped(f"{folder}: another process has just begun to write to this run; this one has ended")
        for name in folder.names(LEASES):  # of a holder that ended, or stood still, in the middle of a renewal
            if f"{LEASES}/{name}" < self._held.name:
                folder.remove(f"{LEASES}/{name}")
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def _next(self, expires: float) -> bool:
        """Create the record after the held one. False where somebody else's is there, or a higher one."""
        record = replace(self._held, number=self._held.number + 1, expires=expires)
        if not self._folder.create(record.name, json.dumps(asdict(record)).encode()):
            there = _read(self._folder, record.name)
            if there is None or there.token != record.token:
                return False
            record = there  # of a try that failed half way
        last = _last(self._folder)
        if last is not None and last.number > record.number:
            self._folder.remove(record.name)
            return False
        before, self._held = self._held, record
        self._folder.remove(before.name)
        return True

    def _renew(self) -> None:
        while not self._closing.wait(RENEW_S):
            with suppress(OSError, InputError):  # the store is in trouble: what it holds decides at the next commit
                self._extend()
            if self._lost is not None:
                return

    def _extend(self) -> None:
        with self._turn:
            if self._lost is None and not self._next(time.time() + LEASE_S):
                last = _last(self._folder)
                self._lost = last.holder if last else "unknown"

    def require_held(self) -> None:
        if time.time() > self._held.expires:  # this process stood still, or the store was away
            self._extend()
        if self._lost is not None:
            raise RunStopped(
                f"{self._folder}: another process has taken this run over ({self._lost}) while this one stood still; "
                "this one has ended"
            )

    def close(self) -> None:
        if self._closing.is_set():
            return
        self._closing.set()
        self._thread.join(CLOSE_S)
        if self._lost is None and not self._thread.is_alive():
            with suppress(OSError, InputError):  # it expires by itself
                self._next(0.0)


def _last(folder: Folder) -> _Record | None:
    """The highest record; None where there is none."""
    while names := [name for name in folder.names(LEASES) if name.endswith(".json")]:
        if record := _read(folder, f"{LEASES}/{names[-1]}"):
            return record
    return None


def _read(folder: Folder, name: str) -> _Record | None:
    """A record; None where it is gone, since a higher one has come."""
    try:
        return _Record(**json.loads(folder.read(name)))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise InputError(f"{folder}/{name}: not a lease ({error}); remove it once nobody writes to this run") from None
