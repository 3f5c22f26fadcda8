"""Novelty workers that are killed or stopped in the middle of a run: the rows are those of an undisturbed one."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import ray

from actors import cluster
from actors.novelty_pool import NoveltyWorker, Scores
from pipeline.launch import launch
from pipeline.runs import read_events

LATER = 200  # texts in the pool at the fault: 175 seeds, and what the run has admitted by then


def signalled(folder: Path, number: signal.Signals) -> type[NoveltyWorker]:
    """Workers of which one, in the middle of a run and of a question, gets a signal; the file `hit` holds its id."""

    class SignalledWorker(NoveltyWorker):
        def nearest(self, held: int, new: Sequence[str], asked: Sequence[str], length: int) -> Scores:
            if asked and length > LATER:
                # Two workers may come here at once; making a file that must not exist is what only one of them can do.
                with contextlib.suppress(FileExistsError):
                    with (folder / "hit").open("x") as file:
                        file.write(str(os.getpid()))
                    os.kill(os.getpid(), number)
            return super().nearest(held, new, asked, length)

    return SignalledWorker


@pytest.mark.parametrize(
    ("number", "timeout_s", "words"),
    [
        (signal.SIGKILL, 120, "died"),
        pytest.param(signal.SIGSTOP, 20, "silent for 20 s", marks=pytest.mark.slow),
    ],
    ids=["SIGKILL", "SIGSTOP"],
)
def test_a_worker_that_gets_a_signal(
    ray_session, scripted, monkeypatch, tmp_path, gone, ends_as_undisturbed, number, timeout_s, words
) -> None:
    """A worker that is killed or stopped is replaced and filled again, and its process is gone in either case."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    faulty = functools.partial(cluster.novelty_pool, worker=signalled(tmp_path, number), backoff_s=0.01)
    monkeypatch.setattr(cluster, "novelty_pool", faulty)
    config = scripted(out=str(tmp_path / "r"), target=120, novelty={"workers": 2, "timeout_s": timeout_s})
    launch(config)

    lost = [event["detail"] for event in read_events(tmp_path / "r") if event["event"] == "novelty_worker_lost"]
    assert any(words in detail for detail in lost)
    assert gone(int((tmp_path / "hit").read_text()))
    ends_as_undisturbed(tmp_path / "r", config)
