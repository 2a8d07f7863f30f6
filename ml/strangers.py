"""Files that a stranger may have made: a lake, a bundle or a checkpoint from somebody else is opened without trust.

Belongs here: what any such file must be before it is read (a regular file of bounded size), JSON, and the one line that
refuses it. Does not belong here: the formats of tensors (`ml.tensors`), tables (`ml.parquet`) and indexes
(`ml.index_check`); source logs (`ml.readers`).
"""

import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ml.errors import DataError

if TYPE_CHECKING:
    from pydantic import BaseModel

MIB = 1 << 20
JSON_BYTES = 16 * MIB
"""Largest JSON file that is read. Parsed it takes up to thirty times its bytes; the largest that is written here, a
report of ten models, has some 2 MB."""

AGAIN = "get it again from where it was made, or make it anew"
FORM = (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, RecursionError)
"""What code raises over values of another form than it was written for."""

M = TypeVar("M", bound="BaseModel")
_NO_FILE = {
    errno.ENOENT: "is missing",
    errno.ENOTDIR: "is missing",
    errno.ELOOP: "is a link, not the file itself",
    errno.ENXIO: "is no regular file",
    errno.EISDIR: "is no regular file",
    errno.ENAMETOOLONG: "has a name that is too long",
}


def regular(path: Path, remedy: str = AGAIN, most: int | None = None) -> int:
    """Bytes of the regular file at `path`. Raises DataError for anything else (nothing, a link, folder, pipe, device),
    and for a file of more than `most` bytes; `remedy` ends the message."""
    try:
        facts = os.lstat(path)
    except (OSError, ValueError) as error:
        raise _no_file(path, error, remedy) from error
    return _checked(path, facts, remedy, most)


def read_bytes(path: Path, remedy: str = AGAIN, most: int = JSON_BYTES) -> bytes:
    """The bytes of a regular file of at most `most` bytes. Raises DataError as `regular` does."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise _no_file(path, error, remedy) from error
    try:
        _checked(path, os.fstat(handle), remedy, most)
        with os.fdopen(handle, "rb", closefd=False) as stream:
            data = stream.read(most + 1)
    finally:
        os.close(handle)
    if len(data) > most:
        raise DataError(f"{printable(path)} grows while it is read: {remedy}")
    return data


def _checked(path: Path, facts: os.stat_result, remedy: str, most: int | None) -> int:
    if stat.S_ISLNK(facts.st_mode):
        raise DataError(f"{printable(path)} is a link, not the file itself: {remedy}")
    if not stat.S_ISREG(facts.st_mode):
        raise DataError(f"{printable(path)} is no regular file: {remedy}")
    if most is not None and facts.st_size > most:
        raise DataError(f"{printable(path)} has {facts.st_size:,} bytes, more than {most:,}: {remedy}")
    return facts.st_size


def _no_file(path: Path, error: OSError | ValueError, remedy: str) -> Exception:
    """What stands in for an error of opening: what a stranger can cause names the file, the rest stays what it is."""
    if isinstance(error, OSError):
        said = _NO_FILE.get(error.errno or 0)
        return error if said is None else DataError(f"{printable(path)} {said}: {remedy}")
    return DataError(f"{printable(path)} cannot be the name of a file: {remedy}")


def read_json(path: Path, remedy: str = AGAIN, most: int = JSON_BYTES) -> Any:
    """The value of a JSON file, as `parse_json`. Raises DataError where it cannot be had."""
    return parse_json(read_bytes(path, remedy, most), path, remedy)


def read_object(path: Path, remedy: str = AGAIN, most: int = JSON_BYTES) -> dict[str, Any]:
    """The object in a JSON file. Raises DataError where it holds anything else."""
    found = read_json(path, remedy, most)
    if not isinstance(found, dict):
        raise DataError(f"{printable(path)} holds no JSON object: {remedy}")
    return found


def read_model(kind: type[M], path: Path, remedy: str = AGAIN, most: int = JSON_BYTES) -> M:
    """The object that a JSON file describes. Raises DataError naming the entry that is wrong, and what it should be."""
    from pydantic import ValidationError

    data = read_bytes(path, remedy, most)
    parse_json(data, path, remedy)
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = one_line(".".join(str(part) for part in first["loc"]) or "the file", 80)
        more = f", and {error.error_count() - 1} more" if error.error_count() > 1 else ""
        said = one_line(first["msg"].removeprefix("Value error, "))
        raise DataError(f"{printable(path)}: {where}: {said}{more}: {remedy}") from error


def parse_json(data: bytes, path: Path, remedy: str = AGAIN) -> Any:
    """The value that strict JSON in UTF-8 stands for. Raises DataError naming `path` for anything else: names that
    occur twice, NaN and infinity, half a surrogate pair, nesting without end."""
    try:
        value = json.loads(data.decode(), object_pairs_hook=_each_once, parse_constant=_no_number, parse_float=_finite)
        if b"\\ud" in data.lower():
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except (ValueError, RecursionError) as error:
        raise DataError(f"{printable(path)} is not sound JSON ({one_line(error)}): {remedy}") from error


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        last = {name: place for place, (name, _) in enumerate(pairs)}
        twice = next(name for place, (name, _) in enumerate(pairs) if last[name] != place)
        raise ValueError(f"the name {twice[:60]!r} stands there twice")
    return found


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text[:20]} is beyond every number")
    return value


@contextmanager
def reading(path: Path, remedy: str = AGAIN) -> Iterator[None]:
    """Around code that takes the values of `path` apart: what it raises over another form becomes one line."""
    try:
        yield
    except FORM as error:
        said = f"{type(error).__name__}: {one_line(error, 120)}"
        raise DataError(f"{printable(path)} has another form than is written here ({said}): {remedy}") from error


def one_line(said: object, most: int = 300) -> str:
    """The first line of what an error, type or name says, printable, at most `most` characters."""
    lines = str(said).strip().splitlines()
    text = escaped(lines[0] if lines else type(said).__name__)
    return text if len(text) <= most else f"{text[:most]}..."


def escaped(text: str) -> str:
    """Text in which only printable characters stand for themselves."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def lines_escaped(text: str) -> str:
    """The same for text of several lines, whose ends stay."""
    return "\n".join(map(escaped, text.split("\n")))


def printable(path: Path) -> str:
    """A path as one printable line: a name may hold any byte."""
    return escaped(str(path))
