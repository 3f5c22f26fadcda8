"""`instructmill export --push`: the finished folder goes to a hub, here a small one on this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cli import main
from tests.export_hub import FakeHub, serving

ROOT = Path(__file__).resolve().parents[1]
SEEDS = "shipped:seeds.jsonl"
TOKEN = "hf_notarealtoken0123456789"


def pushed(url: str, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """An export of the seeds with --push, in a process of its own: where the hub is, is read when it begins."""
    environment = {**os.environ, "HF_ENDPOINT": url, "HF_TOKEN": TOKEN, "HF_HOME": str(out.parent / "home")}
    environment |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-m", "pipeline", "export", SEEDS, str(out), "--format", "messages"]
    return subprocess.run(
        [*command, "--push", "me/rows", *options],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_push_sends_the_folder_in_one_commit(tmp_path) -> None:
    """The hub gets every file as it is on the disk, in one commit to a private data set; old shards there go."""
    with serving(FakeHub({"data/train-00000-of-00009.parquet": b"old", "LICENSE": b"theirs"})) as there:
        done = pushed(there.url, tmp_path / "rows", "--shard-rows", "100")

    assert done.returncode == 0, done.stderr
    files = {
        str(file.relative_to(tmp_path / "rows")): file.read_bytes()
        for file in (tmp_path / "rows").rglob("*")
        if file.is_file()
    }
    assert there.files == {**files, "LICENSE": b"theirs"}
    assert "data/train-00002-of-00003.parquet" in files
    assert there.commits == ["The rows of seeds.jsonl"]
    assert (there.made["name"], there.made["organization"], there.made["type"]) == ("rows", "me", "dataset")
    assert there.made["visibility"] == "private"
    assert there.tokens == {f"Bearer {TOKEN}"}
    assert TOKEN not in done.stdout + done.stderr + files["README.md"].decode()
    assert "me/rows" in files["README.md"].decode()


def test_public_is_asked_for(tmp_path) -> None:
    """With --public the data set that is made is a public one."""
    with serving(FakeHub()) as there:
        done = pushed(there.url, tmp_path / "rows", "--public")

    assert done.returncode == 0, done.stderr
    assert there.made["visibility"] == "public"


def test_a_hub_that_refuses_or_is_away_is_one_sentence(tmp_path) -> None:
    """A token that may not write, and a hub that is not there: exit 2, one sentence, and the folder stays."""
    with serving(FakeHub(refuse=403)) as there:
        refused = pushed(there.url, tmp_path / "one")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        away = pushed(f"http://127.0.0.1:{free.getsockname()[1]}", tmp_path / "two")

    assert (refused.returncode, away.returncode) == (2, 2)
    assert "refuses it (status 403)" in refused.stderr
    assert "cannot be reached" in away.stderr
    for done in (refused, away):
        assert f"`hf upload me/rows {tmp_path}" in done.stderr
        assert " . --repo-type dataset --private --delete 'data/*'`" in done.stderr
        assert done.stderr.count("\n") == 1
        assert TOKEN not in done.stderr
    assert (tmp_path / "one" / "README.md").is_file()
    assert (tmp_path / "two" / "README.md").is_file()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--push", "me/rows"], "put it in the environment as HF_TOKEN"),
        (["--push", "rows"], "named OWNER/NAME"),
        (["--public"], "--public is for --push"),
    ],
)
def test_a_push_that_cannot_be_is_refused_before_anything_is_written(
    tmp_path, capsys, monkeypatch, options, said
) -> None:
    """No token, a name that is none, --public alone: one sentence, exit 2, no folder."""
    monkeypatch.delenv("HF_TOKEN", raising=False)

    assert main(["export", SEEDS, str(tmp_path / "rows"), "--format", "messages", *options]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_without_the_package_a_push_says_so(tmp_path, capsys, monkeypatch) -> None:
    """Where huggingface_hub is not installed, --push names it."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setenv("HF_TOKEN", TOKEN)

    assert main(["export", SEEDS, str(tmp_path / "rows"), "--format", "messages", "--push", "me/rows"]) == 2
    assert "huggingface_hub, which is not installed" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["me/a--b", "me/a..b", "me/x.git", "rows"])
def test_a_name_that_the_hub_does_not_take_is_refused_first(tmp_path, capsys, monkeypatch, name) -> None:
    """Before any row is written, in one sentence."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)

    assert main(["export", SEEDS, str(tmp_path / "rows"), "--format", "messages", "--push", name]) == 2
    assert capsys.readouterr().err.startswith(f"instructmill: --push {name}: ")
    assert not (tmp_path / "rows").exists()


def test_an_interrupted_push_leaves_the_folder_and_says_how_to_go_on(tmp_path, capsys, monkeypatch) -> None:
    """Ctrl-C while the hub is written to: exit 75, and the command that sends what is there."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", interrupted)

    assert main(["export", SEEDS, str(tmp_path / "rows"), "--format", "messages", "--push", "me/rows"]) == 75
    words = capsys.readouterr().err
    assert f"interrupted; {tmp_path / 'rows'} is whole and stays" in words
    assert "`hf upload me/rows " in words
    assert (tmp_path / "rows" / "README.md").is_file()
