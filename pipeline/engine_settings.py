"""The settings of engines: what answers requests, where it runs and how it is asked."""

from __future__ import annotations

import math
import re
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.settings import Settings

Style = Literal["chat", "completion"]

# Fields of a request that are written for the server by other settings, and by which ones.
_SAMPLING = "set it in the sampling of each stage, as in [bootstrap.sampling]"
_OWN_FIELDS = {
    "model": "set engine.model",
    "prompt": "set [prompts]",
    "messages": "set [prompts] and engine.system",
    "chat_template_kwargs": "set engine.chat_template_kwargs",
    "structured_outputs": "answers that are one of some choices are constrained where the server can",
    "n": "each request is for one answer",
    "stream": "answers are read as a whole",
    "max_completion_tokens": "set max_tokens in the sampling of each stage",
} | dict.fromkeys(
    "max_tokens temperature top_p top_k min_p presence_penalty frequency_penalty repetition_penalty stop".split(),
    _SAMPLING,
)


class ScriptedSettings(Settings):
    """The engine of the tests: answers computed from the request. Needs no model."""

    capacity: int = Field(16, ge=1)
    """Requests held at once by one engine."""
    delay_s: float = Field(0.0, ge=0)
    """Longest pause before an answer, in seconds; each request has its own share of it."""
    call_log: str | None = None
    """A file to which the key of each request is appended as it is asked."""
    on_ray: bool = False
    """Actors on the Ray cluster, as vLLM's engines are; else in this process, without Ray."""
    load_s: float = Field(0.0, ge=0)
    """How long an actor takes to be ready, in seconds."""


