"""Files without the rows of some readers.

Belongs here: which rows of a file are a reader's, and the file without them. Does not belong here: which files there
are (`resources.erasure.versions`, `resources.erasure.deliveries`, `resources.splits`).

A parquet file holds readers' rows when it has a column `user_id`, or is a quarantine, whose rows are JSON. A
quarantined row without a readable `user_id` goes when any number in it is a reader's id: it is held back anyway. Text
files are CSV with a header that names `user_id`, or MIND's behaviors, whose second cell is the reader.
"""

import gzip
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ml import schema
from ml.errors import LakeError
from ml.pages import checked_rows
from resources.erasure.book import Readers
from resources.manifest import canonical
from resources.untrusted import record_object, taking_apart

CASE = "case"
LEFT_OUT = "erased.json"
_ROWS = 65_536
_NUMBER = re.compile(r"[0-9]+")
_MIND_LOG, _MIND_READER = "behaviors.tsv", 1


@dataclass
class Removed:
    """Rows that went, by request, and the test cases (`case`) among them."""

    rows: Counter[str] = field(default_factory=Counter)
    cases: set[int] = field(default_factory=set)

    @property
    def total(self) -> int:
        """All rows that went."""
        return self.rows.total()


def find(path: Path, readers: Readers) -> Removed:
    """The readers' rows in a file. Raises LakeError for a damaged one."""
    return _through(path, readers, None)


def strip(path: Path, readers: Readers, out: Path) -> Removed:
    """Write the file without the readers' rows to `out`; nothing is written where it has none. Equal input gives equal
    bytes. Raises LakeError for a damaged file."""
    found = _through(path, readers, None)
    return _through(path, readers, out) if found.total else found


def strip_folder(folder: Path, readers: Readers) -> Counter[str]:
    """Drop the readers' rows from all files below a folder that nobody else sees yet. What went from a folder is said
    in its `erased.json`: rows by request."""
    went: Counter[str] = Counter()
    for home in [folder, *sorted(p for p in folder.rglob("*") if p.is_dir())]:
        here: Counter[str] = Counter()
        for path in sorted(p for p in home.iterdir() if p.is_file()):
            fresh = path.with_name(f"{path.name}.fresh")
            here += strip(path, readers, fresh).rows
            if fresh.exists():
                fresh.replace(path)
        if here:
            (home / LEFT_OUT).write_bytes(canonical(dict(here)))
        went += here
    return went


def left_out(folders: Iterable[Path]) -> Counter[str]:
    """Rows by request that were left out of folders by `strip_folder`."""
    found: Counter[str] = Counter()
    for path in (folder / LEFT_OUT for folder in dict.fromkeys(folders)):
        if os.path.lexists(path):
            said = record_object(path, "remove the folder that it lies in: it is made anew")
            with taking_apart(path, "remove the folder that it lies in: it is made anew"):
                found += Counter({request: int(rows) for request, rows in said.items()})
    return found


def without_cases(path: Path, cases: set[int], out: Path) -> int:
    """Write a parquet file without the rows of some test cases; how many went."""
    wanted = pa.array(sorted(cases), pa.int64())
    with pq.ParquetFile(path) as file, pq.ParquetWriter(out, file.schema_arrow, compression="zstd") as writer:
        before = after = 0
        for batch in file.iter_batches(checked_rows(file, path, _ROWS)):
            kept = batch.filter(pc.invert(pc.is_in(batch.column(CASE), value_set=wanted)))
            writer.write_batch(kept)
            before, after = before + batch.num_rows, after + kept.num_rows
    return before - after


def reader_rows(path: Path, readers: Readers) -> list[int]:
    """Row numbers of the readers' rows in a parquet file with a column `user_id`, ascending."""
    found, first = [], 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(checked_rows(file, path, _ROWS), columns=[schema.USER_ID]):
            hits, _ = _judge(batch, readers)
            found += [first + i for i, hit in enumerate(hits.to_pylist()) if hit] if pc.any(hits).as_py() else []
            first += batch.num_rows
    return found


def _through(path: Path, readers: Readers, out: Path | None) -> Removed:
    name = path.name.removesuffix(".gz")
    try:
        if name.endswith(".parquet"):
            return _parquet(path, readers, out)
        if name.endswith(".csv") or name == _MIND_LOG:
            return _text(path, readers, out)
    except (OSError, EOFError, ValueError, pa.ArrowException) as error:
        raise LakeError(f"{path} cannot be searched for a reader's rows ({error}): repair or remove it") from error
    return Removed()


