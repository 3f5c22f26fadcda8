"""The README's commands and code do what it says, in its order."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from pipeline.runs import read_events

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_commands_of_the_readme(tmp_path, ray_session) -> None:
    """Every `.venv/bin/instructmill` line exits 0 in the order it stands in, and the Python lines open the result.

    The demo is made with a smaller target; everything else runs as it is written.
    """
    commands = re.findall(r"^    \.venv/bin/instructmill (.*?)\s*(?:#.*)?$", README, re.MULTILINE)
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    code = "\n".join(next(text for text in blocks if words in text) for words in ("load_dataset", "runs.read"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment["HF_HOME"] = str(tmp_path / "hf")
    shutil.copy(ROOT / "README.md", tmp_path)  # the commands are run where it lies

    assert [command.split()[0] for command in commands][:4] == ["demo", "check", "run", "preview"]
    for command in commands:
        words = shlex.split(command)
        if words[0] == "demo":
            words += ["--set", "target=24"]
        line = [sys.executable, "-m", "pipeline", *words]
        done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (command, done.stderr[-2000:])
    assert "engine_ready" in {event["event"] for event in read_events(tmp_path / "runs" / "demo")}
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert "num_rows" in shown.stdout


def test_the_readme_names_both_make_commands_and_they_exist() -> None:
    """The first screen names `make demo` and `make test`, and the Makefile has both."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    for name in ("demo", "test"):
        assert f"    make {name} " in README[:2000]
        assert re.search(rf"^{name}:", makefile, re.MULTILINE)
