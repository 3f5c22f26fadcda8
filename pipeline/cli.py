"""The command line: commands, exit codes, and the one place where errors become sentences.

Exit codes: 0 done; 2 the configuration or an input is wrong; 75 stopped before the end, run again to go on.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.errors import InputError, MillError, RunStopped

DEMO_CONFIG = "shipped:demo.toml"
MODEL_DEMO_CONFIG = "shipped:demo_model.toml"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. Errors are one sentence on stderr."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        refuse_intruders()
        return command(options)
    except MillError as error:
        return _complain(str(error), error.exit_code)
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return _complain("interrupted; run the same command again to go on", RunStopped.exit_code)
    except OSError as error:
        return _complain(f"storage failed ({error}); mend it and run the same command again", RunStopped.exit_code)
    except Exception as error:
        if os.environ.get("INSTRUCTMILL_TRACEBACK"):
            raise
        return _complain(
            f"a bug in InstructMill: {type(error).__name__}: {error} (INSTRUCTMILL_TRACEBACK=1 shows where)", 1
        )


def refuse_intruders() -> None:
    """The import names are common words: make sure that all three are ours. Raises InputError naming the intruder."""
    ours = Path(__file__).resolve().parent.parent
    for name in ("actors", "prompts"):
        spec = importlib.util.find_spec(name)
        origin = Path(spec.origin).resolve() if spec and spec.origin else None
        if origin is None:
            raise InputError(
                f"the package {name!r} of InstructMill is missing beside {ours / 'pipeline'}; install again"
            )
        if origin.parent.parent != ours:
            raise InputError(
                f"another package named {name!r} at {origin.parent} hides InstructMill's own in {ours}; "
                "rename it, or run from another folder"
            )


def demo(options: argparse.Namespace) -> int:
    """`instructmill demo`: the shipped demo configuration, or a model of one's own, then a look at what came out."""
    from pipeline.config import load_config
    from pipeline.drawing import draw_rows
    from pipeline.launch import launch, run_folder
    from pipeline.report import evenly, read_rows

    if options.model is None:
        config = load_config(DEMO_CONFIG, tuple(options.set), options.out)
    else:
        model = f"engine.model={json.dumps(options.model)}"
        out = options.out or f"runs/demo-{Path(options.model).name}"
        config = load_config(MODEL_DEMO_CONFIG, (model, *options.set), out)
    folder = run_folder(config)
    launch(config)
    draw_rows("a few of its rows", evenly(read_rows(folder, "data"), 3))
    python = os.path.relpath(sys.executable) if Path(sys.executable).is_relative_to(Path.cwd()) else sys.executable
    print(f"\nopen it:  {python} -c \"import datasets; print(datasets.load_dataset('{folder}', split='train'))\"")
    print(f"look on:  {python} -m pipeline inspect {folder} -n 5      ... inspect {folder} --reason not_novel")
    return 0


def run(options: argparse.Namespace) -> int:
    """`instructmill run`: a new run, or on with the one in the folder."""
    from pipeline.config import load_config
    from pipeline.launch import launch, run_folder

    config = load_config(options.config, tuple(options.set), options.out)
    if options.dry_run:
        from pipeline.runs import make_plan

        plan = make_plan(config)
        resolved = {**plan.config.model_dump(mode="json"), "window": plan.window, "out": str(run_folder(config))}
        print(json.dumps({"fingerprint": plan.fingerprint, "config": resolved}, indent=1, ensure_ascii=False))
        return 0
    launch(config)
    return 0


def preview(options: argparse.Namespace) -> int:
    """`instructmill preview`: a few units, shown whole, and what they foretell; writes nothing."""
    from pipeline.check import check_context
    from pipeline.config import load_config
    from pipeline.counters import Counters
    from pipeline.drawing import PreviewDrawing
    from pipeline.launch import engines_room, start_engine
    from pipeline.preview import forecast, preview_units
    from pipeline.runs import make_plan

    plan = make_plan(load_config(options.config, tuple(options.set)))
    list(check_context(plan))

    async def show() -> Counters:
        engine = await start_engine(plan)
        try:
            return await preview_units(plan, engine, options.n, PreviewDrawing().draw)
        finally:
            await engine.close()

    with engines_room(plan, novelty=False):  # a few units need no workers
        counters = asyncio.run(show())
    print("\n".join(forecast(counters, plan.config.resolved_target, plan.config.engine.count)))
    return 0


def check(options: argparse.Namespace) -> int:
    """`instructmill check`: everything that can be known before a model loads."""
    from pipeline.check import check_plan
    from pipeline.config import load_config
    from pipeline.launch import engines_room
    from pipeline.runs import make_plan, plan_for

    config = load_config(options.config, tuple(options.set), options.out)
    folder = Path(config.out).expanduser() if config.out else None
    plan, manifest = plan_for(folder, config) if folder else (make_plan(config), None)
    for line in check_plan(plan, folder, goes_on=manifest is not None):
        print(line)
    if options.no_cluster:
        print("engines: not looked at")
    else:
        with engines_room(plan) as room:
            print(room)
    print("all is well")
    return 0


def status(options: argparse.Namespace) -> int:
    """`instructmill status`: where a run stands, live or dead."""
    from pipeline.report import status as facts_of
    from pipeline.report import status_text

    facts = facts_of(Path(options.run))
    print(json.dumps(facts, indent=1) if options.json else status_text(facts))
    return 0


