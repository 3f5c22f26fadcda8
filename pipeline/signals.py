"""SIGINT and SIGTERM of a run: what is whole is kept, and an end follows whatever hangs."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue

from pipeline.errors import RunStopped
from pipeline.storage import leaving

STOP_S = 10.0  # after a signal the process ends, whatever still hangs: a kill loses nothing either


class Signals:
    """The first SIGINT or SIGTERM ends what runs, with what is whole kept, within STOP_S; a second one at once.

    For as long as this lasts, as a context. Until `catch` is called, the first one is an interrupt in the main thread.
    What a signal's handler does there takes no lock, since it may come between any two steps of what holds that lock:
    the rest is a thread's, which goes on too where the main thread waits for a store.
    """

    def __init__(self) -> None:
        self.reason: RunStopped | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._came: SimpleQueue[bool] = SimpleQueue()  # True for a signal, False at the end
        self._before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        self._watcher = threading.Thread(target=self._watch, name="signals", daemon=True)

    def __enter__(self) -> Signals:
        for number, handler in self._before.items():
            if handler is not signal.SIG_IGN:  # as of a command that a script runs in the background
                signal.signal(number, self._caught)
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler or signal.SIG_DFL)
        self._came.put(False)
        self._watcher.join()
        leaving.clear()

    def catch(self) -> None:
        """From now on the first signal calls `stop`; to be called in a task, which it cancels until `stop` is set."""
        task = asyncio.current_task()
        assert task is not None
        if self.reason is not None:  # it came just now
            task.cancel()
        self.stop: Callable[[RunStopped], object] = lambda _: task.cancel()
        self._loop = asyncio.get_running_loop()

    def _caught(self, number: int, _: object) -> None:
        first = self.reason is None
        if first:
            name = signal.Signals(number).name
            self.reason = RunStopped(f"stopped by {name}; run the same command again to go on")
        self._came.put(True)
        if first and self._loop is None:
            raise KeyboardInterrupt

    def _end_run(self) -> None:
        assert self.reason is not None
        self.stop(self.reason)

    def _watch(self) -> None:
        """See that a signal is followed by an end, whatever hangs."""
        if not self._came.get():
            return
        leaving.set()
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: the run has come to its end
                self._loop.call_soon_threadsafe(self._end_run)
        try:
            if not self._came.get(timeout=STOP_S):
                return
            how = "stopped at once"
        except Empty:
            how = f"stopped, and did not end within {STOP_S:g} s"
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"instructmill: {how}; nothing is lost\n".encode())
        os._exit(RunStopped.exit_code)
