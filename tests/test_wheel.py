"""What a user installs: the wheel, outside the clone, with every file it needs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted(path.relative_to(ROOT / "pipeline" / "configs").as_posix() for path in ROOT.rglob("configs/**/*.toml"))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built and installed into a folder of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "runs", "build", "*.egg-info", "__pycache__"))
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    target = folder / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel)]
    subprocess.run(install, check=True)
    return target


@pytest.mark.parametrize("config", CONFIGS)
def test_check_passes_on_every_shipped_configuration(installed, tmp_path, config):
    """`check` of each shipped configuration exits 0 from the installed wheel, in a folder far from the clone."""
    environment = {**os.environ, "PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-m", "pipeline", "check", f"shipped:{config}", "--no-cluster", "--out", "r"]
    if config == "backtranslation.toml":  # whose corpus is its user's
        (tmp_path / "corpus").mkdir()
        (tmp_path / "corpus" / "one.md").write_text("# One\n\nA text.\n")
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("all is well\n")


def test_the_wheel_and_nothing_else_is_imported(installed, tmp_path):
    """The three import packages of the installed wheel come from one folder, and that is not the clone."""
    environment = {**os.environ, "PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"}
    code = "import pipeline, actors, prompts; print(*(m.__file__ for m in (pipeline, actors, prompts)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )

    assert {str(Path(file).parent.parent) for file in done.stdout.split()} == {str(installed)}


def test_the_wheel_says_its_version(installed, tmp_path):
    """`--version` of the installed wheel is the version that its metadata gives, and so its file's name."""
    environment = {**os.environ, "PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-m", "pipeline", "--version"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    (wheel,) = installed.parent.glob("*.whl")
    assert (done.returncode, done.stdout) == (0, f"instructmill {wheel.name.split('-')[1]}\n")
