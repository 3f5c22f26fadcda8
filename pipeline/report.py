"""What a run came to, as text: the closing summary, `status`, and rows drawn for `inspect` and `preview`."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pipeline.console import clock
from pipeline.counters import Counters
from pipeline.engine_facts import facts_lines, facts_of, standing_line
from pipeline.errors import InputError
from pipeline.reading import Snapshot, open_folder
from pipeline.runs import LOG, count_attempts, is_running, log_files, read_events
from pipeline.segment_parts import read_parts, tally_of
from pipeline.shards import Commit, read_tables
from pipeline.storage import Place, folder_at

if TYPE_CHECKING:
    from pipeline.survey import Survey, Throughput


def summary(folder: Place, manifest: Mapping[str, Any], commit: Commit) -> str:
    """The closing summary of a run as committed: what came in, where it went, and that the sums close."""
    counters = Counters.from_json(commit.counters)
    lines = [f"run {manifest['run']} in {folder}"]
    if commit.ending:
        lines.append(f"  finished: {commit.ending['detail']}")
    else:
        lines.append(f"  {'running' if is_running(folder) else 'stopped'}: run the same command to go on")
    lines += [f"  {line}" for line in (*corpus_lines(folder), *count_lines(counters))]
    if commit.ending and commit.ending["overshoot_tokens"]:
        lines.append(f"  {'overshoot':<14}{commit.ending['overshoot_tokens']:>10,} tokens spent on units past the end")
    return "\n".join(lines)


def corpus_lines(folder: Place) -> list[str]:
    """What a run has read of its corpus, and why pieces of it are no segments; nothing for a run without one."""
    tally = tally_of(folder)
    if tally is None:
        return []
    sign = "=" if tally.pieces == tally.kept + tally.refused.total() else "IS NOT"
    parts = f"{tally.kept:,} segments + {tally.refused.total():,} refused"
    return [f"{'pieces':<14}{tally.pieces:>10,} {sign} {parts}{_reasons(tally.refused)}"]


def count_lines(counters: Counters) -> list[str]:
    """Units, the three sums with their reasons, scores, tokens by stage and rates. Sums of nothing are left out."""
    failed = f", {counters.failed_units} failed{_reasons(counters.failure_reasons)}" if counters.failed_units else ""
    lines = [f"{'units':<14}{counters.units:>10,}{failed}"]
    reasons = [counters.refused_candidates, counters.closing_reasons, counters.refused_instances]
    for (what, left, parts, right), why in zip(counters.sums(), reasons, strict=True):
        sign = "=" if left == right else "IS NOT"
        if left or right or counters.candidates or not counters.units:
            lines.append(f"{what:<14}{left:>10,} {sign} {parts}{_reasons(why)}")
    if counters.demonstrations:
        share = counters.machine_made / counters.demonstrations
        lines.append(f"{'demonstrations':<14}{counters.demonstrations:>10,}, {share:.0%} machine-made")
    if counters.scores:
        each = ", ".join(f"{counters.scores[str(score)]:,} of {score}" for score in range(1, 6))
        lines.append(f"{'scores':<14}{counters.scores.total():>10,}: {each}")
    for stage, calls in sorted(counters.calls.items()):
        prompt, completion = counters.prompt_tokens[stage], counters.completion_tokens[stage]
        lines.append(f"{stage:<14}{calls:>10,} calls, {prompt:,} prompt and {completion:,} completion tokens")
    if counters.seconds:
        tokens = counters.completion_tokens.total() / counters.seconds
        what, made = ("admitted", counters.admitted) if counters.candidates else ("pairs", counters.instances)
        lines.append(
            f"{'time':<14}{clock(counters.seconds):>10}, {made / counters.seconds:.2f} {what}/s, "
            f"{tokens:,.0f} tokens/s generated"
        )
    engines = facts_of(counters.engine_time, counters.examples)
    return lines + (facts_lines(engines) if engines else [])


def status(folder: Place) -> dict[str, Any]:
    """Where a run stands, live or dead, from its files alone. Raises InputError when the folder holds no run."""
    manifest, commits = open_folder(folder)
    last, counters = commits[-1], Counters.from_json(commits[-1].counters)
    running = is_running(folder)
    rate = counters.admitted / counters.seconds if counters.seconds else 0.0
    events = read_events(folder)
    attempts = count_attempts(folder_at(folder), last)
    starts = [event for event in events if event["event"] == "start"][:attempts]
    target = starts[-1]["target"]  # the manifest has that of the first attempt
    tally, units = tally_of(folder), _units_in_all(folder, manifest)
    return {
        "run": manifest["run"],
        "folder": str(folder),
        "state": "running" if running else "finished" if last.ending else "stopped",
        "ending": last.ending,
        "target": target,
        "commits": len(commits) - 1,
        "attempts": attempts,
        "window": manifest["window"],
        "model": manifest["model"]["name"],
        "judge": (manifest.get("judge") or {}).get("name"),
        "corpus": {**vars(tally), "refused": dict(tally.refused)} if tally else None,
        "counts": {**counters.to_json(), "refused": counters.refused_candidates.total()},
        "admitted_per_s": round(rate, 3),
        "generated_tokens_per_s": round(counters.completion_tokens.total() / counters.seconds, 1)
        if counters.seconds
        else 0.0,
        "engines": facts_of(counters.engine_time, counters.examples),
        "engines_now": _engines_now(events) if running else None,
        "units": units,
        "eta_s": _eta(counters, target, units) if running else None,
        "machine_made_share": round(counters.machine_made / counters.demonstrations, 3)
        if counters.demonstrations
        else 0.0,
    }


def _engines_now(events: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """What the engines of a live run did when that was last written down, and how many seconds ago that was; None where
    this attempt has not said it yet."""
    for event in reversed(events):
        if event["event"] == "engines":
            now = {name: value for name, value in event.items() if name not in ("time", "event")}
            return {**now, "age_s": max(round(time.time() - event["time"]), 0)}
        if event["event"] == "start":
            break
    return None


def _units_in_all(folder: Place, manifest: Mapping[str, Any]) -> int | None:
    """How many units there are, where that is known: a corpus is at its end, or another run's pairs are counted."""
    if "candidates" in manifest:
        return int(manifest["candidates"]["pairs"])
    parts = read_parts(folder)
    return parts[-1].end if parts and parts[-1].at_end else None


