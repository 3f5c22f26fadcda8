"""Reading the instruction that a model wrote for a text, and the rules on it.

A model wraps what it was asked for: "Sure! Here is ...:", a label, quotes, a code fence, a remark at the end. The
parser takes the instruction and leaves the wrapping; it only ever takes away. The rules then refuse what cannot be the
instruction of that text. Both know English only, and in doubt they let an instruction pass: the judge comes after them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from pipeline.backtranslation_settings import AugmentationSettings
from pipeline.filters import Refusal, is_refusal
from pipeline.records import Reason

WordRuns = frozenset[tuple[str, ...]]
"""Every run of so many words that some texts hold."""

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_ASCII_WORDS = {code: " " for code in range(128) if not chr(code).isalnum() and chr(code) != "'"}

# Wrapping.

_ASKED = r"(?:instruction|prompt|request|question|task|query|command)"
_KIND = r"(?:the|an?|one|user|user['’]s|possible|potential|suggested|suitable|likely|original|final|last|new)"
# "Instruction:", "**Possible prompt 1:**", "### Task: "; without a colon only as a heading or in bold.
_LABEL = re.compile(
    rf"(?i)[ \t]*(?:#{{1,6}}[ \t]+)?(?P<open>[*_]{{0,3}})(?:{_KIND}[ \t]+){{0,3}}"
    rf"(?P<word>{_ASKED}|user|human|(?:option|alternative)(?=[ \t]+#?[\dA-E]\b))s?(?:[ \t]*#?(?:\d{{1,2}}|[A-E]))?"
    r"(?:(?P=open)[ \t]*:|:(?P=open))[ \t]*"
)
_TITLE = re.compile(
    rf"(?i)(?:#{{1,6}}[ \t]+|(?P<bold>\*\*))(?:{_KIND}[ \t]+){{0,3}}{_ASKED}s?(?(bold)\*\*)[ \t]*(?=\n|$)"
)
_SURE = re.compile(
    r"(?i)(?:sure(?: thing)?|certainly|of course|absolutely|okay|got it|great|no problem)(?:[!.]\s+|,\s+(?=here\b))"
)
_PHRASE = r"[^\n:.!?]{0,100}?"
# The line before the instruction. It names what is to come: a person may well begin with "Here is my list:".
_PREAMBLE = re.compile(
    rf"(?i)[*_]*(?:here(?:['’]s| is| are)\b{_PHRASE}\b(?:{_ASKED}|option|alternative|possibilitie)s?\b{_PHRASE}"
    rf"|(?:(?:based on|given|for) (?:the|this)\b{_PHRASE}\btext|the|an?|one|some|possible|my|i would|i['’]d)\b{_PHRASE}"
    rf"\b(?:(?:instruction|prompt)s?\b{_PHRASE}\b(?:is|are|be|was|were|like this|as follows)"
    rf"|(?:question|request|task|query)\b{_PHRASE}\b(?:could|would|might|may|must|likely|probably|text))\b{_PHRASE}"
    rf"|(?:instruction|prompt) (?:that|which|for|to)\b{_PHRASE}\b(?:text|answer|response)\b{_PHRASE}"
    rf"|(?:the|an?) (?:person|user) (?:could|might|may|would|must|probably) {_PHRASE}):[*_]*\s*"
)
# Where a completion goes on with the next text, or does the task itself.
_RUN_ON = re.compile(r"\n(?:(?:Text|Instruction|Answer|Output|Response|Score):|={8})")
# A paragraph about the instruction: who asks for something does not speak of "this instruction". A person may well go
# on with "I tried ...", "This question is for ..." or "Feel free to use ...".
_ABOUT = (
    r"(?:asks?|would|could|stands|allows|captures|covers|matches|fits|invites|encourages|reflects|directly|aims|prompts"
    r"|focuses|leads)\b"
)
_PRAISE = rf"(?:{_ABOUT}|(?:is|can|does|should)\b)"
_REMARK = re.compile(
    rf"(?i)\n[ \t]*\n[\s(*_>#-]*(?:this (?:request|question|task) {_ABOUT}|this (?:instruction|prompt) {_PRAISE}"
    rf"|the (?:instruction|prompt) (?:above )?{_PRAISE}|this (?:would|could|way)\b[^\n]*\b(?:prompt|text|assistant)\b"
    r"|let me know if\b|(?:i )?hope (?:this|that|it)\b|feel free to (?:ask|modify|adjust|change|adapt|edit|let|reach)\b"
    r"|is there anything else i\b|would you like me\b"
    r"|(?:i(?:['’]ve| have)?|(?:please )?note)\b[^\n]*\b(?:instruction|prompt)\b"
    r"|(?:explanation|rationale|reasoning|reason|why this works|answer|response|assistant)[*_]*:)"
)
_REMARK_ON_THE_LINE = re.compile(rf"(?<=[.?!\"”*])[ \t]+\(?This (?:instruction|prompt) {_PRAISE}")
_RULES = re.compile(r"(?:[-*_=][ \t]*){3,}\n|\n[ \t]*(?:[-*_=][ \t]*){3,}$")
_TAG = re.compile(r"(?is)<(instruction|prompt|request|question|task|query|user)>(.*)</\1>")
_FENCE = re.compile(r"(?s)(`{3,}|~{3,})[\w+-]*\n(.*?)(?:\n?\1|$)")
_MARKED = re.compile(r"(?s)(\*{1,3}|_{1,3}|`{1,3})(?=\S)(.*\S)\1")
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "„": "“", "«": "»"}

# More than one instruction.

_ITEM = re.compile(r"[ \t]*(?:[*_]{0,2}\(?(?P<number>\d{1,2})[.)][*_]{0,2}|(?P<bullet>[-*•]))[ \t]+")
_INLINE = re.compile(r"(?s)\(?1[.)]\s.+[.?!;,]\s+\(?2[.)]\s")
_QUOTED_LINE = re.compile(r'["“][^"“”]+["”][.,;]?')
_EITHER = re.compile(r'(?s)["“][^"“”]+["”][.,;]?\s+or:?\s+["“]')
_ANOTHER = re.compile(
    r"(?im)^[\s>*_#-]*(?:or[*_]*(?::|$)"
    r"|alternative(?:ly)?[*_]*(?::|$|,? (?:you|one) (?:could|might|can) (?:ask|say|write))"
    rf"|another (?:possible |suitable )?(?:{_ASKED}|option|possibility|way)\b[^\n:]{{0,60}}:"
    r"|(?:possible )?instruction(?: #?\d{1,2})?[*_]*:)"
)


def parse_instruction(text: str, *, chat: bool) -> str:
    """The instruction of an answer, without what the model wrapped around it; "" where there is none.

    Its own line breaks and Markdown stay. Several instructions stay together: refusing them is the rules' affair. In
    completion style what follows in the form of the prompt, such as the next text, is cut off.
    """
    text = _tidy(text)
    while (bare := _unwrapped(text, chat)) != text:
        text = bare
    return text


def _tidy(text: str) -> str:
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in lines)).strip()


def _unwrapped(text: str, chat: bool) -> str:
    """One layer of wrapping less, or the same text."""
    if not chat:
        text = _RUN_ON.split(text, maxsplit=1)[0]
    for remark in (_REMARK, _REMARK_ON_THE_LINE):
        text = remark.split(text, maxsplit=1)[0]
    for lead in (_RULES, _SURE, _PREAMBLE, _TITLE):
        if found := lead.match(text):
            text = text[found.end() :].lstrip()
    if "\n" in text and _RULES.search(text, text.rfind("\n")):
        text = _RULES.sub("", text)
    if not has_several(text):
        for mark in (_LABEL, _ITEM):
            if found := mark.match(text):
                text = text[found.end() :]
    if all(line.startswith(">") for line in text.split("\n")):
        text = "\n".join(line[1:] for line in text.split("\n"))
    for pair in (_TAG, _FENCE, _MARKED):
        found = pair.fullmatch(text)
        if found and (pair is _TAG or found[1] not in found[2]):
            text = found[2]
    return _tidy(_unquoted(text))


def _unquoted(text: str) -> str:
    """Without quotes around all of it; an apostrophe in a word is no quote."""
    if len(text) < 2 or _QUOTES.get(text[0]) != text[-1]:
        return text
    inner = text[1:-1]
    return text if {text[0], text[-1]} & set(re.sub(r"(?<=\w)['’](?=\w)", "", inner)) else inner


def has_several(text: str) -> bool:
    """Whether a parsed answer holds several instructions or alternatives, and not one with a list of requirements.

    One that asks for something and then lists has words before its list; several are a list from the first line on.
    """
    lines = [line for line in text.split("\n") if line.strip()]
    if _INLINE.match(text) or _EITHER.match(text) or (len(lines) > 1 and all(map(_QUOTED_LINE.fullmatch, lines))):
        return True
    if lines and (label := _LABEL.match(lines[0])):
        others = filter(None, map(_LABEL.match, lines[1:]))
        return any(other["word"].lower() == label["word"].lower() for other in others)
    if lines and (item := _ITEM.match(lines[0])):
        marks = filter(None, map(_ITEM.match, lines[1:]))
        if any(mark.lastgroup == item.lastgroup and not mark[0][0].isspace() for mark in marks):
            return True
    first = _ANOTHER.search(text)
    return first is not None and first.start() > 0


# Rules.


def refusal(
    instruction: str, text: str, *, settings: AugmentationSettings, prompt_runs: WordRuns, truncated: bool
) -> Refusal | None:
    """Why a parsed instruction cannot be that of `text`, or None. `prompt_runs` are those of the prompt's own words."""
    if not any(map(str.isalnum, instruction)):
        return Refusal(Reason.EMPTY)
    if truncated:
        return Refusal(Reason.TOO_LONG, f"cut at augmentation.sampling.max_tokens = {settings.sampling.max_tokens}")
    if (words := len(instruction.split())) > settings.max_words:
        return Refusal(Reason.TOO_LONG, f"{words} words")
    if is_refusal(instruction) and not _ASKS_TO_BE_HELPED.match(instruction):
        return Refusal(Reason.REFUSAL)
    if has_several(instruction):
        return Refusal(Reason.SEVERAL_INSTRUCTIONS)
    asked = _words(instruction)
    if echo := _echo(asked, prompt_runs, settings.echo_words):
        return Refusal(Reason.ECHOES_PROMPT, echo)
    if echo := _echo_of_text(asked, text, settings.echo_words):
        return Refusal(Reason.ECHOES_TEXT, echo)
    if reference := _reference(instruction):
        return Refusal(Reason.REFERS_TO_TEXT, reference)
    return None


