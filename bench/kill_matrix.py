"""Kill what makes a run, many times, at seeded random moments, and count the rows that are lost or doubled.

    python bench/kill_matrix.py            at least 200 kills; --quick for a few of each; --seed N for other moments;
                                           --minutes N: begin no run after that, and tell what there was until then

The driver is killed in the real command (`python -m pipeline run`) with the scripted engine in its process, several
times in a row, then left to finish; on the local disk, and in S3 (a moto server of the bench's own on 127.0.0.1).
There a killed holder's lease would live for 65 s: the command runs in a wrapper that makes it 2 s (pipeline.lock's
LEASE_S, RENEW_S and SKEW_S). Engines, novelty workers and raylets are killed on a Ray cluster of the bench's own, with
the driver in this process. After each run the rows of data/, pool/ and rejected/ must be, in order, those of an
undisturbed one, and `verify --full` must find the folder whole. Where they are not, or anything else goes wrong, it is
told, the folder is kept, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path

from kill_matrix_driver import AT_RANDOM, IN_AN_ACT, kill_drivers, s3_server
from kill_matrix_ray import ENGINE, RAYLET, STOPPED, WORKER, kill_actors, ray_cluster
from kill_matrix_trial import WINDOW, Line, subjects

RESULTS = Path(__file__).parent / "results"
LANES = 4  # runs in processes of their own that are under way at once: mostly they wait for answers
# Fault, where, how often, and how often with --quick.
DRIVERS = ((AT_RANDOM, "disk", 50, 4), (AT_RANDOM, "S3", 25, 3), (IN_AN_ACT, "disk", 70, 4), (IN_AN_ACT, "S3", 30, 3))
ACTORS = ((ENGINE, "disk", 12, 2), (STOPPED, "disk", 3, 1), (WORKER, "disk", 10, 2), (RAYLET, "disk", 4, 1))


def run(quick: bool, seed: int, until: float, work: Path) -> list[Line]:
    """All trials; the lines of the table."""
    drivers, actors = (
        [Line(fault, where, few if quick else many) for fault, where, many, few in faults]
        for faults in (DRIVERS, ACTORS)
    )
    both = subjects(work)
    with s3_server(work), ray_cluster() as machines, ThreadPoolExecutor(LANES) as lanes:
        under_way = [lanes.submit(kill_drivers, line, both, work, seed, until) for line in drivers]
        kill_actors(actors, both, work, seed, until, machines)
        for each in under_way:
            each.result()
    return [*drivers, *actors]


def table(lines: list[Line]) -> str:
    """The table, and what there is to say under it."""
    text = "| fault | where | runs | times | rows lost | rows doubled | most units redone | bound |\n"
    text += "|---|---|---|---|---|---|---|---|\n"
    for line in lines:
        counted = f"{line.runs} | {line.times} | {line.lost} | {line.doubled}"
        most, longest = max(line.redone, default=(0, 0))
        redone = f"{most} | 2 x {WINDOW} + {longest}" if line.redone else "- | -"
        text += f"| {line.fault} | {line.where} | {counted} | {redone} |\n"
    times, early = sum(line.times for line in lines), sum(line.early for line in lines)
    wrong, all_redone = sum(len(line.wrong) for line in lines), [each for line in lines for each in line.redone]
    over = sum(units > WINDOW + longest for units, longest in all_redone)
    text += f"\n{times} faults in {sum(line.runs for line in lines)} runs, of which {wrong} went wrong. Of "
    text += (
        f"{len(all_redone)} kills of a driver {early} came before it had asked anything, and {over} cost more than a "
    )
    return text + "window and the longest range of their run; none may cost more than two windows and it."


def main() -> int:
    """Make the trials and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few of each, in about a minute on idle cores")
    parser.add_argument("--seed", type=int, default=1, help="of the moments, acts and victims (1)")
    parser.add_argument("--minutes", type=float, default=20, help="no run begins after so many (20)")
    options = parser.parse_args()
    # Processes of the bench's own import this checkout, and the bench's own modules.
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    work = Path(tempfile.mkdtemp(prefix="kill-matrix-"))
    began = time.monotonic()
    with redirect_stdout(sys.stderr):  # where Ray tells of what died
        lines = run(options.quick, options.seed, began + 60 * options.minutes, work)
    seconds = time.monotonic() - began
    print(f"{table(lines)}\n{seconds:.0f} s, seed {options.seed}")
    wrong = [fault for line in lines for fault in line.wrong]
    RESULTS.mkdir(exist_ok=True)
    results = {"seed": options.seed, "window": WINDOW, "seconds": seconds, "lines": [asdict(line) for line in lines]}
    (RESULTS / "kill_matrix.json").write_text(json.dumps(results, indent=1) + "\n")
    wrong += [f"{line.fault}, {line.where}: none was made" for line in lines if not line.times]
    if wrong:
        print("\n".join(wrong), f"\nkept in {work}", file=sys.stderr)
    else:
        shutil.rmtree(work)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