def _eta(counters: Counters, target: int | None, units: int | None) -> int | None:
    """Seconds to the target or the last unit, whichever is first at the run's rates; None where neither is known."""
    pairs = ((target, counters.admitted), (units, counters.units))
    left = [(goal - done) * counters.seconds / done for goal, done in pairs if goal is not None and done]
    return max(round(min(left)), 0) if left else None


def status_text(facts: Mapping[str, Any]) -> str:
    """`status` for a person."""
    counters = Counters.from_json({key: value for key, value in facts["counts"].items() if key != "refused"})
    lines = [f"run {facts['run']} in {facts['folder']}: {facts['state']}"]
    if facts["ending"]:
        lines.append(f"  {facts['ending']['detail']}")
    eta = f", about {clock(facts['eta_s'])} left" if facts["eta_s"] else ""
    if facts["target"] is not None:
        lines.append(f"  {'target':<14}{facts['target']:>10,}, {counters.admitted:,} admitted{eta}")
    elif facts["units"] is not None:
        lines.append(f"  {'in all':<14}{facts['units']:>10,} units, {counters.units:,} done{eta}")
    if now := facts["engines_now"]:
        lines.append(f"  {clock(now['age_s'])} ago: {standing_line(now)}")
    counts = (*corpus_lines(facts["folder"]), *count_lines(counters))
    return "\n".join([*lines, *(f"  {line}" for line in counts)])


@dataclass(frozen=True)
class History:
    """When a run began and when it ended or was last heard of, in seconds since 1970 (None where its log does not say),
    and why it stopped where it could still say so."""

    began: float | None = None
    last: float | None = None
    stopped: str | None = None


def read_history(run: Snapshot) -> History:
    """What the first and the last file of a run's log say; of a finished run's, the event of its last commit. Raises
    InputError for a damaged one."""

    def events(name: str) -> list[dict[str, Any]]:
        try:
            return [json.loads(line) for line in run.folder.read(f"{LOG}/{name}").decode().splitlines()]
        except ValueError as error:
            where = f"{run.folder}/{LOG}/{name}"
            raise InputError(f"{where}: not a log of events ({error}); the folder is damaged") from None

    files = log_files(run.folder, run.commits[-1])
    first, last = (events(name) for name in (files[0], files[-1])) if files else ([], [])
    if not first or not last:
        return History()
    if run.ending:
        named = (event for name in reversed(files) for event in reversed(events(name)) if event["event"] == "commit")
        return History(first[0]["time"], next(named, last[-1])["time"])
    stopped = last[-1].get("why") if last[-1]["event"] == "stopped" else None
    return History(first[0]["time"], last[-1]["time"], stopped)


