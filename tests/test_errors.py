"""Errors survive pickling, and every reason is one that something gives."""

from __future__ import annotations

import ast
import pickle
from pathlib import Path

import pytest

from pipeline.errors import ContentFault, InputError, MillError, RunStopped
from pipeline.records import Reason

ROOT = Path(__file__).resolve().parents[1]


def kinds(error: type[MillError]) -> list[type[MillError]]:
    """A class of error and all below it."""
    return [error, *(kind for below in error.__subclasses__() for kind in kinds(below))]


EXAMPLES = [
    MillError("something went wrong"),
    InputError("my.toml: key 'target': is wrong"),
    RunStopped("no engine is left"),
    ContentFault(Reason.REQUEST_REFUSED, "9000 tokens are more than the context of 8192"),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_round_trip(error: MillError, protocol: int) -> None:
    """An error that has been in another process has its type, text and attributes."""
    back = pickle.loads(pickle.dumps(error, protocol))

    assert type(error) is type(back)
    assert str(error) == str(back)
    assert vars(error) == vars(back)
    assert error.args == back.args


def test_every_error_is_pickled_above() -> None:
    """No error of the tree is without its example."""
    ours = {kind for kind in kinds(MillError) if kind.__module__ == "pipeline.errors"}

    assert {type(error) for error in EXAMPLES} == ours


def test_content_fault_is_a_reason_and_a_sentence() -> None:
    """A content fault reads as its reason and detail."""
    fault = ContentFault(Reason.ENGINE_KILLED, "twice")

    assert str(fault) == "engine_killed: twice"
    assert (fault.reason, fault.detail) == (Reason.ENGINE_KILLED, "twice")


@pytest.mark.parametrize(("kind", "expected"), [(MillError, 1), (InputError, 2), (RunStopped, 75)])
def test_exit_code(kind: type[MillError], expected: int) -> None:
    """Each kind of error has the exit code that is documented."""
    assert expected == kind("x").exit_code


@pytest.mark.parametrize("reason", Reason, ids=str)
def test_every_reason_is_given_somewhere(reason: Reason) -> None:
    """Each member of Reason is used outside the module that declares it."""
    assert reason.name in GIVEN


def reasons_given() -> set[str]:
    """The members of Reason named in the code of the method and of its engines, records.py apart."""
    files = [file for folder in ("pipeline", "actors") for file in (ROOT / folder).rglob("*.py")]
    return {
        node.attr
        for file in files
        if file.name != "records.py"
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Reason"
    }


GIVEN = reasons_given()
