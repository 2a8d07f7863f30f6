"""Damage to text files, line by line.

Belongs here: one function a kind. Does not belong here: damage to their bytes as a whole (`bytes_`).
"""

from collections.abc import Callable

import numpy as np

from tests.fuzz.source import Lines

Rng = np.random.Generator
LinesDamage = Callable[[Lines, Rng, bytes], Lines | None]
"""Takes the file, chance, and the separator of its fields; None where it cannot be applied."""

_EXTREMES = (
    b"9223372036854775807", b"-9223372036854775808", b"9223372036854775808", b"-1", b"0", b"1e308", b"inf", b"NaN",
    b"253402300800000", b"-62135596800000", b"99999999999999999999999999", b"4294967296",
)  # fmt: skip
_WRONG = (b"x", b"1.5", b" 1", b"1 ", b"0x10", b"1_000", b"\xef\xbc\x91", b"true", b"2017-10-01", b"null", b"+1")


def _rows(file: Lines) -> int:
    return len(file.lines) - file.header


def _at(file: Lines, rng: Rng) -> int:
    """The position of a row at random."""
    return int(rng.integers(len(file.lines) - _rows(file), len(file.lines)))


def _with(file: Lines, lines: list[bytes]) -> Lines:
    return Lines(lines, file.packed, file.header)


def _cell(file: Lines, rng: Rng, separator: bytes, value: bytes) -> Lines | None:
    """The file with one cell replaced."""
    if not _rows(file):
        return None
    at, lines = _at(file, rng), list(file.lines)
    fields = lines[at].split(separator)
    fields[int(rng.integers(len(fields)))] = value
    lines[at] = separator.join(fields)
    return _with(file, lines)


def _column(file: Lines, rng: Rng, separator: bytes, change: Callable[[list[bytes], int], None]) -> Lines:
    """The file with each line's fields changed at one position."""
    where, lines = int(rng.integers(len(file.lines[0].split(separator)))), []
    for line in file.lines:
        fields = line.split(separator)
        if where < len(fields):  # an earlier damage left fewer
            change(fields, where)
        lines.append(separator.join(fields))
    return _with(file, lines)


def missing_column(file: Lines, rng: Rng, separator: bytes) -> Lines | None:
    return _column(file, rng, separator, lambda fields, at: fields.pop(at) and None)


def renamed_column(file: Lines, rng: Rng, separator: bytes) -> Lines | None:
    if not file.header:
        return None
    fields = file.lines[0].split(separator)
    fields[int(rng.integers(len(fields)))] = (b"X", b"\xff", b"", b"x" * 5_000, b"__day", b"source")[
        int(rng.integers(6))
    ]
    return _with(file, [separator.join(fields), *file.lines[1:]])


def column_twice(file: Lines, rng: Rng, separator: bytes) -> Lines | None:
    return _column(file, rng, separator, lambda fields, at: fields.append(fields[at]))


def other_order(file: Lines, rng: Rng, separator: bytes) -> Lines | None:
    width = len(file.lines[0].split(separator))
    if any(line.count(separator) + 1 != width for line in file.lines):
        return None
    order = rng.permutation(width)
    return _with(file, [separator.join(np.array(line.split(separator))[order].tolist()) for line in file.lines])


def unknown_column(file: Lines, rng: Rng, separator: bytes) -> Lines | None:
    return _with(file, [line + separator + (b"source" if i == 0 else b"x") for i, line in enumerate(file.lines)])


def wrong_type(file: Lines, rng: Rng, separator: bytes) -> Lines | None:
    return _cell(file, rng, separator, _WRONG[int(rng.integers(len(_WRONG)))])


def empty_cell(file: Lines, rng: Rng, separator: bytes) -> Lines | None:
    return _cell(file, rng, separator, b"")


def extreme_value(file: Lines, rng: Rng, separator: bytes) -> Lines | None:
    return _cell(file, rng, separator, _EXTREMES[int(rng.integers(len(_EXTREMES)))])


def fields_missing(file: Lines, rng: Rng, separator: bytes) -> Lines | None:
    if not _rows(file):
        return None
    at, lines = _at(file, rng), list(file.lines)
    fields = lines[at].split(separator)
    lines[at] = separator.join(fields[: int(rng.integers(len(fields)))])
    return _with(file, lines)


def fields_more(file: Lines, rng: Rng, separator: bytes) -> Lines | None:
    """One line with a field too many, and perhaps another with one too few."""
    if not _rows(file):
        return None
    lines = list(file.lines)
    lines[_at(file, rng)] += separator + b"1"
    if rng.integers(2):
        at = _at(file, rng)
        lines[at] = lines[at].rpartition(separator)[0]
    return _with(file, lines)


def quotes(file: Lines, rng: Rng, separator: bytes) -> Lines | None:
    if not _rows(file):
        return None
    at, lines = _at(file, rng), list(file.lines)
    fields = lines[at].split(separator)
    where = int(rng.integers(len(fields)))
    fields[where] = (b'"' + fields[where] + b'"', b'"' + fields[where], b'a"b', b'""')[int(rng.integers(4))]
    lines[at] = separator.join(fields)
    return _with(file, lines)


def line_ends(file: Lines, rng: Rng, separator: bytes) -> Lines | None:
    return _with(file, [line + b"\r" for line in file.lines])


def blank_lines(file: Lines, rng: Rng, separator: bytes) -> Lines | None:
    lines = list(file.lines)
    lines.insert(int(rng.integers(1, len(lines) + 1)), b"")
    return _with(file, lines)


def not_utf8(file: Lines, rng: Rng, separator: bytes) -> Lines | None:
    return _cell(file, rng, separator, (b"\xff\xfe", b"1\x80", b"\x00", b"\xc3")[int(rng.integers(4))])


def repeated_rows(file: Lines, rng: Rng, separator: bytes) -> Lines | None:
    if not _rows(file):
        return None
    return _with(file, [*file.lines, *(file.lines[_at(file, rng)] for _ in range(int(rng.integers(1, 4))))])


def unordered_rows(file: Lines, rng: Rng, separator: bytes) -> Lines | None:
    head, rows = file.lines[: file.header], file.lines[file.header :]
    return _with(file, [*head, *(rows[i] for i in rng.permutation(len(rows)))])


def header_only(file: Lines, rng: Rng, separator: bytes) -> Lines | None:
    return _with(file, file.lines[:1]) if file.header else None


def no_header(file: Lines, rng: Rng, separator: bytes) -> Lines | None:
    return _with(file, file.lines[1:]) if file.header else None


def byte_order_mark(file: Lines, rng: Rng, separator: bytes) -> Lines | None:
    return _with(file, [b"\xef\xbb\xbf" + file.lines[0], *file.lines[1:]])


def large_cell(file: Lines, rng: Rng, separator: bytes) -> Lines | None:
    return _cell(file, rng, separator, b"7" * int(rng.choice([100_000, 1_500_000, 6_000_000])))


KINDS: dict[str, LinesDamage] = {
    "missing column": missing_column,
    "renamed column": renamed_column,
    "column twice": column_twice,
    "columns in another order": other_order,
    "unknown column": unknown_column,
    "wrong type": wrong_type,
    "nulls": empty_cell,
    "extreme values": extreme_value,
    "fields missing": fields_missing,
    "fields too many": fields_more,
    "quotes": quotes,
    "Windows line ends": line_ends,
    "blank lines": blank_lines,
    "text not UTF-8": not_utf8,
    "rows repeated": repeated_rows,
    "unordered rows": unordered_rows,
    "header only": header_only,
    "no header": no_header,
    "byte order mark": byte_order_mark,
    "large cell": large_cell,
}
