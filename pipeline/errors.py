"""What can go wrong, by what happens next.

    MillError
    +-- InputError        the configuration or an input is wrong: exit 2, do not retry
    +-- RunStopped        the run stopped before its end: exit 75, the same command goes on
    +-- ContentFault      this request can never be answered: a failure row, and the run goes on

Every error survives pickling, since engines raise them in other processes. Faults of engines themselves (a death, a
time-out) are not here: `actors/engine_pool.py` sends such requests elsewhere and the method never sees them.
"""

from __future__ import annotations

from pipeline.records import Reason


class MillError(Exception):
    """The root of the project's own errors. Its text is one sentence for the person who runs the command."""

    exit_code = 1

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows of it: the sentence alone."""
        return [str(self)]


class InputError(MillError):
    """The configuration or an input is wrong; the text names the key, file or row and what would mend it."""

    exit_code = 2


class RunStopped(MillError):
    """The run stopped before its end and loses nothing: run the same command again to go on."""

    exit_code = 75


class ContentFault(MillError):
    """A request that no engine can answer, for a reason that lies in its content. It becomes a failure row.

    `text` is what the model wrote, where it wrote something.
    """

    def __init__(self, reason: Reason, detail: str, text: str = "") -> None:
        super().__init__(reason, detail, text)
        self.reason = reason
        self.detail = detail
        self.text = text

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"
