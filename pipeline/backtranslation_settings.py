"""The settings of instruction backtranslation: corpus, self-augmentation, self-curation.

Each default has one home, here; it is the paper's (arXiv 2308.06259) wherever the paper states one.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pipeline.settings import SamplingSettings, Settings

# Headers of what is no text of a page's own (the paper names advertisement, forum, quick link and free newsletter). A
# word that may as well name a page's subject, such as "comments" or "index", is none.
NAVIGATIONAL = (
    "advertisement,advertisements,forum,forums,quick link,quick links,free newsletter,newsletter,subscribe,"
    "sign up,log in,login,navigation,table of contents,contents,quick search,this page,see also,related pages,"
    "related topics,related articles,share this,follow us,contact us,about us,leave a comment,previous topic,"
    "next topic,copyright,privacy policy,terms of use,cookies,sponsors"
).split(",")


class CorpusSettings(Settings):
    """Unlabelled text, and which pieces of it are segments (section 2.1 and appendix E)."""

    source: str | None = None
    """A file, a folder, a glob or an fsspec URL of .jsonl, .parquet, .txt, .md and .html files (.gz and its like too),
    or "dataset:NAME" for a data set of the Hugging Face hub or a folder that `datasets` reads."""
    field: str = "text"
    """The field that holds the text, in JSON lines, Parquet and data sets."""
    origin_field: str = "url"
    """A field that says where a row is from; rows without it do without."""
    subset: str | None = None
    """Of a data set: its configuration."""
    split: str = "train"
    """Of a data set: its split."""
    revision: str | None = None
    """Of a data set on the hub: branch, tag or commit."""
    min_characters: int = Field(600, ge=1)
    """Shortest segment, in characters."""
    max_characters: int = Field(3000, ge=1)
    """Longest segment, in characters. A section that is longer is cut at its lower headers."""
    repeated_sentences: float = Field(0.8, ge=0, le=1)
    """Refuse a segment with two sentences whose word trigrams have this Jaccard similarity or more; 0 turns it off."""
    headers: bool = True
    """Refuse headers that are empty, all in upper case, or navigational."""
    navigational: tuple[str, ...] = tuple(NAVIGATIONAL)
    """Headers that name no text of their own, in any case."""
    duplicates: bool = True
    """Refuse the text of an earlier segment, white space aside."""
    near_duplicates: float = Field(0.8, ge=0, le=1)
    """Refuse a segment whose MinHash says this Jaccard similarity to an earlier one, or more; 0 turns it off."""
    max_document_mib: float = Field(32.0, gt=0)
    """A file of text, or a row, larger than this is refused unread."""

    @model_validator(mode="after")
    def _some_length(self) -> CorpusSettings:
        if self.min_characters > self.max_characters:
            raise ValueError("min_characters must not be above max_characters")
        return self


class AugmentationSampling(SamplingSettings):
    """The paper's (section 3.1): nucleus sampling."""

    max_tokens: int = Field(256, ge=1)
    """Most tokens of one instruction."""
    temperature: float = Field(0.7, ge=0, le=2)
    """The paper's 0.7."""
    top_p: float = Field(0.9, gt=0, le=1)
    """The paper's 0.9."""
    stop: tuple[str, ...] = ("\n\n", "\nText:")
    """Completion style: a blank line, or the next text."""


class ChatAugmentationSampling(AugmentationSampling):
    """Chat style: the paper's, and the model ends its turn itself."""

    stop: tuple[str, ...] = ()
    """None."""


class AugmentationSettings(Settings):
    """Self-augmentation: an instruction for each segment (section 2.2)."""

    mode: Literal["prompted", "backward"] = "prompted"
    """`prompted`: any model, asked with demonstrations. `backward`: a model fine-tuned from text to instruction, which
    gets the text alone; with engine.vllm.lora_modules the adapter is the backward model and its base the judge."""
    n: int = Field(1, ge=1)
    """Instructions asked for each segment."""
    demonstrations: int = Field(3, ge=0)
    """Seeds shown, reversed: text, then instruction. The same in the whole run."""
    demonstration_characters: int = Field(600, ge=1)
    """A seed is shown only with an empty input and an output of at least this many characters."""
    max_words: int = Field(150, ge=1)
    """An instruction of more words is refused."""
    echo_words: int = Field(8, ge=2)
    """So many words in a row, of the text or of the prompt's own words, make an instruction an echo."""
    sampling: AugmentationSampling = AugmentationSampling()
    """How instructions are sampled."""


class RationaleSampling(SamplingSettings):
    """The judge's reason, before its score."""

    max_tokens: int = Field(128, ge=1)
    """Most tokens of the reason; the score comes after it however it ends."""
    temperature: float = Field(0.0, ge=0, le=2)
    """Greedy."""
    stop: tuple[str, ...] = ("Score:", "score:")
    """The score itself is a step of its own."""


class CurationSettings(Settings):
    """Self-curation: a score of 1 to 5 for each pair (section 2.3)."""

    mode: Literal["score", "rationale"] = "score"
    """`score`: one decoding step. `rationale`: the paper's way, a short reason and then the score."""
    min_score: int = Field(5, ge=1, le=5)
    """Pairs with this score or a higher one are accepted: the paper's k, 4 or 5."""
    min_mass: float = Field(0.5, ge=0, le=1)
    """Least probability of 1 to 5 together, unconstrained, for a score to be believed."""
    rationale_sampling: RationaleSampling = RationaleSampling()
    """How the reason is sampled."""


class TagSettings(Settings):
    """The paper's two system sentences, which tell seed rows from augmented ones in training (section 2.3, table 8)."""

    seed: str = "Answer in the style of an AI Assistant."
    """For seed pairs."""
    augmented: str = "Answer with knowledge from web search."
    """For the pairs of a run."""
