"""Chat style: messages through the model's own template to token ids, and thinking blocks out of answers."""

from __future__ import annotations

import re

_BLOCK = re.compile(r"\s*<(think|thinking|thought|reasoning)>(.*?)</\1>", re.DOTALL)
_OPEN = re.compile(r"\s*<(think|thinking|thought|reasoning)>")
_CLOSE = re.compile(r"</(think|thinking|thought|reasoning)>")


def answer_of(text: str) -> str | None:
    """The answer without the thinking block it begins with; None where that block does not end.

    Where the opening tag stood in the prompt and was not restored, the block ends at the first closing tag.
    """
    if block := _BLOCK.match(text):
        return text[block.end() :].lstrip()
    if _OPEN.match(text):
        return None
    close = _CLOSE.search(text)
    return text[close.end() :].lstrip() if close else text
