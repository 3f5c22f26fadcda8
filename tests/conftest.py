"""What the whole suite shares: small configurations, and the report of where the time went."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import uuid
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

# A suite that a script runs in the background is deaf to SIGINT, and so would be the commands that it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

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
def tables() -> Callable[[Path | str], dict[str, list[dict[str, Any]]]]:
    """Reads every row of a run folder, in order."""
    return lambda folder: {kind: read_rows(folder, kind) for kind in ("data", "pool", "rejected")}


SECRET = "verysecretkey0123456789"


@contextlib.contextmanager
def s3_process(output: int) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """An S3 server, a process of its own on this machine, and its address. `output` is as Popen takes it."""
    pytest.importorskip("moto")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]

    def end_with_us() -> None:  # a suite that is killed runs no clean-up; Linux alone knows this
        with contextlib.suppress(AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG

    server = subprocess.Popen(command, stdout=output, stderr=output, preexec_fn=end_with_us)
    try:
        until = time.monotonic() + 60
        while True:
            with socket.socket() as door:
                if door.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert server.poll() is None, "the S3 server did not start"
            assert time.monotonic() < until, "the S3 server did not answer"
            time.sleep(0.05)
        yield server, f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the suite's S3 server."""
    with (tmp_path_factory.mktemp("s3") / "log").open("wb") as log, s3_process(log.fileno()) as (_, address):
        yield address


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of an empty place in a bucket of its own; this process and its children have the credentials."""
    from pipeline import storage

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test-user",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }.items():
        monkeypatch.setenv(name, value)
    storage._client.cache_clear()
    bucket = f"b-{uuid.uuid4().hex[:12]}"
    storage._client().create_bucket(Bucket=bucket)
    yield f"s3://{bucket}/some/run"
    storage._client.cache_clear()


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a run folder may be: a folder that is not there yet, on a disk and in an S3 store."""
    return str(tmp_path / "r") if request.param == "disk" else request.getfixturevalue("s3")


def block_imports(folder: Path, *names: str) -> None:
    """Processes that have this folder on their PYTHONPATH cannot import the packages of these names."""
    (folder / "sitecustomize.py").write_text(
        "import sys\n"
        "class Blocked:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {names!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Blocked())\n"
    )


@pytest.fixture(scope="session")
def without_ray_and_vllm(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment for processes in which Ray, vLLM, torch and transformers cannot be imported, and with no key."""
    folder = tmp_path_factory.mktemp("blocked")
    block_imports(folder, "ray", "vllm", "torch", "transformers")
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
