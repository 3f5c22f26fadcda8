"""Which code a process runs, and on which node: the driver refuses engines that would answer by another code."""

from __future__ import annotations

import contextlib
import hashlib
import time
from functools import cache
from pathlib import Path

PACKAGES = ("actors", "pipeline", "prompts")
SETTLED_S, MOST_LOOKS = 0.1, 100
NOTHING = hashlib.sha256().hexdigest()[:12]
KINDS = frozenset({".py", ".txt", ".jsonl", ".toml"})


def node_id() -> str:
    """Ray's id of the node that this process runs on; empty outside of Ray."""
    import ray

    return ray.get_runtime_context().get_node_id() if ray.is_initialized() else ""


@cache
def code_hash() -> str:
    """A hash of the files of the packages as they lie where this process imports them from, in 12 hex digits.

    It is taken until it is the same twice in a row: where two of Ray's nodes share a machine, one of them may be
    unpacking the working dir anew just then.
    """
    before, now = "", _hash()
    for _ in range(MOST_LOOKS):
        if now == before and now != NOTHING:
            break
        time.sleep(SETTLED_S)
        before, now = now, _hash()
    return now


def _hash() -> str:
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*")):
            if path.suffix in KINDS:
                with contextlib.suppress(FileNotFoundError):  # gone since it was listed
                    digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
