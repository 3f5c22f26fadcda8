"""What the commands do, one function each; `cli.py` reads their arguments and makes sentences of their errors."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from pathlib import Path

from pipeline.console import printable
from pipeline.errors import InputError

DEMO_CONFIGS = {"self-instruct": "shipped:demo.toml", "backtranslation": "shipped:demo_backtranslation.toml"}
MODEL_DEMO_CONFIG = "shipped:demo_model.toml"


def demo(options: argparse.Namespace) -> int:
    """`instructmill demo`: a shipped demo configuration, or a model of one's own, then a look at what came out."""
    from pipeline.config import load_config
    from pipeline.drawing import draw_rows
    from pipeline.launch import launch, run_folder
    from pipeline.runs import read

    if options.model is None:
        config = load_config(DEMO_CONFIGS[options.recipe], tuple(options.set), options.out)
    elif options.recipe != "self-instruct":
        raise InputError("--model is for the demo of self-instruct; for another recipe write a configuration")
    else:
        model = f"engine.model={json.dumps(options.model)}"
        out = options.out or f"runs/demo-{Path(options.model).name}"
        config = load_config(MODEL_DEMO_CONFIG, (model, *options.set), out)
    folder = run_folder(config)
    launch(config)
    draw_rows("a few of its rows", read(folder).examples.sample(3))
    python = os.path.relpath(sys.executable) if Path(sys.executable).is_relative_to(Path.cwd()) else sys.executable
    what = f"'{folder}'" if folder.local else f"'parquet', data_files='{folder}/data/*.parquet'"
    print(f"\nopen it:  {python} -c \"import datasets; print(datasets.load_dataset({what}, split='train'))\"")
    reason = "not_novel" if options.recipe == "self-instruct" else "low_score"
    print(f"look on:  {python} -m pipeline inspect {folder} -n 5      ... inspect {folder} --reason {reason}")
    return 0


def run(options: argparse.Namespace) -> int:
    """`instructmill run`: a new run, or on with the one in the folder."""
    from pipeline.config import load_config
    from pipeline.launch import launch, run_folder

    config = load_config(options.config, tuple(options.set), options.out)
    if options.dry_run:
        from pipeline.plan import make_plan

        plan = make_plan(config)
        resolved = {**plan.config.model_dump(mode="json"), "window": plan.window, "out": str(run_folder(config))}
        print(json.dumps({"fingerprint": plan.fingerprint, "config": resolved}, indent=1, ensure_ascii=False))
        return 0
    launch(config)
    return 0


def submit(options: argparse.Namespace) -> int:
    """`instructmill submit`: the same run as a job on a cluster; its end is this command's."""
    from pipeline.launch import cluster_jobs
    from pipeline.submit import checked_address, job_commands, make_job, remarks_on, require_done

    address = checked_address(options.address or os.environ.get("RAY_API_SERVER_ADDRESS"))
    job = make_job(options.config, tuple(options.set), options.out, options.working_dir, options.stop_wait)
    jobs = cluster_jobs(address)
    for remark in (*remarks_on(address), *job.remarks):
        print(remark, file=sys.stderr)
    id = jobs.submit(job)
    if options.no_wait:
        what = zip(("follow", "status", "stop"), job_commands(id, address), strict=True)
        print("\n".join([f"submitted: {id}", *(f"{word + ':':<11}{command}" for word, command in what)]))
        return 0
    print(f"submitted: {id}; its log follows, and Ctrl-C leaves it running", file=sys.stderr)
    require_done(id, jobs.follow(id))
    print(f"job {id} is done", file=sys.stderr)
    return 0


def preview(options: argparse.Namespace) -> int:
    """`instructmill preview`: a few units, shown whole, and what they foretell; writes nothing."""
    from pipeline.check import check_context
    from pipeline.config import load_config
    from pipeline.counters import Counters
    from pipeline.drawing import PreviewDrawing
    from pipeline.launch import engines_room, start_engine
    from pipeline.plan import make_plan
    from pipeline.preview import forecast, preview_units

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
    print("\n".join(forecast(counters, plan.config.resolved_target, plan.config.engine.most)))
    return 0


def check(options: argparse.Namespace) -> int:
    """`instructmill check`: everything that can be known before a model loads."""
    from pipeline.check import check_plan
    from pipeline.config import load_config
    from pipeline.launch import engines_room
    from pipeline.plan import make_plan
    from pipeline.runs import plan_for
    from pipeline.storage import folder_at

    config = load_config(options.config, tuple(options.set), options.out)
    folder = folder_at(config.out) if config.out else None
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

    facts = facts_of(options.run)
    print(json.dumps(facts, indent=1) if options.json else status_text(facts))
    return 0


