"""Parsers of what chat models send, one per prompt of `prompts/chat/`.

A chat model wraps what it was asked for: a preamble, Markdown, code fences, a remark at the end. These parsers take the
content and leave the wrapping. They never raise on text, and return nothing where there is nothing.
"""

from __future__ import annotations

import re
from itertools import pairwise

from pipeline.records import Instance

# A line of a reply, and whether it lies in a code fence that is content: no marker is looked for in it.
Line = tuple[str, bool]

_FENCE = re.compile(r"^(?P<before>|[^`~]*\s)(?P<mark>`{3,}|~{3,})(?P<info>[\w+#.-]*)\s*$")
_RULE = re.compile(r"\s*([-*_=])(?:[ \t]*\1){2,}\s*$")
_SECTION = re.compile(r"\s*(?:#{1,6}\s|\*\*[^*]+\*\*:?\s*$)")  # a heading, or a line that is bold as a whole

# A marker may stand behind an indent, a list number or bullet, a heading's marks and emphasis, which may end within it.
_STYLE = r"(?:#{1,6}[ \t]+)?(?P<open>\*{0,3})"
_LEAD = r"(?P<item>[ \t]*(?:(?:\d{1,3}[.)]|[-*•])[ \t]+)?)" + _STYLE
_COLON = r"[ \t]*#?\d{0,3}(?P=open)?[ \t]*(?::(?:\*+(?=\s|$)|(?P=open))?|$)"

# Four digits are a year, not the number of an item. A point or colon ends a number only before space, a letter, a quote
# or emphasis ("1.5", "9:30"), a dash only before space ("9-year-olds"). Without one, "Task 9" stands alone or is bold.
_WORD = r"(?:new[ \t]+)?(?:task|instruction|prompt|question|request)"
_NUMBERED = re.compile(
    rf"(?i)[ \t]*(?:[-*•][ \t]+)?{_STYLE}(?:"
    rf"(?:{_WORD}[ \t]*\#?|\#|\()?(?P<number>\d{{1,3}})(?P=open)?[ \t]*"
    r"(?:\\?[.):]\)?(?P=open)?(?=\s|$|[^\W\d_]|[\"“'‘`*])|[-–—](?P=open)?(?=\s))"
    rf"|(?:{_WORD}[ \t]*\#?(?=\d+\s*$|\d+\*)|\#)(?P<bare>\d{{1,3}})(?P=open)(?=\s|$))"
)
_BULLET = re.compile(r"(?P<open>)[ \t]*(?:[-*+–][ \t]+|•[ \t]*)(?=\S)")
_TASK_LABEL = re.compile(rf"(?i){_WORD}(?: ?#?\d+)? ?: ?")

# "Input" and "Output" keep their capital: "input:" is more often a line of someone's code or notes.
_PART = re.compile(
    _LEAD + rf"(?:(?P<input>(?:Example[ \t]*#?\d{{0,3}}[:.]?\**[ \t]+\**[Ii]nput|Input){_COLON})"
    rf"|(?P<output>(?:(?:Example|Expected)[ \t]+[Oo]utput|Output){_COLON})"
    r"|(?P<example>[Ee]xample[ \t]*#?\d{1,3}(?:[ \t]*\([^()]{0,80}\))?"
    r"(?:(?P=open)?[ \t]*(?:[:.)–—-](?P=open)?(?=\s|$)|$)|(?<=\d)\*+(?=\s))))"
)
# "Label:" alone is a marker only where no line says "Class label:".
_LABELS = tuple(re.compile(_LEAD + name + _COLON, re.IGNORECASE) for name in (r"class[ \t]+label", "label"))

