"""Parquet with fixed settings, so that equal tables give equal bytes.

Belongs here: writing and reading one parquet file. Does not belong here: schemas (`ml.schema`).
"""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ml.parquet import read_table

ROW_GROUP = 131_072


def write_parquet(table: pa.Table, path: Path) -> int:
    """Write `table` (chunks and dictionaries of chunks do not matter) and return its rows. Equal values give equal
    bytes for one release of pyarrow, whose name the format puts into the footer."""
    pq.write_table(
        table.combine_chunks(),
        path,
        row_group_size=ROW_GROUP,
        compression="zstd",
        compression_level=3,
        version="2.6",
        data_page_version="1.0",
        write_statistics=True,
        write_page_checksum=True,
        store_schema=True,
    )
    return int(table.num_rows)


def read_parquet(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """One file as a table. Raises DataError naming the file when it is missing, damaged, lies or lacks a column."""
    return read_table(path, columns)