def why(run: Snapshot, past: History) -> str:
    """Why a run is in its state, as a sentence."""
    if run.state == "running":
        return "still going: what is here was committed when it was read"
    if run.ending:
        return str(run.ending["detail"])
    said = past.stopped or "its process ended without a word"
    return f"not at its end ({said}); the command that began it goes on with it"


def next_commands(run: Snapshot) -> list[tuple[str, str]]:
    """What people do next: commands, each with what it is for."""
    place = shlex.quote(str(run.folder))
    look = [(f"instructmill inspect {place} --rejected", "what was refused, and why")] if run.rejects.count else []
    if run.state == "running":
        return [(f"instructmill status {place}", "how far it is"), *look]
    if not run.ending:
        again = "run CONFIG"
        if run.recipe == "curate":
            again = f"curate {shlex.quote(run.manifest['candidates']['folder'])}"
        return [(f"instructmill {again} --out {place}", "goes on, with the options it began with"), *look]
    commands = [*look, (f"instructmill export {place} OUT --format messages", "a folder that trainers read")]
    if run.recipe != "self-instruct":
        commands.append((f"instructmill curate {place} --out NEXT --set engine.model=MODEL", "the next round"))
    return commands


def made_of(run: Snapshot) -> str:
    """What the rows of a run came of."""
    counters = run.counters
    if run.recipe == "self-instruct":
        return f"of {counters.instructions_with_rows:,} instructions"
    return f"of {counters.instances:,} pairs"


def acceptance(survey: Survey) -> str:
    """The share that was admitted, of pairs that were scored again accepted, over the run and over its last tenth.
    Needs candidates or pairs."""
    counters, points = survey.counters, survey.progress
    if survey.recipe == "curate":
        share = counters.examples / counters.instances
        ways = [(point.units, point.accepted) for point in points]
    else:
        share = counters.admitted / counters.candidates
        ways = [(point.candidates, point.admitted) for point in points]
    came, kept = ways[-1]
    before = [way for way in ways if way[0] <= 0.9 * came]
    if len(points) < 10 or not before:
        return f"{share:.0%}"
    late = (kept - before[-1][1]) / (came - before[-1][0])
    return f"{share:.0%}; {late:.0%} in the last tenth"


def rates(made: Throughput) -> str:
    """Rows an hour, where a run was long enough at work for that, and tokens a second."""
    rows = f"{made.rows_per_hour:,.0f} rows an hour, " if made.rows_per_hour else ""
    return f"{rows}{made.tokens_per_s:,.0f} tokens a second generated"


def moment(seconds: float) -> str:
    """A time, in seconds since 1970, as a date and a time of day in UTC."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def read_rows(folder: Place, kind: str, reason: str | None = None) -> list[dict[str, Any]]:
    """Rows of a table of a run ("data", "pool" or "rejected"), in order; of rejects, those with one reason."""
    _, commits = open_folder(folder)
    rows = (row for table in read_tables(folder, commits, kind) for row in table.to_pylist())
    return [row for row in rows if reason is None or row["reason"] == reason]


def row_lines(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Label and text of what a person wants to see of one row or reject, empty fields left out."""
    for label in ("stage", "reason", "detail", "instruction", "input", "output"):
        if row.get(label):
            yield label, str(row[label])
    if row.get("text") and row["text"] != row.get("instruction"):
        yield "text", row["text"].strip("\n") or "(line breaks alone)"
    if row.get("nearest_id"):
        yield "nearest", f"{row['nearest_id']} at ROUGE-L {row['nearest_score']:.3f}"
    yield from _score_lines(row)
    if row.get("source"):
        yield "source", f"{row['source']['id']}  ({row['source']['origin']})"
    if row.get("parents"):
        yield "parents", ", ".join(row["parents"])


def _score_lines(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The newest score, and those of the rounds before it."""
    scores = row.get("scores") or ()
    if row.get("score") is not None:
        by = f", by {scores[-1]['judge']}" if scores else ""
        yield "score", _scored(row["score"], row.get("score_expected"), row.get("score_mass")) + by
    for each in reversed(scores[:-1] if row.get("score") is not None else scores):
        yield f"round {each['round']}", _scored(each["score"], each["expected"], each["mass"]) + f", by {each['judge']}"


def _scored(score: int | None, expected: float | None, mass: float | None) -> str:
    parts = ["not a score" if score is None else str(score)]
    parts += [f"{what} {value:.2f}" for what, value in (("expected", expected), ("mass", mass)) if value is not None]
    return ", ".join(parts)


def _reasons(counts: Mapping[str, int]) -> str:
    if not counts:
        return ""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return " (" + ", ".join(f"{name} {count:,}" for name, count in ranked) + ")"