# A person's "Could you share some tips so I can sleep better?", which an assistant would ask of its user otherwise.
_ASKS_TO_BE_HELPED = re.compile(
    r"(?is)(?:please|could you|can you)\b(?!.*\b(?:like|want) me to\b)(?!.*\b(?:text|passage|instructions?)\b)"
)


def word_runs(texts: Iterable[str], length: int) -> WordRuns:
    """All runs of `length` words within one of the texts, in lower case."""
    return frozenset(run for text in texts for run in _runs(_words(text), length))


def _words(text: str) -> list[str]:
    text = text.lower().replace("’", "'")
    if not text.isascii():
        return _WORD.findall(text)
    parts = text.translate(_ASCII_WORDS).split()  # a quarter of the time
    if "'" not in text:
        return parts
    return [word for part in parts for word in ((part,) if part.isalnum() else _WORD.findall(part))]


def _runs(words: list[str], length: int) -> Iterable[tuple[str, ...]]:
    return zip(*(words[start:] for start in range(length)), strict=False)


def _echo(asked: list[str], runs: WordRuns, length: int) -> str:
    """The first run of an instruction's words that is one of these, or ""."""
    return next((" ".join(run) for run in _runs(asked, length) if run in runs), "")


def _echo_of_text(asked: list[str], text: str, length: int) -> str:
    """The first run of an instruction's words that is one of this text, or ""."""
    lowered = text.lower().replace("’", "'")
    # A run of so many words holds one of these. Few instructions have so many in a row that stand in the text at all:
    # it is cut into words for these alone, and searched as one string, since all its runs would be hundreds.
    if not any(map(lowered.__contains__, asked[length - 1 :: length])):
        return ""
    there = "".join("x" if word in lowered else " " for word in asked)
    if "x" * length not in there:
        return ""
    words = f" {' '.join(_words(text))} "
    runs = (" ".join(run) for run in _runs(asked, length))
    return next((run for run in runs if f" {run} " in words), "")