_YES_NO = re.compile(
    r"(?i)(?:(?:(?:the )?(?:correct )?answer|classification)(?: is)?[\s*_`:\"'“‘]*)?"
    r"(yes|no)[*_`\"'”’)\]]*(?:\s*$|\s*[.,;:!–—\n]|\s+[-(]|\s+(?:it|this|because|since)\b)"
)
_NO_INPUT = re.compile(
    r"(?im)\W*(?:(?:none|no ?inputs?|not)(?: is)? (?:needed|required|necessary|applicable)\b"
    r"|(?:none|n/a|no ?inputs?)(?:\W*$|[^\w\s]+ (?:the|this|it|as|because)\b|\s+[(–—-])"
    r"|th(?:is|e) task (?:(?:needs|requires) no|does(?: not|n['’]t) (?:need|require)(?: any)?) (?:\w+ )?input)"
)
# A remark of the assistant: how it begins and, since content may begin so too, what it is about.
_REMARK = re.compile(
    r"(?i)[\W_]*(?=let me know|feel free|i hope|hope|would you like|if you|(?:please )?note|these|all|each).*?"
    r"\b(?:(?:these|them|more)\W*$|these (?:help|cover)\b"
    r"|(?:these|those|more|other|different|all|each) (?:\w+ ){0,2}(?:inputs?|examples?|labels?|tasks?)\b)"
)

# Emphasis is a pair that touches no letter, digit or backtick outside: `2**3` and `**kwargs` stay. Underscores around
# what has no space are a name: `__init__` stays.
_STARS = re.compile(r"(?<![0-9A-Za-z_*`])(\*{1,3})(?=[^\s*])([^*]+)(?<=\S)\1(?![0-9A-Za-z_*`])")
_UNDERSCORES = re.compile(r"(?<![0-9A-Za-z_`])(__?)(?=[^\s_])(?=[^_]* )([^_]+)(?<=\S)\1(?![0-9A-Za-z_`])")
_BACKTICKS = re.compile(r"(`+)([^`]+)\1")
_QUOTES = frozenset(['""', "''", "“”", "‘’", "„“", "«»"])


def parse_task_list(text: str) -> list[str]:
    """The instructions of a numbered list, or of a bulleted one where nothing is numbered; none where there is no list.

    White space is collapsed, Markdown and quotes around an item go, and the first letter is raised. An item may be
    empty: refusing it is the filters' affair.
    """
    for mark in (_NUMBERED, _BULLET):
        if items := _items(_read(text, mark), mark):
            return [_task(item, mark, last=item is items[-1]) for item in items]
    return []


def parse_yes_no(text: str) -> bool | None:
    """Read "is it classification?": True, False, or None where the answer does not begin with a clear Yes or No."""
    found = _YES_NO.match(text.rpartition("Is it classification?")[2].lstrip(" \t\r\n*_`#>\"'“‘(["))
    return found[1].lower() == "yes" if found else None


def parse_inputs(text: str) -> list[str]:
    """The inputs written for a task; [""] for a task that needs none, and [] where nothing can be used."""
    needs_none = _NO_INPUT.match(text.strip()) is not None
    inputs = _marked_inputs(_read(text, _PART), last=True)
    if not inputs and not needs_none:
        items = _items(_read(text, _NUMBERED), _NUMBERED)
        inputs = [_content(_opened(item, _NUMBERED), last=item is items[-1]) for item in items]
    concrete = [found for found in inputs if found and not _NO_INPUT.match(found)]
    return [""] if not concrete and (any(inputs) or needs_none) else concrete


def parse_labels(text: str) -> list[Instance]:
    """Instances of a classification task: a label on a marker's line and its input below."""
    for mark in _LABELS:
        lines = _read(text, mark)
        starts = [index for index, (line, hidden) in enumerate(lines) if not hidden and mark.match(line)]
        if starts and any(_part(line) == "input" for line in lines[: starts[0]]):
            return []  # the input stands above its label: reading on would give each input the label of another
        if starts:
            pieces = [lines[start:end] for start, end in pairwise([*starts, len(lines)])]
            return [found for piece in pieces for found in _labelled(_opened(piece, mark), last=piece is pieces[-1])]
    return []


