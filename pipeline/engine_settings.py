"""The settings of engines: what answers requests, where it runs and how it is asked."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field, model_validator

from pipeline.settings import Settings


class ScriptedSettings(Settings):
    """The engine of the tests: answers computed from the request. Needs neither Ray nor a model."""

    capacity: int = Field(16, ge=1)
    """Requests held at once by one engine."""
    delay_s: float = Field(0.0, ge=0)
    """Longest pause before an answer, in seconds; each request has its own share of it."""
    call_log: str | None = None
    """A file to which the key of each request is appended as it is asked."""


class EngineSettings(Settings):
    """What answers requests."""

    kind: Literal["vllm", "scripted"] = "vllm"
    """`vllm`: Ray actors, on GPUs or CPUs. `scripted`: the tests' fake."""
    model: str | None = None
    """A model folder, a name on the Hugging Face hub, or "shipped:embedded" (the demo's)."""
    revision: str | None = None
    """Branch, tag or commit of a model on the hub."""
    count: int = Field(1, ge=1)
    """Engines, each in an actor of its own."""
    num_gpus: int = Field(1, ge=0)
    """GPUs of one engine: tensor parallel over them. 0 runs it on the CPU."""
    num_cpus: int = Field(1, ge=1)
    """CPUs of one engine; on the CPU, its threads."""
    cpu_kv_cache_gib: float = Field(1.0, gt=0)
    """Memory for the KV cache of an engine on the CPU, in GiB."""
    start_timeout_s: float = Field(900, gt=0)
    """How long the first engine may take to load."""
    vllm: dict[str, Any] = Field(default_factory=dict)
    """vLLM's own engine options under vLLM's names (max_model_len, max_num_seqs, dtype, quantization, ...)."""
    scripted: ScriptedSettings = ScriptedSettings()
    """Options of the scripted engine."""

    @model_validator(mode="after")
    def _read_options(self) -> EngineSettings:
        seqs = self.vllm.get("max_num_seqs", 1)
        if type(seqs) is not int or seqs < 1:
            raise ValueError(f"vllm.max_num_seqs must be a whole number of at least 1, not {seqs!r}")
        return self

    @property
    def max_num_seqs(self) -> int:
        """Sequences one engine decodes at once (vLLM's `max_num_seqs`; 256 unless set)."""
        return int(self.vllm.get("max_num_seqs", 256))

    @property
    def slots(self) -> int:
        """Requests that one engine holds: 1.2 x max_num_seqs, so that the next ones wait inside the engine."""
        return self.scripted.capacity if self.kind == "scripted" else math.ceil(1.2 * self.max_num_seqs)