def inspect(options: argparse.Namespace) -> int:
    """`instructmill inspect`: rows, rejects or the lineage of one of them, drawn for a person."""
    from pipeline.drawing import draw_lineage, draw_reasons, draw_rows
    from pipeline.lineage import named
    from pipeline.records import Reason
    from pipeline.runs import read

    if options.reason is not None and options.reason not in set(Reason):
        raise InputError(f"--reason {options.reason}: no such reason; there are {', '.join(Reason)}")
    if options.id is not None and (options.rejected or options.reason):
        raise InputError("--id shows one row, wherever it is; leave --rejected and --reason out")
    run = read(options.run)
    rows = run.examples
    if options.rejected or options.reason:
        rows = run.rejects if options.reason is None else run.rejects.where(reason=options.reason)
    if options.id is not None:
        try:
            lineage = run.lineage(options.id)
        except InputError:
            made = [view for table in (run.examples, run.rejects) if (view := table.where(source=options.id))]
            if not made:
                raise
            for view in made:
                draw_rows(f"made of the text of {printable(options.id)}: rows of {view.kind}/", list(view))
            return 0
        draw_lineage(lineage)
        return 0
    print(printable(repr(run)))
    if options.rejected and not options.reason and rows.count:
        draw_reasons(run.counters)
    if not run.units:
        print("no rows yet")
        return 0
    if not rows.count:
        print(f"none with the reason {options.reason}" if options.reason else f"no rows in {rows.kind}/")
        return 0
    shown = rows.sample(options.n)
    near = {row["nearest_id"] for row in shown if row.get("reason") == Reason.NOT_NOVEL and row["nearest_id"]}
    draw_rows(f"{len(shown):,} of {rows.count:,} rows of {rows.kind}/", shown, named(run, near) if near else {})
    return 0


def novelty(options: argparse.Namespace) -> int:
    """`instructmill novelty`: the filter alone on a file; or with --fill, the full nearest of what a run admitted."""
    for path in (options.path, options.out, *(options.against or ())):
        if str(path).startswith(("s3:/", "s3a:/")):
            raise InputError(f"{path}: novelty reads and writes local files; copy it to a disk of this machine first")
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


def verify(options: argparse.Namespace) -> int:
    """`instructmill verify`: is a run folder whole, from its files alone."""
    from pipeline.verify import verify as checked

    print(checked(options.run, full=options.full))
    return 0


def segments(options: argparse.Namespace) -> int:
    """`instructmill segments`: what a corpus gives backtranslation."""
    from pipeline.config import parse_config, with_overrides
    from pipeline.segments_shown import show_segments

    for override in options.set:
        if not override.startswith("corpus."):
            raise InputError(f"--set {override}: `segments` heeds keys of [corpus] alone, as corpus.min_characters=300")
    values = {"recipe": "backtranslation", "engine": {"kind": "scripted"}, "corpus": {"source": options.source}}
    config = parse_config(with_overrides(values, tuple(options.set)), "--set")
    print(show_segments(config.corpus, options.out, options.n))
    return 0


def curate(options: argparse.Namespace) -> int:
    """`instructmill curate`: score the pairs of a finished run again, into a run of its own."""
    from pipeline.launch import launch
    from pipeline.rounds import round_config

    launch(round_config(options.run, options.config, tuple(options.set), options.out))
    return 0


def report(options: argparse.Namespace) -> int:
    """`instructmill report`: what a run came to, in one screen, as a page, or for a program."""
    from pipeline.report import read_history
    from pipeline.runs import read

    if options.html is not None:
        from pipeline.page import write_page

        run = read(options.run)
        write_page(run, options.html)
        so_far = "; the run is still going, and this is what it had committed" if run.state == "running" else ""
        print(f"{options.html}: the report of {run.name}{so_far}")
        return 0
    from pipeline.report_screen import draw_report, report_facts
    from pipeline.survey import survey

    run = read(options.run)
    found, past = survey(run, sample=0, rows=0, per_reason=0), read_history(run)
    if options.json:
        print(json.dumps(report_facts(run, found, past), indent=1))
    else:
        draw_report(run, found, past)
    return 0


def export(options: argparse.Namespace) -> int:
    """`instructmill export`: seeds or the rows of a run in a form that trainers read."""
    from pipeline.config import load_config
    from pipeline.export import HubFolder, export_rows

    config = load_config(options.config) if options.config else None
    given = {
        "test_share": options.test_share,
        "shard_rows": options.shard_rows,
        "license": options.license,
        "languages": tuple(options.language or ()) or None,
        "push": options.push,
        "public": options.public or None,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if options.public and options.push is None:
        raise InputError("--public is for --push; leave it out, or name the data set with --push OWNER/NAME")
    told = export_rows(
        options.source,
        options.out,
        options.format,
        options.style,
        options.system,
        config,
        seeds=options.seeds,
        folder=HubFolder(**given) if given else None,
    )
    print(told)
    return 0
