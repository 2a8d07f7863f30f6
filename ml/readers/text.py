"""Delimited text in bounded memory, every line accounted for.

Belongs here: decompressing, cutting into lines and fields, the lines that cannot be cut. Does not belong here: what the
fields mean (the reader of the layout).
"""

import csv
import gzip
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
from polars.exceptions import PolarsError

from ml.errors import DataError
from ml.readers.files import DAMAGE, GZIP, Expands, listed, printable, unreadable
from ml.readers.rules import NUMBER

LINE_BYTES = 1 << 20
"""Longest line that is cut into fields."""

_BLOCK, _LINES = 4 << 20, 65_536
_SAMPLE = 200
_DECODED_FLOOR = 128 << 20
_DECODED = 100
_REASON, _LINE = "reason", "line"
_BAD = {_REASON: pl.String, _LINE: pl.String, NUMBER: pl.Int64}


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive lines of a file: `rows` has the wanted columns as text (null where empty); `bad` has `reason` and
    `line` of those that could not be cut into the file's columns (`wrong_number_of_fields`, `not_utf8`,
    `unbalanced_quotes`, `oversized_line`). Both have the line's number in the file (`ml.readers.rules.NUMBER`)."""

    rows: pl.DataFrame
    bad: pl.DataFrame


def pieces(path: Path, columns: Sequence[str], separator: str = ",") -> Iterator[Piece]:
    """`columns` of a text file, plain or gzipped (by its name's ending), whose first line names its columns; a line is
    a row, a blank one (nothing before its line break) none. Raises DataError when the file is damaged, lacks a column,
    or has one twice, or expands to more than a hundred times its size."""
    try:
        source = _lines(path)
        names = _header(next(source, b""), path, columns, separator)
        first = 2
        for block in (part for whole in source for part in _parts(whole)):
            yield _piece(block, first, names, columns, separator)
            first += _line_count(block)
    except DAMAGE as error:
        raise unreadable(path, error) from error


def column_names(path: Path, separator: str = ",") -> list[str]:
    """The names in the first line of such a file. Raises DataError when it cannot be read."""
    try:
        return _names(next(_lines(path), b""), path, separator)
    except DAMAGE as error:
        raise unreadable(path, error) from error


def most_decoded(path: Path) -> int:
    """Bytes to which a file may expand: a hundred times its size, small ones somewhat more."""
    return _DECODED_FLOOR + _DECODED * path.stat().st_size


def _names(line: bytes, path: Path, separator: str) -> list[str]:
    """The names in a first line, whose byte order mark does not count. Raises ValueError for an empty
    file and for what is no text in UTF-8."""
    if not line and path.stat().st_size == 0:
        raise ValueError("it is empty")
    if line.startswith((GZIP, BOM_UTF16_LE, BOM_UTF16_BE)):
        raise ValueError("its first line is no text in UTF-8")
    bare = line.removeprefix(BOM_UTF8).removesuffix(b"\n").removesuffix(b"\r")
    return _fields(bare.decode("utf-8", "backslashreplace"), separator) or []


def _header(line: bytes, path: Path, columns: Sequence[str], separator: str) -> list[str]:
    """The file's column names."""
    names = _names(line, path, separator)
    missing = [c for c in columns if c not in names]
    if missing:
        raise DataError(
            f"{printable(path)} has no column {listed(missing)} (it has {listed(names)}): the published file starts "
            "with a line of column names"
        )
    twice = [c for c in columns if names.count(c) > 1]
    if twice:
        raise DataError(f"{printable(path)} has column {listed(twice)} more than once: name each column once")
    return names


def _lines(path: Path) -> Iterator[bytes]:
    """The first line, then blocks of whole lines. A longer line than `LINE_BYTES` is a block by itself, cut: its length
    stands at the end."""
    most = most_decoded(path)
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
        head = stream.readline(LINE_BYTES)
        if len(head) == LINE_BYTES:
            raise ValueError(f"its first line has more than {LINE_BYTES} bytes")
        yield head
        decoded, rest = 0, b""
        while chunk := stream.read(_BLOCK):
            decoded += len(chunk)
            if decoded > most:
                raise Expands(most)
            whole, newline, tail = (rest + chunk).rpartition(b"\n")
            if newline:
                yield whole + newline
                rest = tail
            elif len(tail) > LINE_BYTES:
                rest, length = tail[: 2 * LINE_BYTES], len(tail)
                while chunk := stream.readline(_BLOCK):
                    length += len(chunk)
                    if length > most:
                        raise Expands(most)
                    if chunk.endswith(b"\n"):
                        break
                yield rest
                rest = b""
            else:
                rest = tail
        if rest:
            yield rest


