"""Lines for a person: text made safe for a terminal, times, and a line drawn over the last one."""

from __future__ import annotations

import shutil
import sys
import unicodedata


def printable(text: str) -> str:
    """Model text made safe for a terminal: control and format characters are shown as escapes, not obeyed."""
    return "".join(
        character
        if character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf", "Cs")
        else character.encode("unicode_escape", "surrogatepass").decode()
        for character in text
    )


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, second = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{second:02}"


def write_line(line: str) -> None:
    """Draw a line over the last one on a terminal, or write it as one of a log."""
    if sys.stderr.isatty():  # cut to one row, since only one can be drawn over
        line = f"\r\x1b[2K{line[: shutil.get_terminal_size().columns - 1]}"
    else:
        line += "\n"
    sys.stderr.write(line)
    sys.stderr.flush()
