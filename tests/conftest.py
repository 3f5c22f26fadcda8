"""What the whole suite shares: small configurations, and the report of where the time went."""

from __future__ import annotations

import json
import os
import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Config, parse_config
from pipeline.report import read_rows

ROOT = Path(__file__).resolve().parents[1]
SHARED_DATA = ROOT.parent / "shared" / "data"

# Nothing in the suite may reach for a hub, and vLLM's CPU engine skips its warm-up.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["VLLM_CPU_CI_ENV"] = "1"
os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"

_seconds: dict[str, float] = defaultdict(float)


@pytest.fixture
def shared_data() -> Path:
    """The folder of real data beside the repository; tests that need it skip where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real data (../shared/data) is not on this machine")
    return SHARED_DATA


@pytest.fixture
def scripted() -> Callable[..., Config]:
    """Makes a small configuration of the scripted engine; keyword arguments override top-level keys."""

    def make(**values: Any) -> Config:
        base: dict[str, Any] = {"name": "t", "target": 60, "window": 8, "shards": {"rows": 25}}
        values = {**base, "engine": {"kind": "scripted"}, **values}
        return parse_config({key: value for key, value in values.items() if value is not None}, "test")

    return make


@pytest.fixture
def corpus(tmp_path: Path) -> Callable[..., Path]:
    """Makes a corpus of JSON lines: so many texts of some 800 characters, no two alike, and two that are refused."""

    def make(texts: int = 60, name: str = "corpus.jsonl") -> Path:
        things = "harbour lantern orchard violin glacier market bicycle compass bakery tunnel meteor theatre".split()
        rows = [{"text": "Too short."}, {"text": 7}]
        for number in range(texts):
            rng = random.Random(number)
            pairs = [(*rng.choices(things, k=2), rng.randint(2, 9999)) for _ in range(15)]
            text = " ".join(f"The {one} of {number} stood by a {two} with {many} marks." for one, two, many in pairs)
            rows.append({"text": text, "url": f"https://example.org/{number}"})
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return make


@pytest.fixture
def backtranslation(scripted, corpus) -> Callable[..., Config]:
    """Makes a small configuration of backtranslation with the scripted engine; keyword arguments override its keys."""

    def make(**values: Any) -> Config:
        source = values.pop("source", None) or corpus()
        base = {"recipe": "backtranslation", "target": None, "curation": {"min_score": 4}}
        table = {"source": str(source), **values.pop("corpus", {})}
        return scripted(**{**base, "corpus": table, **values})

    return make


@pytest.fixture
def tables() -> Callable[[Path], dict[str, list[dict[str, Any]]]]:
    """Reads every row of a run folder, in order."""
    return lambda folder: {kind: read_rows(folder, kind) for kind in ("data", "pool", "rejected")}


@pytest.fixture(scope="session")
def without_ray_and_vllm(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment for processes in which Ray, vLLM, torch and transformers cannot be imported, and with no key."""
    folder = tmp_path_factory.mktemp("blocked")
    (folder / "sitecustomize.py").write_text(
        "import sys\n"
        "class Blocked:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name in ('ray', 'vllm', 'torch', 'transformers'):\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Blocked())\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    environment.pop("OPENAI_API_KEY", None)
    return environment


@pytest.fixture(scope="session")
def ray_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One local Ray cluster of four CPUs for all tests that need one, with a throw-away token."""
    from actors import cluster

    token = tmp_path_factory.mktemp("ray") / "token"
    token.write_text("0" * 64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
        patch.delenv("RAY_ADDRESS", raising=False)
        cluster.connect(num_cpus=4)
        yield
        cluster.disconnect()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    parts = Path(report.nodeid.split("::")[0]).parts
    _seconds["/".join(parts[:-1])] += report.duration


def pytest_configure(config: pytest.Config) -> None:
    config.option.durations = config.option.durations or 10


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.write_sep("=", "seconds per folder")
    for folder, seconds in sorted(_seconds.items()):
        terminalreporter.write_line(f"{seconds:8.1f}  {folder}")