def _parts(block: bytes) -> Iterator[bytes]:
    """A block in pieces of at most `_LINES` lines: millions of empty ones, one by one, would take gigabytes."""
    if block.count(b"\n") <= _LINES:
        yield block
        return
    ends = np.flatnonzero(np.frombuffer(block, dtype=np.uint8) == ord("\n")) + 1
    cuts = [0, *ends[_LINES - 1 :: _LINES].tolist(), len(block)]
    yield from (block[first:end] for first, end in pairwise(cuts) if first < end)


def _line_count(block: bytes) -> int:
    return block.count(b"\n") + (not block.endswith(b"\n"))


def _piece(block: bytes, first: int, names: list[str], columns: Sequence[str], separator: str) -> Piece:
    """A block of lines from number `first` on, cut by Polars where every line has its fields, else line by line."""
    lines = _line_count(block)
    even = block.count(separator.encode()) == lines * (len(names) - 1)
    if even and b'"' not in block and b"\x00" not in block and len(names) > 1 and _longest(block) <= LINE_BYTES:
        try:
            rows = pl.read_csv(
                block,
                has_header=False,
                new_columns=[str(i) for i in range(len(names))],
                separator=separator,
                quote_char=None,
                infer_schema=False,
            )
            if rows.height == lines and rows.width == len(names):
                wanted = [pl.col(str(names.index(c))).alias(c) for c in columns]
                number = pl.int_range(first, first + lines, dtype=pl.Int64).alias(NUMBER)
                return Piece(rows.select(*wanted, number), pl.DataFrame(schema=_BAD))
        except PolarsError:
            pass  # a line is broken: which one is found below
    return _line_by_line(block, first, names, columns, separator)


def _longest(block: bytes) -> int:
    """Bytes of the longest line, or fewer than `LINE_BYTES`."""
    if len(block) <= LINE_BYTES:
        return len(block)
    ends = np.flatnonzero(np.frombuffer(block, dtype=np.uint8) == ord("\n"))
    return int(np.diff(ends, prepend=-1, append=len(block)).max()) - 1


def _line_by_line(block: bytes, first: int, names: list[str], columns: Sequence[str], separator: str) -> Piece:
    """The same for a block with broken lines."""
    where = [names.index(c) for c in columns]
    rows: list[list[str | int | None]] = []
    bad: list[tuple[str, str, int]] = []
    for number, line in enumerate(block.removesuffix(b"\n").split(b"\n"), start=first):
        if not line.strip(b"\r"):
            continue
        reason, fields = _cut(line.removesuffix(b"\r"), len(names), separator)
        if fields is None:
            text = line if len(line) <= LINE_BYTES else line[:_SAMPLE] + b"... [cut]"
            bad.append((reason, text.decode("utf-8", "backslashreplace"), number))
        else:
            rows.append([*(fields[i] or None for i in where), number])
    frame = pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String) | {NUMBER: pl.Int64}, orient="row")
    return Piece(frame, pl.DataFrame(bad, schema=_BAD, orient="row"))


def _cut(line: bytes, width: int, separator: str) -> tuple[str, list[str] | None]:
    """A line's fields, or None and the reason."""
    if len(line) > LINE_BYTES:
        return "oversized_line", None
    try:
        fields = _fields(line.decode("utf-8"), separator)
    except UnicodeDecodeError:
        return "not_utf8", None
    if fields is None:
        return "unbalanced_quotes", None
    return ("", fields) if len(fields) == width else ("wrong_number_of_fields", None)


def _fields(line: str, separator: str) -> list[str] | None:
    """The fields of a line, quoted ones without their quotes; None when a quote is left open."""
    if '"' not in line:
        return line.split(separator)
    try:
        return next(csv.reader([line], delimiter=separator, strict=True), [])
    except csv.Error:
        return None
