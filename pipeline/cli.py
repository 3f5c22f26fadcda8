"""The command line: commands, exit codes, and the one place where errors become sentences.

Exit codes: 0 done; 2 the configuration or an input is wrong; 75 stopped before the end, run again to go on.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline import __version__, commands
from pipeline.errors import InputError, MillError, RunStopped


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. Errors are one sentence on stderr."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a terminal has no letters for is written as escapes
            stream.reconfigure(errors="backslashreplace")
    options = _parser().parse_args(arguments)
    main_thread = threading.current_thread() is threading.main_thread()
    if main_thread:  # as Ctrl-C, where nothing better is known
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
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
    except SystemExit as ended:  # of SIGTERM by Ray, while a cluster is joined; of `| head` by rich
        if ended.code != signal.SIGTERM:
            return 0
        return _complain("interrupted; run the same command again to go on", RunStopped.exit_code)
    except OSError as error:
        return _complain(f"storage failed ({error}); mend it and run the same command again", RunStopped.exit_code)
    except Exception as error:
        if os.environ.get("INSTRUCTMILL_TRACEBACK"):
            raise
        return _complain(
            f"a bug in InstructMill: {type(error).__name__}: {error} (INSTRUCTMILL_TRACEBACK=1 shows where)", 1
        )
    finally:
        if main_thread:
            signal.signal(signal.SIGTERM, before)


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


def _complain(sentence: str, code: int) -> int:
    print(f"instructmill: {sentence}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="instructmill", description="Instruction-tuning data from seed tasks, on Ray and vLLM, as Parquet shards."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(command: Callable[[argparse.Namespace], int], help: str) -> argparse.ArgumentParser:
        added = subparsers.add_parser(command.__name__, help=help, description=help)
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

    added = add(commands.demo, "the embedded model, real Ray, real vLLM on the CPU, into runs/demo")
    add_config(added, named=False)
    added.add_argument("--model", metavar="MODEL", help="a model folder or a name on the hub in its place")
    added.add_argument(
        "--recipe", choices=tuple(commands.DEMO_CONFIGS), default="self-instruct", help="which method (self-instruct)"
    )
    added = add(commands.run, "start a run, or go on with the one in its folder")
    add_config(added)
    added.add_argument("--dry-run", action="store_true", help="print the resolved configuration and stop")
    _add_submit(add, add_config)
    added = add(
        commands.preview, "the first units, with prompt, raw reply and verdicts, and a forecast; writes nothing"
    )
    add_config(added, out=False)
    added.add_argument("-n", type=_positive, default=3, metavar="UNITS", help="units to show (3)")
    added = add(commands.check, "configuration, prompts, seeds, folder and cluster, before any model loads")
    add_config(added)
    added.add_argument("--no-cluster", action="store_true", help="leave out what the cluster or the endpoint has")
    _add_looking(add)
    _add_novelty(add(commands.novelty, "the novelty filter alone, on the rows of any JSONL or Parquet file in order"))
    _add_backtranslation(add)
    return parser


def _add_submit(add: Callable[..., argparse.ArgumentParser], add_config: Callable[..., None]) -> None:
    added = add(commands.submit, "run it as a job on a Ray cluster, and follow that; again goes on with the run")
    add_config(added)
    added.add_argument("--address", metavar="URL", help="the cluster's dashboard: http://HEAD:8265")
    added.add_argument(
        "--working-dir",
        metavar="DIR",
        help="the folder that the job gets (this one, where it is a clone or holds CONFIG)",
    )
    added.add_argument("--no-wait", action="store_true", help="print the job's id and commands, and do not follow it")
    added.add_argument(
        "--stop-wait", type=_positive, default=30, metavar="SECONDS", help="from a stop of the job to its kill (30)"
    )


def _add_looking(add: Callable[..., argparse.ArgumentParser]) -> None:
    added = add(commands.status, "counts by stage and reason, tokens, rates, time left; of a live or a dead run")
    added.add_argument("run", metavar="RUN", help="a run folder")
    added.add_argument("--json", action="store_true", help="as JSON")
    added = add(commands.inspect, "rows, rejects by reason, or the lineage of one of them, drawn for a person")
    added.add_argument("run", metavar="RUN", help="a run folder")
    added.add_argument("-n", type=_positive, default=5, metavar="ROWS", help="rows to show, spread over the run (5)")
    added.add_argument("--rejected", action="store_true", help="what was refused instead of what was kept")
    added.add_argument("--reason", metavar="R", help="rejects with this reason only")
    added.add_argument(
        "--id",
        metavar="ID",
        help="one row, instruction or seed: its prompt's demonstrations, and theirs; or one text of a corpus: its rows",
    )
    added = add(commands.verify, "is a run folder whole: files, hashes, ledger, ids, counts, novelty; live or dead")
    added.add_argument("run", metavar="RUN", help="a run folder")
    added.add_argument(
        "--full", action="store_true", help="compare every admitted instruction with all others, and not some hundreds"
    )


def _add_backtranslation(add: Callable[..., argparse.ArgumentParser]) -> None:
    added = add(commands.segments, "what a corpus gives backtranslation: counts per reason, and samples")
    added.add_argument("source", metavar="SOURCE", help="a file, folder, glob or URL, or dataset:NAME")
    added.add_argument("--out", type=Path, metavar="FILE", help="write the segments there: a new .jsonl or .parquet")
    added.add_argument("-n", type=_whole, default=3, metavar="SAMPLES", help="segments to show (3); 0: counts alone")
    added.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="corpus.min_characters=300")
    added = add(commands.curate, "score the pairs of a finished backtranslation run again, into a run of its own")
    added.add_argument("run", metavar="RUN", help="the finished run")
    added.add_argument("--out", metavar="DIR", required=True, help="the folder of the new run")
    added.add_argument("--config", metavar="FILE", help="a TOML file whose tables take the place of the run's")
    added.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="engine.model=/models/second")
    added = add(commands.report, "what a run came to, in one screen or as a page: kept, refused, scores, engine time")
    added.add_argument("run", metavar="RUN", help="a run folder")
    form = added.add_mutually_exclusive_group()
    form.add_argument(
        "--html", type=Path, metavar="FILE", help="write one page with drawings, rows and rejects: a new .html file"
    )
    form.add_argument("--json", action="store_true", help="as JSON")
    _add_export(add(commands.export, "seeds or the rows of a run in a form that trainers read"))


def _add_export(added: argparse.ArgumentParser) -> None:
    added.epilog = (
        "OUT is one file, or a folder in the Hub's layout: Parquet shards of a train and a test split, and a data set "
        "card. Rows of one document, of one prompt or of one seed task are on one side of the split, and a row whose "
        "parent or child would be on the other side is left out. The split is the same in every format. An existing "
        "file or a folder with anything in it is never replaced."
    )
    added.add_argument("source", metavar="SOURCE", help='a run folder, a seed file, or "shipped:seeds.jsonl"')
    added.add_argument("out", metavar="OUT", type=Path, help="a new .jsonl or .parquet file, or a new folder")
    added.add_argument(
        "--format",
        choices=("messages", "alpaca", "prompt-completion", "sharegpt", "backward", "kto"),
        required=True,
        help="messages: chats (TRL, axolotl, LLaMA-Factory); backward: from text to instruction, as prompt and "
        "completion; kto: scored pairs, those of 4 and 5 as wanted and those of 1 and 2 as unwanted",
    )
    added.add_argument(
        "--style",
        choices=("chat", "completion"),
        help="prompt and completion as messages or as texts; of backward, how that model will be asked (chat)",
    )
    added.add_argument("--config", metavar="FILE", help="a configuration whose [tags] and backward prompt to take")
    added.add_argument("--system", metavar="TEXT", help='the sentence in place of the paper\'s; "" for none')
    added.add_argument("--seeds", action="store_true", help="of a run: its seeds too, before its rows")
    added.add_argument(
        "--test-share",
        type=_share,
        metavar="S",
        help="of a folder: share for testing (0.02); 0: none; in Self-Instruct a large one leaves out many rows",
    )
    added.add_argument("--shard-rows", type=_positive, metavar="N", help="of a folder: most rows in a file (100000)")
    added.add_argument(
        "--license", metavar="ID", help="of a folder: the licence its card names, written as given, as apache-2.0"
    )
    added.add_argument(
        "--language",
        metavar="CODE",
        action="append",
        help="of a folder: a language of its card, as given (en)",
    )
    added.add_argument(
        "--push",
        metavar="OWNER/NAME",
        help="send the folder to this data set on the Hugging Face Hub, in place of its data/ and README.md; "
        "the token is that in HF_TOKEN",
    )
    added.add_argument("--public", action="store_true", help="a data set that --push makes is public (private)")


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


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share of at least 0 and below 1")
    return share


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is not a whole number")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return int(text)
