"""The values that flow through a run: frozen, typed, and free of storage concerns.

    Seed -> Request -> Completion -> Candidate -> Example | Reject

A record holds content only. Times, hosts, retry counts and arrival order never enter one, so the same completions give
the same rows whatever happened on the way (design, invariant 4).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Stage(StrEnum):
    """Where in the method something happened."""

    BOOTSTRAP = "bootstrap"
    FILTER = "filter"
    NOVELTY = "novelty"
    GATE = "gate"
    CLASSIFICATION = "classification"
    INSTANCES = "instances"
    OUTPUT = "output"  # chat style: the answer to one instruction with its input
    AUGMENTATION = "augmentation"  # backtranslation: the instruction for a text
    RATIONALE = "rationale"  # backtranslation: the judge's reason, where it is asked for one before the score
    CURATION = "curation"  # backtranslation: the score of a pair


class Reason(StrEnum):
    """Why something was refused. Every reject carries exactly one."""

    # The whole unit, before the gate.
    REQUEST_REFUSED = "request_refused"  # the engine refused the request: it is too long, or malformed
    ENGINE_KILLED = "engine_killed"  # an engine died while this request was alone on it
    RESPONSE_TRUNCATED = "response_truncated"  # compat: a response cut at max_tokens loses all of its items
    NO_INSTRUCTION_PARSED = "no_instruction_parsed"  # chat: a reply with no list in it
    THOUGHT_UNCLOSED = "thought_unclosed"  # chat: the answer ended inside its thinking block (of any stage)
    # One parsed instruction, in the paper's order.
    ITEM_TRUNCATED = "item_truncated"  # the last item of a response cut at max_tokens
    EMPTY = "empty"
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    BLACKLISTED_WORD = "blacklisted_word"
    WRITE_A_PROGRAM = "write_a_program"
    PUNCTUATION_FIRST = "punctuation_first"
    NON_ASCII_FIRST = "non_ascii_first"
    NO_TOKENS = "no_tokens"  # the novelty tokeniser finds nothing in it: it could not be compared
    OWN_FILTER = "own_filter"  # a filter given from Python; the detail is its word
    NOT_NOVEL = "not_novel"
    TARGET_REACHED = "target_reached"
    # One instance of an admitted instruction.
    INSTANCE_TRUNCATED = "instance_truncated"
    INPUT_EQUALS_OUTPUT = "input_equals_output"
    EMPTY_OUTPUT = "empty_output"
    REFUSAL = "refusal"  # the output declines the task
    ENDS_WITH_COLON = "ends_with_colon"
    CONFLICTING_INSTANCES = "conflicting_instances"
    DUPLICATE_INSTANCE = "duplicate_instance"
    OVER_INSTANCE_LIMIT = "over_instance_limit"
    # The closing reject of an admitted instruction that ends with no row.
    CLASSIFICATION_UNPARSED = "classification_unparsed"  # an answer that is neither yes nor no
    NO_INSTANCE_PARSED = "no_instance_parsed"
    NO_INSTANCE_KEPT = "no_instance_kept"
    # Backtranslation: one instruction written for a segment (beside EMPTY, TOO_LONG, REFUSAL and the gate's).
    ECHOES_PROMPT = "echoes_prompt"
    ECHOES_TEXT = "echoes_text"
    REFERS_TO_TEXT = "refers_to_text"  # "the passage above": its reader has none
    SEVERAL_INSTRUCTIONS = "several_instructions"
    # Backtranslation: one pair, scored.
    LOW_SCORE = "low_score"  # under curation.min_score
    NOT_A_SCORE = "not_a_score"  # the judge was not about to give a score: its mass is under curation.min_mass


class Unfit(StrEnum):
    """Why a piece of a corpus is no segment. A corpus can hold millions of these, so they are counted and not kept."""

    # A whole document.
    NOT_TEXT = "not_text"  # binary, or in an encoding that cannot be told
    TOO_LARGE = "too_large"  # above corpus.max_document_mib
    MALFORMED = "malformed"  # a line that is not JSON, a row without the field, or whose field holds no text
    # One segment.
    HEADER_EMPTY = "header_empty"
    HEADER_UPPER_CASE = "header_upper_case"
    HEADER_NAVIGATIONAL = "header_navigational"
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    REPEATED_SENTENCES = "repeated_sentences"
    DUPLICATE = "duplicate"
    NEAR_DUPLICATE = "near_duplicate"


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of unlabelled text, to become the output of a pair.

    `id` says where in the corpus it is ("guide.md#3", "pages.jsonl#17"), `origin` where it is from in words (its
    headers from the top, or the row's own address). `header` is None in a corpus without headers; it is not part of
    `text`.
    """

    id: str
    origin: str
    header: str | None
    text: str


@dataclass(frozen=True, slots=True)
class Source:
    """Where a row's output comes from: a segment's id and origin."""

    id: str
    origin: str


@dataclass(frozen=True, slots=True)
class Score:
    """What one judge gave one pair in one round.

    `score` is 1 to 5 and `expected` the mean of 1 to 5 by their probabilities, both None where the judge is not
    believed. `mass` is the probability, unconstrained, of 1 to 5 together; None where an endpoint gives none.
    """

    judge: str
    round: int
    score: int | None
    expected: float | None
    mass: float | None


@dataclass(frozen=True, slots=True)
class Instance:
    """One input and output pair of a task; `input` is "" for a task that needs none."""

    input: str
    output: str