# References to a text that the reader does not have. `noun` is what is referred to.

_TEXT = (
    r"(?P<noun>text|passage|article|excerpt|extract|paragraph|document|essay|blog post|post|section|chapter|snippet"
    r"|content|material)s?"
)
_SHOWN = (
    r"(?P<noun>text|passage|article|excerpt|extract|paragraph|document|essay|blog post|post|section|chapter|snippet"
    r"|content|material|information|details|facts|data|context|code|list|table|examples?|story|poem|recipe|letter|email"
    r"|conversation|dialogue|interview|review|description|explanation|report|quote|tutorial|guide|lesson)s?"
)
_THIS = _SHOWN.replace("|information|details|facts|data|context", "").replace(
    "|list|table|examples?", "|page|web ?page"
)
# What a person may have at hand that is no text of ours: "the material to my students", "this section of the tax code".
_OF_ITS_OWN = r"(?!\s+(?:of (?:the|my|our|your)\b|to (?:my|our|the)\b))"
_WHOLE = r"(?P<noun>passage|article|excerpt|extract|blog post)s?"
# "the text" alone is also what a program or a page holds, so words must follow that end the thought.
_END = r"(?=\s*(?:[.,;:!?)]|$)|\s+(?:above|below|and|about|provided|given)\b)"
_LENGTH = (
    r"(?=\s+(?:in (?:your|one|two|three|four|five|\d+|a (?:few|single|short)|plain|simple|bullet)|into|for|to|as|using)"
    r"\b)"
)
_THE = r"\b(?:the|this|that)"
_TOLD = (
    r"(?:mentioned|described|discussed|explained|presented|outlined|provided|given|stated|listed|covered|introduced"
    r"|highlighted|referred to|defined|depicted|portrayed|addressed|raised|expressed|contained|found|noted|shown)"
)
_TELLS = (
    r"(?:say|said|mention|describe|discuss|explain|state|suggest|argue|recommend|provide|list|refer|present|claim|talk"
    r"|cover|focus|compare|emphasi[sz]e|highlight|outline|mean|believe|think|view|opinion|advise|warn|conclude|give|offer|draw)(?:e?s|d|ed)?"
)
_WORK = (
    r"(?:summari[sz]e|paraphrase|proofread|rewrite|rephrase|translate|analy[sz]e|shorten|simplify|condense|edit|critique"
    r"|evaluate|continue|discuss|interpret|outline|explain|review)"
)
_MATTER = (
    r"(?:(?:main|key|central|important|major|primary|overall|most important|specific) )?(?:ideas?|points?|themes?"
    r"|topics?|arguments?|messages?|concepts?|takeaways?|purpose|subject|meaning|details|information|events|facts|steps"
    r"|examples?|contents?|context|guidelines|advice|data|explanation|description)"
)

