"""The README's configurations and Python are good as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline import cli
from pipeline.report import read_rows

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = {
    text.split("\n", 1)[0].removeprefix("# "): text for text in re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the README's configurations in it, which the test runs in."""
    for name, text in BLOCKS.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_configurations_stand_in_the_readme() -> None:
    """One for a GPU, one for an endpoint, one for texts."""
    assert set(BLOCKS) == {"night.toml", "endpoint.toml", "texts.toml"}


@pytest.mark.parametrize("name", BLOCKS)
def test_a_configuration_of_the_readme_passes_check(files: Path, name: str, capsys) -> None:
    """`check` of the file as it is written exits 0 in the style it names, where the texts it names are."""
    (files / "my" / "texts").mkdir(parents=True)
    (files / "my" / "texts" / "one.md").write_text("# One\n\nA text.\n")
    assert cli.main(["check", name, "--no-cluster"]) == 0
    assert "style: chat" in capsys.readouterr().out


def test_the_python_of_the_readme_runs(files: Path) -> None:
    """The lines as they are written make a run without what their filter refuses."""
    (files / "night.toml").write_text('target = 30\nout = "runs/night"\n[engine]\nkind = "scripted"\n')
    (code,) = [text for text in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "launch" in text]
    (files / "mine.py").write_text(code)
    exec(compile(code, "mine.py", "exec"), {})

    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    assert len(read_rows(files / "runs" / "night", "pool")) == 30