@dataclass(frozen=True, slots=True)
class Seed:
    """A hand-written task of the seed file (Self-Instruct's schema)."""

    id: str
    instruction: str
    instances: tuple[Instance, ...]
    is_classification: bool


@dataclass(frozen=True, slots=True)
class Sampling:
    """Every decoding knob of a request, by vLLM's names. None is left to an engine's default."""

    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    presence_penalty: float
    frequency_penalty: float
    repetition_penalty: float
    stop: tuple[str, ...]


@dataclass(frozen=True, slots=True, order=True)
class RequestKey:
    """What a request is for. Unique within a run; sorts by unit, then by the method's own order."""

    unit: int
    stage: Stage
    candidate: int = 0
    sample: int = 0
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat. `role` is "system", "user" or "assistant"."""

    role: str
    content: str


Prompt = str | tuple[Message, ...]
"""What a model is sent: a text to go on with (completion style), or the turns of a chat up to the user's last."""


@dataclass(frozen=True, slots=True)
class Request:
    """One call of a model. With `choices` the answer is constrained in decoding to one of them.

    With `weigh` it is one step over choices that are single tokens there, and the answer tells how probable each was
    (backtranslation's 1 to 5). A completion's prompt then ends in `lead`, such as "Score:"; in a chat the answer begins
    with it. `base` asks the model without the engine's LoRA adapter.
    """

    key: RequestKey
    prompt: Prompt
    sampling: Sampling
    choices: tuple[str, ...] = ()
    weigh: bool = False
    lead: str = ""
    base: bool = False


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model answered. `finish_reason` is "stop" or "length"; tokens are counted by the engine.

    The answer to a chat may begin with a thinking block, "<think>...</think>"; an engine restores its opening tag where
    the chat template wrote it. What a recipe gets has no such block (`pipeline/unit.py`).

    `probabilities`, of a weighed request alone: that of each choice, in their order, as the model had it before any
    constraint; empty where the engine cannot tell.
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    probabilities: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A parsed instruction on its way to the pool. `index` is its place in the response of its unit."""

    unit: int
    index: int
    instruction: str
    parents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Nearest:
    """The most similar instruction held, by id, and the ROUGE-L F to it, which is at least `novelty.floor`."""

    id: str
    score: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """The gate's answer to one candidate: admitted when `reason` is None."""

    candidate: Candidate
    nearest: Nearest | None
    reason: Reason | None = None

    @property
    def admitted(self) -> bool:
        return self.reason is None


@dataclass(frozen=True, slots=True)
class Pair:
    """A pair of a finished run, with what it holds beside them, to be scored again.

    `fields` are the columns of its row that a new score does not change, by name. `kept_out` is the reason it stays
    refused for whatever its score: near another pair, which was kept.
    """

    id: str
    instruction: str
    output: str
    scores: tuple[Score, ...]
    fields: dict[str, Any]
    kept_out: Reason | None = None


@dataclass(frozen=True, slots=True)
class Admitted:
    """One row of `pool/`: an instruction that demonstrations may be drawn from."""

    instruction_id: str
    instruction: str
    unit: int
    parents: tuple[str, ...]
    is_classification: bool | None
    nearest_id: str | None
    nearest_score: float | None


@dataclass(frozen=True, slots=True)
class Example:
    """One row of `data/`: an accepted instruction with one of its instances."""

    id: str
    instruction_id: str
    instruction: str
    input: str
    output: str
    unit: int
    is_classification: bool | None
    parents: tuple[str, ...]
    nearest_id: str | None
    nearest_score: float | None
    prompt_hashes: tuple[str, ...]
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    score: int | None = None
    score_expected: float | None = None
    score_mass: float | None = None
    scores: tuple[Score, ...] = ()
    source: Source | None = None
    recipe: str | None = None  # None: the run's own
    model: str | None = None  # None: the run's own


@dataclass(frozen=True, slots=True)
class Reject:
    """One row of `rejected/`: what was refused, where and why, with the text it was refused for.

    `instruction_id` is None for a whole unit that failed, and `id` is set for an instance only. An admitted
    instruction that ends with no row has exactly one reject with an `instruction_id` and no `id` (its closing reject).
    """

    unit: int
    stage: Stage
    reason: Reason
    detail: str = ""
    text: str = ""
    id: str | None = None
    instruction_id: str | None = None
    instruction: str | None = None
    input: str | None = None
    output: str | None = None
    is_classification: bool | None = None
    parents: tuple[str, ...] = ()
    nearest_id: str | None = None
    nearest_score: float | None = None
    prompt_hashes: tuple[str, ...] = ()
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    score: int | None = None
    score_expected: float | None = None
    score_mass: float | None = None
    scores: tuple[Score, ...] = ()
    source: Source | None = None
    recipe: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Calls and tokens of one stage, as the engine counted them."""

    stage: Stage
    calls: int
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class UnitResult:
    """All that one unit of work came to. Whole by construction: it is committed as one piece or not at all."""

    unit: int
    candidates: int = 0  # parsed instructions, refused ones included
    instances: int = 0  # parsed instances, refused ones included
    demonstrations: int = 0  # shown in its bootstrap prompt
    machine_made: int = 0  # of these, admitted instructions
    admitted: tuple[Admitted, ...] = ()
    examples: tuple[Example, ...] = ()
    rejects: tuple[Reject, ...] = ()
    usage: tuple[Usage, ...] = ()