# These may be followed by what they refer to ("Fix the following code: ...").
_POINTING = (
    rf"\bthe following (?:\w+[ -]){{0,2}}{_SHOWN}\b(?!-)",
    rf"{_THE} (?:\w+ )?{_SHOWN} below(?!\s+(?:the|an?|each|its|my|your|it)\b)",
    rf"\bthe (?:given|provided|supplied|attached|enclosed) (?:\w+ )?{_SHOWN}\b",
    rf"{_THE} {_SHOWN} (?:(?:that )?(?:you|i)(?:['’]ve| have)? (?:provided|given|gave|shared)"
    r"|(?:provided|given|supplied)(?! (?:by|to|on|at|for|with|as|in)\b))",
    rf"\b(?:this|these) {_THIS}\b{_OF_ITS_OWN}"
    r"(?![-’']|\s+(?:editor|type|style|format|box|field|message|file|base|generator|element)\b)",
    rf"\b{_WORK} the (?:{_MATTER} (?:of|in|from|(?:\w+ )?in) the )?{_TEXT}{_OF_ITS_OWN}(?:{_END}|{_LENGTH})",
    r"\b(?:summari[sz]e|rewrite|paraphrase|translate|proofread) this(?=\s*[.?!:]|$| for me\b)",
    rf"\b(?:read|reading|review|examine|consider) the {_TEXT}(?=\s*[.,:;]|\s+(?:and|carefully|then|to answer)\b|$)",
    r"\byou(?:['’]re| are| will be| have been) (?:given|provided with|presented with|shown) (?:an?|the) (?:\w+ )?"
    rf"{_TEXT}",
)
_REFERRING = (
    r"\b(?:the|as) above\b(?!-)|\babove[- ]mentioned\b",
    rf"{_THE} (?:\w+ )?{_SHOWN} above(?!\s+(?:the|an?|each|its|my|your|it)\b)",
    rf"\b(?:the|this) (?:preceding|previous|aforementioned|foregoing) (?:\w+ )?{_TEXT}\b",
    rf"\b{_TOLD} (?:above|below|earlier|previously)(?!\s+(?:the|an?|this|by)\b)",
    rf"\b(?:according to|based (?:\w+ )?(?:up)?on|as {_TOLD} (?:in|by)|per|referring to|refer to|using only) "
    rf"(?:the {_MATTER} (?:\w+ )?(?:in|from|of) )?(?:the|this) (?:(?:given|provided|above|original) )?{_TEXT}{_END}",
    rf"\b(?:according to|as {_TOLD} by) the (?P<noun>author|writer|narrator){_END}",
    rf"\b{_TOLD} (?:in|by|throughout|within) (?:the|this) (?:\w+ )?{_TEXT}(?:{_END}|(?=\s+(?:for|as)\b))",
    r"\bin (?:listing|figure|table) \d",
    rf"\busing the {_TEXT} (?:as (?:an?|the)|to answer)\b",
    rf"\b(?:in|from|of|throughout|for|by|within) the (?:given |provided |original )?{_WHOLE}{_END}",
    rf"\b(?:the|this) {_TEXT} {_TELLS}\b",
    rf"\b{_MATTER} (?:of|in|from) (?:the|this) {_TEXT}(?:{_END}|(?=\s+to answer\b))",
    rf"\b(?:what|who)(?:['’]s| is| are) (?:the|this) {_TEXT} about\b",
    rf"\bdoes the (?P<noun>author|narrator) {_TELLS}\b",
    r"\bthe author['’]s (?:main|view|opinion|argument|point|message|tone)\b",
    r"\b(?:title|headline|summary|questions?|quiz|conclusion|ending|abstract) (?:for|about|of|to|on|from) "
    rf"the {_TEXT}{_END}",
    rf"(?:^|[.!?]\s+)given the {_TEXT}{_END}",
)
# Each of these expressions needs one of some words. Most instructions hold few of these, and are not searched 30 times.
_NOUNS = {
    part: frozenset(re.findall(r"[a-z]+", part.partition(">")[2].removesuffix("s?").replace("s?", "")))
    for part in (_TEXT, _SHOWN, _THIS, _WHOLE)
}
_OTHERS = frozenset("this above below earlier previously author writer narrator listing figure table".split())
_HINTS = _OTHERS.union(*_NOUNS.values())