def _read(text: str, mark: re.Pattern[str]) -> list[Line]:
    """The lines of a reply.

    A fence around the first marker is wrapping, and so is then each later fence that begins with a marker: their marks
    become blank lines, and what stands below the last is no content. Any other fence is content, if it is closed.
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    fences = _fences(lines)
    first = next((index for index, line in enumerate(lines) if mark.match(line)), -1)
    wrapped = any(start < first < end for start, end in fences)
    hidden: set[int] = set()
    bottom = len(lines)
    for start, end in fences:
        begin = next((line for line in lines[start + 1 : end] if line.strip()), "")
        if wrapped and (start < first < end or mark.match(begin)):
            lines[start] = lines[end] = ""
            bottom = end
        else:
            hidden.update(range(start + 1, end + 1))
    if not any(mark.match(line) for line in lines[bottom:]):
        del lines[bottom:]
    return [(line, index in hidden) for index, line in enumerate(lines)]


def _fences(lines: list[str]) -> list[tuple[int, int]]:
    """First and last line of each closed code fence; one may open at the end of a line ("Input: ```python")."""
    found: list[tuple[int, int]] = []
    start, opening = -1, ""
    for index, line in enumerate(lines):
        fence = _FENCE.match(line)
        if fence and not opening:
            start, opening = index, fence["mark"]
        elif fence and fence["mark"].startswith(opening) and not fence["before"].strip() and not fence["info"]:
            found.append((start, index))
            opening = ""
    return found


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _opened(lines: list[Line], mark: re.Pattern[str]) -> list[Line]:
    """The lines of an item without its marker, and without the indent that the lines below a list number share.

    Emphasis that opens before the marker and closes behind it is put back: the pair goes, or stays, as a whole.
    """
    line = lines[0][0]
    match = mark.match(line)
    if match is None:
        return lines
    rest = line[match.end() :].lstrip()
    if rest and match["open"] not in line[match.end("open") : match.end()]:
        rest = match["open"] + rest
    width = match.end("item") if mark is _PART else match.end() + 1
    cut = min([width, *(len(below) - len(below.lstrip(" ")) for below, _ in lines[1:] if below.strip())])
    return [(rest, False), *((below[cut:] if below.strip() else "", hidden) for below, hidden in lines[1:])]


def _items(lines: list[Line], mark: re.Pattern[str]) -> list[list[Line]]:
    """The items of a list, each with all lines down to the next. A marker further in than the first is in an item.

    Numbers rise, with gaps, or all repeat one (lazy Markdown); one further in opens an item after all if it is the next
    number. Numbers that start again lower are a list in the item if the line above ends in a colon or opens a fence, or
    if the outer list goes on later; below a heading they are the outer list's next section.
    """
    seen = [(index, line) for index, (line, hidden) in enumerate(lines) if not hidden and not _RULE.match(line)]
    found = {index: match for index, line in seen if (match := mark.match(line))}
    edge = _indent(lines[min(found)][0]) if found else 0
    inner = {index for index, match in found.items() if _indent(match.string) > edge}
    numbers = {} if mark is _BULLET else {index: int(m["number"] or m["bare"]) for index, m in found.items()}
    last_place = {number: index for index, number in numbers.items() if index not in inner}

    starts: list[int] = [] if numbers else sorted(found.keys() - inner)
    current, nested = -1, None
    for index, number in numbers.items():
        above = next((line for line, _ in lines[max(0, index - 4) : index][::-1] if line.strip()), "")
        announced = above.rstrip("*_ ").endswith(":") or _FENCE.match(above) is not None
        goes_on = last_place.get(current + 1, -1) > index
        if not starts:
            opens = True
        elif index in inner:
            opens = nested is None and number == current + 1
        elif nested is not None and number == nested + 1:
            opens = number > current and not goes_on
        elif number == current:
            opens = not (goes_on and announced)
        else:
            opens = number > current or _SECTION.match(above) is not None or not (goes_on or announced)
        starts += [index] if opens else []
        current, nested = (number, None) if opens else (current, number)
    return [lines[start:end] for start, end in pairwise([*starts, len(lines)])]


def _task(lines: list[Line], mark: re.Pattern[str], *, last: bool) -> str:
    """An item as an instruction: its own lines, joined and cleaned. A rule ends it, and so does a heading.

    Below the last item there is no next number to say that a further paragraph still belongs to it, and most often it
    is a remark of the assistant. So it stays only if the line above ends in a colon ("Summarise this text:"), or if it
    is indented below the number, quoted or fenced; and a known remark never stays. What follows a remark goes with it.
    """
    first = lines[0][0]
    title = _opened(lines[:1], mark)[0][0].strip()
    kept = [title] if title else []
    gap = False
    for line, hidden in lines[1:]:
        bare = line.strip()
        if kept and bare and not hidden:
            announced = kept[-1].rstrip("*_ ").endswith(":")
            belongs = announced or _indent(line) > _indent(first) or bare.startswith((">", '"', "“", "```"))
            if _RULE.match(line) or (_SECTION.match(line) and (gap or bare.startswith("#"))):
                break
            if last and (_REMARK.match(bare) or (gap and not belongs)):
                break
        gap = not bare
        kept += filter(None, [_FENCE.sub(r"\g<before>", line).strip()])
    is_title = title and (_SECTION.match(first) or _SECTION.match(title)) and title.rstrip("*_ ")[-1:] not in ".?!:;,"
    if is_title and len(kept) > 1:
        kept[0] += ":"
    task = _plain(" ".join(kept))
    if label := _TASK_LABEL.match(task):
        task = _plain(task[label.end() :])
    return task[:1].upper() + task[1:]


def _plain(text: str) -> str:
    """Text on one line, without paired emphasis and without quotes or backticks around all of it."""
    text = " ".join(text.split())
    for emphasis in (_STARS, _STARS, _UNDERSCORES):  # twice, for emphasis in emphasis
        text = emphasis.sub(r"\2", text)
    if code := _BACKTICKS.fullmatch(text):
        text = code[2].strip()
    within = re.sub(r"(?<=\w)['’](?=\w)", "", text[1:-1])  # an apostrophe is no quote
    quotes = text[:1] + text[-1:]
    return text[1:-1].strip() if quotes in _QUOTES and len(text) > 1 and not set(quotes) & set(within) else text


def _part(line: Line) -> str | None:
    """Which part of an instance begins on this line: "example", "input" or "output"."""
    match = None if line[1] else _PART.match(line[0])
    return match.lastgroup if match else None


def _marked_inputs(lines: list[Line], *, last: bool) -> list[str]:
    """What stands behind each "Input:", or below an "Example 1" that has none; outputs are left out."""
    blocks: list[list[Line]] = []
    within = "output"
    for line in lines:
        part = _part(line)
        if within == "example" and part == "input":
            blocks.pop()  # what stood between the two was a title
        if part in ("example", "input"):
            blocks.append([line])
        elif part is None and within != "output":
            blocks[-1].append(line)
        within = part or within
    return [_content(_opened(block, _PART), last=last and block is blocks[-1]) for block in blocks]


def _content(lines: list[Line], *, last: bool) -> str:
    """The text of an input with its line breaks, without a fence around all of it and without what stands below it.

    An input may have any number of paragraphs, so below the last one only what is known to be a remark goes.
    """
    end = len(lines)
    while end and not lines[end - 1][1]:
        line = lines[end - 1][0]
        # A heading or "Example 2" at the end belongs to the label below.
        if not line.strip() or _RULE.match(line) or line.lstrip().startswith("##") or _part((line, False)) == "example":
            end -= 1
            continue
        start = next((index for index in range(end, 0, -1) if not lines[index - 1][0].strip()), 0)
        if not (last and start and _REMARK.match(lines[start][0])):
            break
        end = start
    content = "\n".join(line for line, _ in lines[:end]).strip().split("\n")
    fences = _fences(content)
    if content[0].startswith(("```", "~~~")) and fences in ([], [(0, len(content) - 1)]):
        content = content[1:-1] if fences else content[1:]  # a fence that is not closed was cut off
    return "\n".join(content).strip()


def _labelled(lines: list[Line], *, last: bool) -> list[Instance]:
    """A label, on the first line or the next that is filled, with the input below it or each of several marked ones."""
    label, below = lines[0][0], 1
    while not label and below < len(lines) and _part(lines[below]) != "input":
        label, below = lines[below][0].strip(), below + 1
    lines = lines[below:]
    begin = next((line for line in lines if line[0].strip()), ("", False))
    marked = _part(begin) == "input"
    inputs = [found for found in _marked_inputs(lines, last=last) if found] if marked else [_content(lines, last=last)]
    pairs = [Instance("" if _NO_INPUT.match(found) else found, _plain(label)) for found in inputs or [""]]
    return [pair for pair in pairs if pair.input or pair.output]
