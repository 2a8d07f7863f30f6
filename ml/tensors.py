"""Tensors in safetensors files: the header is held against the file, and against what is expected, before loading.

Belongs here: reading a header without trust, loading named arrays. Does not belong here: which tensors a model, a
scaler or a training state has (`ml.snert`, `ml.features`, `ml.resume`). Format: 8 bytes little-endian length, a JSON
object {name: {dtype, shape, data_offsets}}, then the bytes of all tensors without a gap
(https://huggingface.co/docs/safetensors, "Format").
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError

from ml.errors import DataError
from ml.strangers import FORM, MIB, one_line, parse_json, printable, regular

HEADER_BYTES = MIB
"""Largest header that is read: a tensor takes some 100 bytes, a training state has a few hundred."""

WIDTHS = {"F64": 8, "F32": 4, "I64": 8, "I32": 4}
"""Bytes of a value, by the types that are written here."""

_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_METADATA = "__metadata__"
_DIMENSIONS = 8
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Layout:
    """Type (as safetensors writes it: F32, I64; of what is expected also "F32 or F64") and shape of a tensor; a None in
    the shape is any length."""

    dtype: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        return f"{self.dtype} [{', '.join('n' if n is None else str(n) for n in self.shape)}]"

    def fits(self, found: "Layout") -> bool:
        """Whether a tensor of the layout `found` is one of these."""
        alike = found.dtype in self.dtype.split(" or ") and len(self.shape) == len(found.shape)
        return alike and all(n in (None, m) for n, m in zip(self.shape, found.shape, strict=True))


def load_tensors(
    path: Path, expected: Mapping[str, Layout], load: Callable[[Path], dict[str, T]], remedy: str
) -> dict[str, T]:
    """What `load` (safetensors' `load_file` of some library) gives, once the header holds exactly the tensors that are
    expected. Raises DataError naming the tensor that is missing, too many, or of another type or shape."""
    require(path, layouts(path, remedy), expected, remedy)
    try:
        return load(path)
    except SafetensorError as error:
        raise DataError(f"{printable(path)} cannot be read ({one_line(error)}): {remedy}") from error


def require(path: Path, found: Mapping[str, Layout], expected: Mapping[str, Layout], remedy: str) -> None:
    """Raises DataError unless `found` holds the names of `expected`, each with its type and shape."""
    for name in sorted(expected.keys() | found.keys()):
        wanted, has = expected.get(name), found.get(name)
        if wanted is None or has is None or not wanted.fits(has):
            said = f"tensor {one_line(name, 80)} is {has or 'missing'}, expected is {wanted or 'none of that name'}"
            raise DataError(f"{printable(path)}: {said}: {remedy}")


def layouts(path: Path, remedy: str) -> dict[str, Layout]:
    """Type and shape of every tensor by name, from a header whose tensors cover the file exactly. Raises DataError for
    anything else; a pickle is named as such and never opened."""
    size = regular(path, remedy)
    with path.open("rb") as stream:
        head = stream.read(8)
        length = int.from_bytes(head, "little")
        if len(head) < 8 or length > min(HEADER_BYTES, size - 8):
            raise DataError(f"{printable(path)} {_instead(head, length, size)}: {remedy}")
        header = parse_json(stream.read(length).rstrip(b" "), path, remedy)
    try:
        placed = {name: _placed(entry) for name, entry in header.items() if name != _METADATA}
        _without_gap([place for _, place in placed.values()], size - 8 - length)
    except FORM as error:
        raise DataError(f"{printable(path)} has a header that lies ({one_line(error)}): {remedy}") from error
    return {name: layout for name, (layout, _) in placed.items()}


def _instead(head: bytes, length: int, size: int) -> str:
    """What a file is whose first bytes are no length of a header."""
    if head.startswith(_PICKLES):
        return "is a pickle or an archive of pickles, which can run anything and is never opened"
    if length > size - 8:
        return f"is cut or no safetensors file (its header claims {length:,} of {size:,} bytes)"
    return f"has a header of {length:,} bytes, more than {HEADER_BYTES:,}"


def _placed(entry: Any) -> tuple[Layout, tuple[int, int]]:
    """A header's entry as layout and place. Raises ValueError where they contradict each other."""
    dtype, shape, (start, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype not in WIDTHS:
        raise ValueError(f"type {one_line(dtype, 20)} is none of {', '.join(WIDTHS)}")
    if len(shape) > _DIMENSIONS or not all(type(n) is int and n >= 0 for n in (*shape, start, end)):
        raise ValueError(f"shape {one_line(shape, 60)} at {one_line([start, end], 60)}")
    if end - start != math.prod(shape) * WIDTHS[dtype]:
        raise ValueError(f"{dtype} {one_line(shape, 60)} in {end - start} bytes")
    return Layout(dtype, tuple(shape)), (start, end)


def _without_gap(places: list[tuple[int, int]], size: int) -> None:
    """Raises ValueError unless the places cover `size` bytes, each once."""
    at = 0
    for start, end in sorted(places):
        if start != at:
            raise ValueError(f"a tensor begins at byte {start}, the one before it ends at {at}")
        at = end
    if at != size:
        raise ValueError(f"tensors of {at:,} bytes in {size:,}")