def _needs(pattern: str) -> frozenset[str]:
    return next((words for part, words in _NOUNS.items() if part in pattern), _OTHERS)


# Each with the words it needs, and whether it points.
_REFERENCES = [
    (_needs(pattern), re.compile(f"(?i){pattern}"), points)
    for patterns, points in ((_REFERRING, False), (_POINTING, True))
    for pattern in patterns
]

# What excuses a reference: the instruction brings the text along, is about code that gets one, or names a known work.
_BROUGHT = re.compile(r"```|[\"“][^\"”]{40,}[\"”]|:\s*\n+\s*(?![-*•\d])\S|\n\s*>")
_FOLLOWS = re.compile(r"[^.!?\n]*:\s*\S|\s*[\"“‘`]")
_CODING = re.compile(
    r"(?i)\b(?:write|create|implement|design|build|develop|define)\b[^.!?]{0,60}\b(?:function|program|script|method"
    r"|algorithm|class|regex|regular expression|query|command|macro|parser)\b"
)
_WORK_OF_ART = re.compile(r"[\"“‘*_]|\bby [A-Z]|\b(?i:novel|book|poem|play|film|memoir|autobiography)\b")


def _reference(instruction: str) -> str:
    """The words that refer to a text which the reader of this instruction does not have, or ""."""
    lowered = instruction.lower()
    there = {word for word in _HINTS if word in lowered} if instruction.isascii() else _HINTS
    if not there or _BROUGHT.search(instruction):
        return ""
    for needs, pattern, points in _REFERENCES:
        if not needs.isdisjoint(there):
            for found in pattern.finditer(instruction):
                if not _is_excused(found, points=points):
                    return found[0]
    return ""


def _is_excused(found: re.Match[str], *, points: bool) -> bool:
    before, after = found.string[: found.start()], found.string[found.end() :]
    if points and (_FOLLOWS.match(after) or _CODING.search(before)):
        return True
    noun = found.groupdict().get("noun")
    if noun is None:
        return "author" in found[0].lower() and _WORK_OF_ART.search(found.string) is not None
    if noun.lower() in ("author", "narrator") and not found[0].lower().startswith("according"):
        return _WORK_OF_ART.search(found.string) is not None
    # "Write an article ... The article should ...": it is the one that is asked for.
    introduced = (
        rf"(?i)\b(?:an?|one|two|three|\d+|your|my|our|each|every|any|some)\b[^.!?\n]{{0,60}}?\b{re.escape(noun)}"
    )
    return re.search(introduced, before) is not None
