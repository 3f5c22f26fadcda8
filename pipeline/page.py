"""`instructmill report RUN --html FILE`: a run as one page that needs nothing but a browser.

The page has no script and asks for nothing from anywhere, and its own policy forbids both. What a model wrote reaches
it in one way: through a template that escapes every value, after `_visible` has made its control and format characters
visible. The drawings alone are not escaped there; `pipeline/figures.py` makes them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.console import clock, printable
from pipeline.errors import InputError, RunStopped
from pipeline.models import full_name
from pipeline.page_rows import shown_rejects, shown_rows
from pipeline.page_sections import sections
from pipeline.report import made_of, moment, next_commands, read_history, why
from pipeline.shards import MANIFEST
from pipeline.storage import OBJECT_STORES

if TYPE_CHECKING:
    from pipeline.reading import Snapshot
    from pipeline.report import History
    from pipeline.survey import Survey

TEMPLATE = Path(__file__).with_name("page.html")
ENDINGS = (".html", ".htm")
GENERATOR = b'<meta name="generator" content="InstructMill report">'
_BEGINNING = 1000  # bytes of a page among which its generator is named


def write_page(run: Snapshot, path: Path) -> None:
    """Write a run's report to `path`, as a whole page or not at all. A page of an earlier report is replaced.

    Raises InputError where the file cannot be made, is something else than a report, or lies in a run folder, where
    `instructmill[report]` is not installed, and for a damaged run; RunStopped where the disk fails.
    """
    require_replaceable(path)
    content = page(run).encode()
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    except PermissionError as error:
        raise InputError(f"{path}: cannot be made ({error.strerror}); name another file") from None
    except OSError as error:
        raise RunStopped(f"storage failed ({error}); no page is written: mend it and begin anew") from None
    finally:
        partial.unlink(missing_ok=True)


def require_replaceable(path: Path) -> None:
    """Raises InputError where a page cannot be made under this name: nothing but an earlier page is ever replaced."""
    if str(path).startswith(tuple(store.replace("//", "/") for store in OBJECT_STORES)):
        raise InputError(f"{path}: a page is written to a disk of this machine; name a local file, and copy it")
    if path.suffix.lower() not in ENDINGS:
        raise InputError(f"{path}: a page is an .html file; give it a name that ends so")
    try:
        for around in path.absolute().parents:
            if (around / MANIFEST).exists():
                raise InputError(
                    f"{path}: that lies in the run folder {around}, which holds its own rows alone; name another"
                )
        if not path.absolute().parent.is_dir():
            raise InputError(f"{path}: there is no folder {path.absolute().parent}; make it, or name another file")
        if path.is_symlink() or (path.exists() and not _is_page(path)):
            raise InputError(f"{path}: something that is no report is there already and is not replaced; name another")
    except OSError as error:  # a name too long, or not to be read
        raise InputError(f"{path}: cannot be a file ({error.strerror}); name another") from None


def _is_page(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return GENERATOR in stream.read(_BEGINNING)


def page(run: Snapshot) -> str:
    """A run's report as HTML. Raises InputError as `write_page` does."""
    try:
        import jinja2
        import matplotlib  # noqa: F401 -- that it is missing is found before a long run is read
    except ModuleNotFoundError as error:
        raise InputError(
            f'--html needs {error.name}, which is not installed: `pip install "instructmill[report]"`'
        ) from None
    from pipeline.survey import survey

    found, past = survey(run), read_history(run)
    environment = jinja2.Environment(
        autoescape=True, finalize=_visible, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        survey=found,
        read_at=moment(datetime.now(UTC).timestamp()),
        why=why(run, past),
        tiles=list(_tiles(run, found)),
        about=list(_about(run, found, past)),
        prompts=sorted(run.manifest.get("prompts", {}).items()),
        sections=list(sections(found)),
        rows=shown_rows(run, found),
        refused=shown_rejects(run, found),
        commands=next_commands(run),
    )


def _visible(value: object) -> object:
    """A value that the template writes, with control and format characters of a text as escapes."""
    return printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _tiles(run: Snapshot, survey: Survey) -> Iterator[tuple[str, str, str]]:
    """What is looked for first: a name, a number, and what is to be said of it."""
    counters, made = survey.counters, survey.throughput
    yield "accepted rows", f"{counters.examples:,}", made_of(run)
    if counters.candidates:
        share = counters.admitted / counters.candidates
        yield "admitted", f"{counters.admitted:,}", f"{share:.0%} of {counters.candidates:,} candidates"
    elif counters.instances:
        yield "accepted", f"{counters.examples / counters.instances:.0%}", f"of {counters.instances:,} pairs"
    refused = sum(each.count for each in survey.rejects)
    yield "rejects", f"{refused:,}", f"most: {survey.rejects[0].reason}" if refused else "nothing was refused"
    if made.hours:
        per_hour = f"{made.rows_per_hour:,.0f} rows an hour" if made.rows_per_hour else ""
        yield "at work", clock(made.hours * 3600), per_hour
        yield "generated", f"{made.tokens_per_s:,.0f}", "tokens a second"
    if survey.engine_time:
        useful = survey.engine_time["useful"] / sum(survey.engine_time.values())
        per_hour = f"{made.rows_per_engine_hour:,.0f} rows per engine-hour" if made.rows_per_engine_hour else ""
        yield "engines useful", f"{useful:.0%}", per_hour


def _about(run: Snapshot, survey: Survey, past: History) -> Iterator[tuple[str, str]]:
    """What the run is: its recipe, models, inputs and versions, and when it was made."""
    manifest = run.manifest
    yield "recipe", run.recipe
    for label in ("model", "judge"):
        if model := manifest.get(label):
            yield label, f"{full_name(model)}, licence {model.get('licence') or 'unknown'}"
    if seeds := manifest.get("seeds"):
        yield "seeds", f"{seeds['source']}, {seeds['rows']:,} tasks, sha256 {seeds['sha256'][:12]}"
    if corpus := manifest.get("corpus"):
        yield "corpus", f"{corpus['source']}, {corpus['files']:,} files, {corpus['bytes'] / 1e6:,.1f} MB"
    if pairs := manifest.get("candidates"):
        yield "pairs of", f"{pairs['folder']}, {pairs['pairs']:,} of them"
    for other in manifest.get("imports", ()):
        yield "pool from", f"{other['run']} in {other['folder']}"
    if past.began is not None:
        yield "began", moment(past.began)
    if past.last is not None:
        yield "ended" if survey.state == "finished" else "last heard of", moment(past.last)
    yield "attempts", f"{survey.attempts:,}"
    yield "folder", survey.folder
    yield "fingerprint", str(manifest.get("fingerprint", ""))
    yield "versions", ", ".join(f"{name} {version}" for name, version in manifest.get("versions", {}).items())
