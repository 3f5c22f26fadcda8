"""The rules of the house that a test can check: who imports what, how long things are, what is not written."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("ray", "vllm", "torch")

METHOD = sorted((ROOT / "pipeline").rglob("*.py"))
OURS = METHOD + sorted((ROOT / "actors").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
TEXT_ENDINGS = frozenset(".py .toml .md .txt .json .jsonl .yaml .yml .ipynb .cfg .sh .in".split())
# Not ours, or made by running: what .gitignore names, and folders of tools.
NOT_TRACKED = frozenset("runs build dist results __pycache__ node_modules".split())
# This machine's own folders, written so that this file does not hold them.
MACHINE_PATH = re.compile("|".join(re.escape("/" + path) for path in ("work/main", "work/shared", "tmp" + "/w/")))


def name_of(file: Path) -> str:
    """A file's path in the repository, for the name of a test."""
    return file.relative_to(ROOT).as_posix()


def tree_of(file: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(file.read_text(encoding="utf-8"))


def imports(tree: ast.AST, *, in_functions: bool = True) -> set[str]:
    """The top-level packages a tree imports; without `in_functions`, those that loading the module imports."""
    found: set[str] = set()
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").split(".")[0])
        if in_functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            waiting += ast.iter_child_nodes(node)
    return found


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function of a tree, methods and nested ones included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def text_files() -> Iterator[Path]:
    """Every text file of the repository that is kept, by its ending or because it has none."""
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [
            name
            for name in folders
            if name not in NOT_TRACKED and not name.endswith(".egg-info") and (name[0] != "." or name == ".ci")
        ]
        for name in files:
            if Path(name).suffix in TEXT_ENDINGS or "." not in name:
                yield Path(folder, name)


@pytest.mark.parametrize("file", METHOD, ids=name_of)
def test_the_method_imports_no_engine(file: Path) -> None:
    """No module of pipeline/ imports Ray, vLLM or torch, and only functions of launch.py import actors."""
    tree = tree_of(file)
    everywhere, at_loading = imports(tree), imports(tree, in_functions=False)

    assert everywhere.isdisjoint(HEAVY)
    assert "actors" not in (at_loading if file.name == "launch.py" else everywhere)


EVERY_MODULE = ", ".join(
    ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for file in METHOD
    if not file.name.startswith("__") and file.stem != "novelty_kernels"  # which is loaded with the first question
)


@pytest.mark.parametrize("module", ["pipeline.cli", EVERY_MODULE], ids=["cli", "all"])
def test_loading_the_method_loads_nothing_heavy(module: str) -> None:
    """Importing the command line, or every module, leaves Ray, vLLM, torch, numba and their like unloaded."""
    heavy = {*HEAVY, "numba", "datasets", "pandas", "transformers", "huggingface_hub", "actors"}
    code = f"import sys, {module}; print(sorted({heavy!r} & sys.modules.keys()))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)

    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("file", OURS, ids=name_of)
def test_nothing_is_long(file: Path) -> None:
    """No module has more than 400 lines, and no function more than 60."""
    lengths = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions(tree_of(file))}

    assert len(file.read_text(encoding="utf-8").splitlines()) <= 400
    assert {name: length for name, length in lengths.items() if length > 60} == {}


def test_no_module_is_named_for_nothing() -> None:
    """No file or folder is called utils, helpers or common."""
    vague = {"util", "utils", "helper", "helpers", "common", "misc"}
    python = [file for file in text_files() if file.suffix == ".py"]

    assert [name_of(file) for file in python if vague & {part.lower() for part in (file.stem, file.parent.name)}] == []


@pytest.mark.parametrize("file", OURS, ids=name_of)
def test_actors_are_plain_classes(file: Path) -> None:
    """Nothing is decorated with ray.remote: classes are made remote where they are used."""
    decorated = [
        node.name
        for node in ast.walk(tree_of(file))
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and any("remote" in ast.unparse(decorator) for decorator in node.decorator_list)
    ]

    assert decorated == []


@pytest.mark.parametrize("file", TESTS, ids=name_of)
def test_every_test_says_what_it_shows(file: Path) -> None:
    """Each test is a plain function with a docstring of one sentence."""
    tree = tree_of(file)
    tests = [node for node in functions(tree) if node.name.startswith("test_")]

    assert [node.name for node in tests if not (ast.get_docstring(node) or "").endswith(".")] == []
    assert [node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name[:4] == "Test"] == []


def test_no_path_of_one_machine() -> None:
    """No file that is kept names a folder of the machine it was written on."""
    naming = [
        name_of(file)
        for file in text_files()
        if MACHINE_PATH.search(file.read_text(encoding="utf-8", errors="replace"))
    ]

    assert naming == []