def _parquet(path: Path, readers: Readers, out: Path | None) -> Removed:
    removed = Removed()
    with pq.ParquetFile(path) as file, ExitStack() as stack:
        names = file.schema_arrow.names
        ours = schema.USER_ID in names or {schema.REASON, "row", "table"} <= set(names)
        if not ours:
            return removed
        needed = [n for n in (schema.USER_ID, CASE, schema.REASON, "row", "table") if n in names]
        writer = stack.enter_context(pq.ParquetWriter(out, file.schema_arrow, compression="zstd")) if out else None
        for batch in file.iter_batches(checked_rows(file, path, _ROWS), columns=None if writer else needed):
            hits, requests = _judge(batch, readers)
            removed.rows += requests
            if requests and CASE in names:
                removed.cases |= set(batch.filter(hits).column(CASE).to_pylist())
            if writer:
                writer.write_batch(batch.filter(pc.invert(hits)))
    return removed


def _judge(batch: pa.RecordBatch, readers: Readers) -> tuple[pa.Array, Counter[str]]:
    """Which rows are the readers' (bool, no nulls), and how many by request."""
    if schema.USER_ID in batch.schema.names:
        column = batch.column(schema.USER_ID)
        known = readers.among(pc.unique(column).to_pylist())
        hits = pc.is_in(column, value_set=pa.array(list(known), column.type))
        return hits, Counter(known[u] for u in column.filter(hits).to_pylist())
    said = [
        _quarantined(table, row, readers)
        for table, row in zip(batch.column("table").to_pylist(), batch.column("row").to_pylist(), strict=True)
    ]
    return pa.array([r is not None for r in said], pa.bool_()), Counter(r for r in said if r is not None)


def _quarantined(table: str, row: str, readers: Readers) -> str | None:
    """The request of the reader whose row was held back, None for others."""
    if table == "articles":
        return None
    try:
        cells = json.loads(row)
    except ValueError:
        cells = None
    known = cells.get(schema.USER_ID) if isinstance(cells, dict) else None
    found = readers.among([known] if known is not None else dict.fromkeys(_NUMBER.findall(row)))
    return next(iter(found.values()), None)


def _text(path: Path, readers: Readers, out: Path | None) -> Removed:
    removed, seen = Removed(), dict[str, str | None]()
    with ExitStack() as stack:
        reading = _open(path, "rb", stack)
        writing = _open(out, "wb", stack) if out else None
        reader_of, head = _column(path, reading)
        if writing:
            writing.write(head)
        for line in reading:
            request = None
            for id_ in reader_of(line.decode("utf-8", "replace").rstrip("\r\n")):
                if id_ not in seen:
                    seen[id_] = next(iter(readers.among([id_]).values()), None)
                request = request or seen[id_]
            if request is not None:
                removed.rows[request] += 1
            elif writing:
                writing.write(line)
    return removed


def _column(path: Path, reading: IO[bytes]) -> tuple[Callable[[str], list[str]], bytes]:
    """How to find the reader in a line (all its numbers where the cell is not there), and the header."""
    if path.name.startswith(_MIND_LOG):
        head, place, separator = b"", _MIND_READER, "\t"
    else:
        head, separator = reading.readline(), ","
        names = [c.strip().strip('"') for c in head.decode("utf-8-sig", "replace").rstrip("\r\n").split(separator)]
        if schema.USER_ID not in names:
            return lambda _: [], head
        place = names.index(schema.USER_ID)

    def reader_of(line: str) -> list[str]:
        cells = line.split(separator)
        return [cells[place]] if len(cells) > place else _NUMBER.findall(line)

    return reader_of, head


def _open(path: Path, mode: str, stack: ExitStack) -> IO[bytes]:
    """The file, unpacked where its name ends in .gz; what is written bears neither time nor name."""
    stream: IO[bytes] = stack.enter_context(path.open(mode))  # type: ignore[assignment]
    if ".gz" not in path.suffixes:
        return stream
    packed = gzip.GzipFile(filename="", mode=mode, fileobj=stream, mtime=0)
    stack.callback(packed.close)
    return packed  # type: ignore[return-value]
