"""A small source in memory, on its way to disk: what a damage changes.

Belongs here: the files of a case and how they are written. Does not belong here: what is damaged (`tables`, `lines`,
`lies`, `places`), which readers there are (`subjects`).
"""

import gzip
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

Rng = np.random.Generator


@dataclass(slots=True)
class Lines:
    """A text file: its lines (the first is the header where there is one), without their ends."""

    lines: list[bytes]
    packed: bool = False
    header: bool = True

    @property
    def data(self) -> bytes:
        return b"".join(line + b"\n" for line in self.lines)


Content = pa.Table | Lines


@dataclass(slots=True)
class Source:
    """Files by relative name. `bytes_changes` are applied to a file's bytes once it is written, `place_changes` to its
    path after that."""

    files: dict[str, Content]
    bytes_changes: dict[str, Callable[[bytes], bytes]] = field(default_factory=dict)
    place_changes: dict[str, Callable[[Path, Path], None]] = field(default_factory=dict)

    def write(self, root: Path, rng: Rng) -> None:
        """Writes all files below `root`, parquet with options drawn from `rng`."""
        for name, content in self.files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            data = parquet(content, rng) if isinstance(content, pa.Table) else text(content)
            path.write_bytes(self.bytes_changes.get(name, _same)(data))
        for name, change in self.place_changes.items():
            change(root, root / name)


def _same(data: bytes) -> bytes:
    return data


@dataclass(frozen=True, slots=True)
class Lie:
    """A change of metadata alone: the rows that went in stay those of the table."""

    change: Callable[[bytes], bytes] = _same

    def __call__(self, data: bytes) -> bytes:
        return self.change(data)


def text(content: Lines) -> bytes:
    """The bytes of a text file."""
    return gzip.compress(content.data, mtime=0, compresslevel=1) if content.packed else content.data


def parquet(table: pa.Table, rng: Rng) -> bytes:
    """The bytes of a parquet file, written in one of the ways that there are."""
    out = io.BytesIO()
    pq.write_table(
        table,
        out,
        compression=str(rng.choice(["zstd", "snappy", "none", "gzip"])),
        data_page_version=str(rng.choice(["1.0", "2.0"])),
        use_dictionary=bool(rng.integers(2)),
        row_group_size=int(rng.choice([3, 1_000])),
        write_page_checksum=bool(rng.integers(2)),
        write_statistics=bool(rng.integers(2)),
    )
    return out.getvalue()
