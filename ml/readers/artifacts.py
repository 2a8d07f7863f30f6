"""Published article vectors: parquet files of (article_id, one list of floats).

Belongs here: cutting the vectors of some articles out of such a file. Does not belong here: which file serves which
family (the reader of the layout knows), computing vectors (`resources.text_encoder`).
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ml import schema
from ml.errors import DataError
from ml.readers.files import is_integer, is_number, list_of, parquet_batches, parquet_schema, printable

_ROWS = 8192
_REMEDY = "an artifact has article_id and one column of equally long lists of numbers; use the published file"


def vectors_of(path: Path, article_ids: np.ndarray) -> pa.Table:
    """Columns article_id int64, since timestamp[ms, UTC] (null: from the beginning), vector fixed_size_list<float32>[D]
    for those of `article_ids` (int64 [A]) that the file has, sorted by article_id; the first of several vectors.

    Reads a few thousand rows at a time. Raises DataError for a file of another form, or without a vector, and for ids
    or numbers that none can be.
    """
    found = parquet_schema(path, {schema.ARTICLE_ID: is_integer}, _REMEDY)
    names = [f.name for f in found if list_of(is_number)(f.type)]
    if len(names) != 1:
        raise DataError(f"{path} has {len(names)} columns of number lists: {_REMEDY}")
    wanted = pa.array(np.unique(np.asarray(article_ids, dtype=np.int64)))
    ids, vectors = [np.zeros(0, dtype=np.int64)], []
    for batch in parquet_batches(path, _ROWS, [schema.ARTICLE_ID, names[0]]):
        present = batch.filter(pc.is_valid(batch[names[0]]))
        if len(present):
            numbers = _ids(present[schema.ARTICLE_ID], path)
            keep = pc.is_in(numbers, wanted)
            ids.append(numbers.filter(keep).to_numpy())
            vectors.append(_matrix(present[names[0]], path)[keep.to_numpy()])
    widths = sorted({v.shape[1] for v in vectors})
    if len(widths) != 1:
        raise DataError(f"{path}: vectors of {len(widths)} lengths {widths}: {_REMEDY}")
    article, first = np.unique(np.concatenate(ids), return_index=True)
    flat = pa.array(np.concatenate(vectors)[first].ravel())
    return pa.table(
        {
            schema.ARTICLE_ID: pa.array(article),
            "since": pa.nulls(len(article), schema.TIME),
            "vector": pa.FixedSizeListArray.from_arrays(flat, type=pa.list_(pa.float32(), widths[0])),
        }
    )


def _ids(column: pa.ChunkedArray, path: Path) -> pa.ChunkedArray:
    """Ids as int64."""
    if pa.types.is_uint64(column.type) and (pc.max(column).as_py() or 0) >= 2**63:
        raise DataError(f"{printable(path)}: article_id {pc.max(column)} is above 2^63 - 1: {_REMEDY}")
    return column.cast(pa.int64())


def _matrix(lists: pa.ChunkedArray, path: Path) -> np.ndarray:
    """Lists of equal length above 0 as float32 [rows, D]."""
    lengths = sorted(pc.unique(pc.list_value_length(lists)).to_pylist())
    if len(lengths) != 1 or lengths[0] == 0:
        raise DataError(f"{path}: vectors of {len(lengths)} lengths {lengths}: {_REMEDY}")
    with np.errstate(over="ignore"):
        values = pc.list_flatten(lists).to_numpy().astype(np.float32)
    wrong = values.size - np.isfinite(values).sum()
    if wrong:
        raise DataError(f"{printable(path)}: {wrong} numbers in vectors are null, NaN or beyond float32: {_REMEDY}")
    return values.reshape(len(lists), lengths[0])
