"""The lake's own records (manifests, pointers, ledgers, lists) read without trust: somebody else may have written them.

Belongs here: `ml.strangers` with the error of a damaged lake, and links out of it. Does not belong here: what a record
says (the module that writes it)."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ml.errors import DamagedLake, DataError
from ml.strangers import JSON_BYTES, one_line, printable, read_bytes, read_object, reading


def record_bytes(path: Path, remedy: str, most: int = JSON_BYTES) -> bytes:
    """The bytes of a record. Raises DamagedLake where there is no regular file of at most `most` bytes."""
    with _of_the_lake():
        return read_bytes(path, remedy, most)


def record_object(path: Path, remedy: str, most: int = JSON_BYTES) -> dict[str, Any]:
    """The JSON object in a record. Raises DamagedLake where there is none."""
    with _of_the_lake():
        return read_object(path, remedy, most)


@contextmanager
def taking_apart(path: Path, remedy: str) -> Iterator[None]:
    """Around code that takes the values of a record apart: another form becomes DamagedLake."""
    with _of_the_lake(), reading(path, remedy):
        yield


@contextmanager
def _of_the_lake() -> Iterator[None]:
    try:
        yield
    except DamagedLake:
        raise
    except DataError as error:
        raise DamagedLake(str(error)) from error


def require_inside(root: Path, folder: Path) -> None:
    """Raises DamagedLake where a link leads `folder` out of the lake at `root`."""
    try:
        inside = folder.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError, ValueError) as error:
        raise DamagedLake(f"{printable(folder)} leads nowhere ({one_line(error)}): remove the link") from error
    if not inside:
        raise DamagedLake(f"{printable(folder)} leads out of the lake: put the folder itself there")
