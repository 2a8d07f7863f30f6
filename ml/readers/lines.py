"""Text files read line by line: for layouts whose lines are rows and whose cells hold no line breaks.

Belongs here: cutting a file into numbered lines with bounded memory, whatever its bytes. Does not belong here: what
the cells mean.
"""

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from ml.readers.files import unreadable

LONGEST = 4 << 20
"""Bytes of the longest line that is read; the rest of a longer one is passed over."""

_LINES = 4_096
_BYTES = 32 << 20
_SHOWN = 200


def numbered_lines(path: Path) -> Iterator[pl.DataFrame]:
    """All lines of the file in order, in pieces: `number` (int64, from 1), `text` (without the line break), `problem`
    (null, `not_utf8` or `line_too_long`; `text` is then the readable beginning of the line).

    Empty lines are passed over. Raises DataError when the file cannot be read.
    """
    numbers: list[int] = []
    texts: list[str] = []
    problems: list[str | None] = []
    held = 0
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(_bounded(stream), start=1):
                text, problem = _decoded(line)
                if text:
                    numbers.append(number)
                    texts.append(text)
                    problems.append(problem)
                    held += len(line)
                if len(numbers) >= _LINES or held >= _BYTES:
                    yield _piece(numbers, texts, problems)
                    numbers, texts, problems, held = [], [], [], 0
    except OSError as error:
        raise unreadable(path, error) from error
    if numbers:
        yield _piece(numbers, texts, problems)


def _bounded(stream) -> Iterator[bytes]:  # type: ignore[no-untyped-def]
    """Lines of a binary stream, of which at most `LONGEST` bytes and one more are kept."""
    while line := stream.readline(LONGEST + 1):
        rest = line
        while len(rest) > LONGEST and not rest.endswith(b"\n"):
            rest = stream.readline(LONGEST + 1)
        yield line


def _decoded(line: bytes) -> tuple[str, str | None]:
    if len(line.rstrip(b"\r\n")) > LONGEST:
        return line[:_SHOWN].decode("utf-8", "replace"), "line_too_long"
    try:
        return line.rstrip(b"\r\n").decode("utf-8"), None
    except UnicodeDecodeError:
        return line[:_SHOWN].decode("utf-8", "replace").rstrip("\r\n"), "not_utf8"


def _piece(numbers: list[int], texts: list[str], problems: list[str | None]) -> pl.DataFrame:
    kinds = {"number": pl.Int64, "text": pl.String, "problem": pl.String}
    return pl.DataFrame({"number": numbers, "text": texts, "problem": problems}, schema=kinds)