def inspect(options: argparse.Namespace) -> int:
    """`instructmill inspect`: rows or rejects drawn for a person."""
    from pipeline.drawing import draw_rows
    from pipeline.records import Reason
    from pipeline.report import evenly, read_rows

    if options.reason is not None and options.reason not in set(Reason):
        raise InputError(f"--reason {options.reason}: no such reason; there are {', '.join(Reason)}")
    kind = "rejected" if options.rejected or options.reason else "data"
    rows = read_rows(Path(options.run), kind, options.reason)
    draw_rows(f"{min(options.n, len(rows))} of {len(rows)} rows of {kind}/", evenly(rows, options.n))
    return 0


def novelty(options: argparse.Namespace) -> int:
    """`instructmill novelty`: the filter alone on a file; or with --fill, the full nearest of what a run admitted."""
    given = {
        name: value
        for name, value in vars(options).items()
        if name not in ("command", "path", "fill", "out", "workers") and value is not None and value is not False
    }
    workers = options.workers or 0
    if options.fill:
        from pipeline.novelty_fill import fill

        if given:
            raise InputError(
                f"--fill takes --out and --workers only; leave --{next(iter(given)).replace('_', '-')} out"
            )
        print(fill(options.path, options.out, workers))
        return 0
    from pipeline.novelty_files import Options, filter_file

    print(filter_file(Options(options.path, out=options.out, workers=workers, **given)))
    return 0


def _complain(sentence: str, code: int) -> int:
    print(f"instructmill: {sentence}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="instructmill", description="Instruction-tuning data from seed tasks, on Ray and vLLM, as Parquet shards."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(command: Callable[[argparse.Namespace], int], help: str) -> argparse.ArgumentParser:
        added = commands.add_parser(command.__name__, help=help, description=help)
        added.set_defaults(command=command)
        return added

    def add_config(added: argparse.ArgumentParser, *, named: bool = True, out: bool = True) -> None:
        if named:
            added.add_argument("config", metavar="CONFIG", help='a TOML file, or "shipped:demo.toml"')
        if out:
            added.add_argument("--out", metavar="DIR", help="the run folder")
        added.add_argument(
            "--set",
            metavar="KEY=VALUE",
            action="append",
            default=[],
            help="set a key by its path: bootstrap.machine_made=4",
        )

    added = add(demo, "the embedded model, real Ray, real vLLM on the CPU, into runs/demo")
    add_config(added, named=False)
    added.add_argument("--model", metavar="MODEL", help="a model folder or a name on the hub in its place")
    added = add(run, "start a run, or go on with the one in its folder")
    add_config(added)
    added.add_argument("--dry-run", action="store_true", help="print the resolved configuration and stop")
    added = add(preview, "the first units, with prompt, raw reply and verdicts, and a forecast; writes nothing")
    add_config(added, out=False)
    added.add_argument("-n", type=_positive, default=3, metavar="UNITS", help="units to show (3)")
    added = add(check, "configuration, prompts, seeds, folder and cluster, before any model loads")
    add_config(added)
    added.add_argument("--no-cluster", action="store_true", help="leave out what the cluster or the endpoint has")
    added = add(status, "counts by stage and reason, tokens, rates, time left; of a live or a dead run")
    added.add_argument("run", metavar="RUN", help="a run folder")
    added.add_argument("--json", action="store_true", help="as JSON")
    added = add(inspect, "rows or rejects, drawn for a person")
    added.add_argument("run", metavar="RUN", help="a run folder")
    added.add_argument("-n", type=_positive, default=5, metavar="ROWS", help="rows to show, spread over the run (5)")
    added.add_argument("--rejected", action="store_true", help="what was refused instead of what was kept")
    added.add_argument("--reason", metavar="R", help="rejects with this reason only")
    _add_novelty(add(novelty, "the novelty filter alone, on the rows of any JSONL or Parquet file in order"))
    return parser


def _add_novelty(added: argparse.ArgumentParser) -> None:
    added.epilog = (
        "A row is novel when nothing in --against and no novel row before it is nearer than the threshold. --out adds "
        "`novel`, `nearest` and `nearest_score` (null below floor and threshold). `nearest` names a row by its number "
        "from 1 (in JSON lines, of its line), one of --against as FILE:number, one of a run by its instruction_id. A "
        "row whose field is null, not a text or without tokens is refused and counted so. No file is replaced."
    )
    added.add_argument("path", metavar="FILE", type=Path, help=".jsonl, .parquet, or a run folder (what it admitted)")
    added.add_argument("--field", metavar="F", help="the text's field (instruction)")
    added.add_argument(
        "--against", metavar="FILE", type=Path, nargs="+", action="extend", help="hold the rows of these files first"
    )
    added.add_argument("--against-field", metavar="F", help="the text's field there (as --field)")
    added.add_argument("--threshold", type=float, metavar="T", help="refuse a ROUGE-L F above this (0.7)")
    added.add_argument(
        "--floor",
        type=float,
        metavar="T",
        help="name the nearest down to this F, or to a lower threshold (0.65)",
    )
    added.add_argument(
        "--tokenizer", metavar="NAME", help="rouge (runs of a-z and 0-9) or unicode (all scripts); rouge"
    )
    added.add_argument("--workers", type=_whole, metavar="N", help="processes on Ray; 0, the default, is this one")
    added.add_argument("--out", type=Path, metavar="FILE", help="write the rows there: a new .jsonl or .parquet")
    added.add_argument("--kept-only", action="store_true", help="write the novel rows only")
    added.add_argument(
        "--full",
        action="store_true",
        help="add `mean_score` over all that is held and `most_similar`, the ten nearest, as the paper saves them; "
        "each row is compared with every one held, about 30 microseconds per thousand",
    )
    added.add_argument(
        "--fill",
        action="store_true",
        help="FILE is a run: write the nearest of all it admitted, whatever the floor, to RUN/.run/nearest.parquet",
    )


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is not a whole number")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return int(text)
