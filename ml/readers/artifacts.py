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
from ml.readers.files import is_integer, is_number, list_of, parquet_batches, parquet_schema

_ROWS = 8192
_REMEDY = "an artifact has article_id and one column of equally long lists of numbers; use the published file"


def vectors_of(path: Path, article_ids: np.ndarray) -> pa.Table:
    """Columns article_id int64, since timestamp[ms, UTC] (null: from the beginning), vector fixed_size_list<float32>[D]
    for those of `article_ids` (int64 [A]) that the file has, sorted by article_id; D = 0 where it has none of them.

    Reads a few thousand rows at a time. Raises DataError for a file of another form.
    """
    found = parquet_schema(path, {schema.ARTICLE_ID: is_integer}, _REMEDY)
    names = [f.name for f in found if list_of(is_number)(f.type)]
    if len(names) != 1:
        raise DataError(f"{path} has {len(names)} columns of number lists: {_REMEDY}")
    wanted = pa.array(np.unique(np.asarray(article_ids, dtype=np.int64)))
    ids, vectors = [], []
    for batch in parquet_batches(path, _ROWS, [schema.ARTICLE_ID, names[0]]):
        keep = pc.and_(pc.is_in(batch[schema.ARTICLE_ID].cast(pa.int64()), wanted), pc.is_valid(batch[names[0]]))
        part = batch.filter(keep)
        if len(part):
            ids.append(part[schema.ARTICLE_ID].to_numpy().astype(np.int64))
            vectors.append(_matrix(part[names[0]], path))
    return _vector_table(ids, vectors, path)


def _matrix(lists: pa.ChunkedArray, path: Path) -> np.ndarray:
    """Lists of equal length as float32 [rows, D]."""
    lengths = pc.unique(pc.list_value_length(lists)).to_pylist()
    if len(lengths) != 1:
        raise DataError(f"{path}: vectors of different lengths ({', '.join(map(str, sorted(lengths)))}): {_REMEDY}")
    values = pc.list_flatten(lists).to_numpy().astype(np.float32)
    return values.reshape(len(lists), int(lengths[0]))


def _vector_table(ids: list[np.ndarray], vectors: list[np.ndarray], path: Path) -> pa.Table:
    """One table from the pieces of a file, sorted by article_id."""
    widths = {v.shape[1] for v in vectors} or {0}
    if len(widths) != 1:
        raise DataError(f"{path}: vectors of different lengths ({', '.join(map(str, sorted(widths)))}): {_REMEDY}")
    width = widths.pop()
    article = np.concatenate([np.zeros(0, dtype=np.int64), *ids])
    matrix = np.concatenate([np.zeros((0, width), dtype=np.float32), *vectors])
    article, first = np.unique(article, return_index=True)
    flat = pa.array(matrix[first].ravel())
    return pa.table(
        {
            schema.ARTICLE_ID: pa.array(article),
            "since": pa.nulls(len(article), schema.TIME),
            "vector": pa.FixedSizeListArray.from_arrays(flat, type=pa.list_(pa.float32(), width)),
        }
    )