class EndpointSettings(Settings):
    """An OpenAI-compatible server: vLLM's own, or any other. Needs neither Ray nor vLLM here."""

    base_url: str | None = None
    """Where its API begins, "/v1" included: "http://127.0.0.1:8000/v1". No key in it."""
    api_key_env: str = "OPENAI_API_KEY"
    """The environment variable that holds the key; none is sent where it is not set."""
    concurrency: int = Field(64, ge=1)
    """Requests in flight at once."""
    timeout_s: float = Field(600.0, gt=0)
    """How long one request may take, in seconds, before it is asked again."""
    attempts: int = Field(8, ge=1)
    """How often one request is asked, over time-outs, 5xx and cut connections, before the run stops with 75. A 429
    counts only where nothing has been answered since this request's last try."""
    extra_body: dict[str, Any] = Field(default_factory=dict)
    """Fields of the server's own for every request, as they are. They count as changing rows."""

    @field_validator("base_url", mode="before")
    @classmethod
    def _read_address(cls, value: Any) -> Any:
        if value is None or (isinstance(value, str) and re.fullmatch(r"https?://[^\s@?#]+", value)):
            return value
        raise ValueError(  # which shows no value: it may hold a password
            "must be an http(s) address without user, password or query, such as "
            '"http://127.0.0.1:8000/v1"; a key comes from the environment'
        )

    @field_validator("api_key_env", mode="before")
    @classmethod
    def _read_variable(cls, value: Any) -> Any:
        if isinstance(value, str) and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
            return value
        raise ValueError(  # which shows no value: it may be the key
            'must be the name of an environment variable that holds the key, such as "OPENAI_API_KEY", and not the key'
        )

    @field_validator("extra_body")
    @classmethod
    def _leave_ours(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if name in _OWN_FIELDS:
                raise ValueError(f"must not hold {name!r}; {_OWN_FIELDS[name]}")
        return value


class EngineSettings(Settings):
    """What answers requests."""

    kind: Literal["vllm", "openai", "scripted"] = "vllm"
    """`vllm`: Ray actors, on GPUs or CPUs. `openai`: an OpenAI-compatible server. `scripted`: the tests' fake."""
    model: str | None = None
    """A model folder, a name on the Hugging Face hub, "shipped:embedded" (the demo's), or an endpoint's model."""
    revision: str | None = None
    """Branch, tag or commit of a model on the hub."""
    style: Style | None = None
    """`chat`: an instruct model, through its chat template. `completion`: a base model, the paper's way. Unless set:
    chat where the model has a chat template, and at an endpoint."""
    system: str | None = None
    """Chat style: a system message for every request, where the template takes one."""
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Chat style: variables of the chat template. Thinking is off where the template knows it, unless set here."""
    count: int = Field(1, ge=1)
    """Engines, each in an actor of its own; the cluster must have room for all of them. An endpoint is one."""
    min: int | None = Field(None, ge=0)
    """In place of `count`: engines that the cluster must have room for when the run starts; 0 leaves that to an
    autoscaler."""
    max: int | None = Field(None, ge=1)
    """In place of `count`: engines at most. Each serves from when it is ready; those without room ask for nodes."""
    num_gpus: int = Field(1, ge=0)
    """GPUs of one engine: tensor parallel over them. 0 runs it on the CPU."""
    num_cpus: int = Field(1, ge=1)
    """CPUs of one engine; on the CPU, its threads."""
    cpu_kv_cache_gib: float = Field(1.0, gt=0)
    """Memory for the KV cache of an engine on the CPU, in GiB."""
    resources: dict[str, float] = Field(default_factory=dict)
    """Custom resources of the Ray cluster that one engine takes, as they are named there."""
    start_timeout_s: float = Field(900, gt=0)
    """How long an engine may take to load, and the run be without any that is ready, before it stops with 75."""
    room_timeout_s: float = Field(3600, gt=0)
    """The same while no engine has its room on the cluster: how long an autoscaler, or a spot market, may take."""
    silent_timeout_s: float = Field(120, ge=5)
    """An engine process that has not answered for so long is killed and replaced. One at work may gather for 3."""
    stall_timeout_s: float = Field(300, gt=0)
    """One that answers but has made no token for so long, with requests on it, is killed and replaced too."""
    vllm: dict[str, Any] = Field(default_factory=dict)
    """vLLM's own engine options under vLLM's names (max_model_len, max_num_seqs, dtype, quantization, ...)."""
    openai: EndpointSettings = EndpointSettings()
    """The endpoint."""
    scripted: ScriptedSettings = ScriptedSettings()
    """Options of the scripted engine."""

    @model_validator(mode="after")
    def _read_options(self) -> EngineSettings:
        seqs = self.vllm.get("max_num_seqs", 1)
        if type(seqs) is not int or seqs < 1:
            raise ValueError(f"vllm.max_num_seqs must be a whole number of at least 1, not {seqs!r}")
        if self.kind == "openai" and self.openai.base_url is None:
            raise ValueError('openai.base_url is missing: name the endpoint, as "http://127.0.0.1:8000/v1"')
        if self.kind == "openai" and (self.count, self.min, self.max) != (1, None, None):
            raise ValueError(
                "count, min and max are for engines on Ray; an endpoint is one, and takes openai.concurrency requests"
            )
        if (self.min is None) != (self.max is None):
            raise ValueError("min and max go together: give both, or count alone")
        if self.max is not None and "count" in self.model_fields_set:
            raise ValueError("count and max both say how many engines: give count, or min and max")
        if self.least > self.most:
            raise ValueError(f"min ({self.min}) must not be above max ({self.max})")
        return self

    @property
    def least(self) -> int:
        """Engines that must find room when the run starts."""
        return self.count if self.min is None else self.min

    @property
    def most(self) -> int:
        """Engines that the run may have."""
        return self.count if self.max is None else self.max

    @property
    def on_ray(self) -> bool:
        """Whether its engines are actors on the Ray cluster."""
        return self.kind == "vllm" or (self.kind == "scripted" and self.scripted.on_ray)

    @property
    def max_num_seqs(self) -> int:
        """Sequences one engine decodes at once (vLLM's `max_num_seqs`; 256 unless set)."""
        return int(self.vllm.get("max_num_seqs", 256))

    @property
    def batch(self) -> int:
        """Requests that one engine decodes at once."""
        return self.scripted.capacity if self.kind == "scripted" else self.max_num_seqs

    @property
    def slots(self) -> int:
        """Requests that one engine holds: 1.5 x max_num_seqs, so that the next ones wait inside the engine."""
        if self.kind == "scripted":
            return self.scripted.capacity
        return self.openai.concurrency if self.kind == "openai" else math.ceil(1.5 * self.max_num_seqs)
