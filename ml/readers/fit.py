"""Types: which values of a column do not fit the type that a table has for it.

Belongs here: the Polars types of Arrow schemas, and finding values that a cast would turn into nothing. Does not belong
here: what becomes of their rows (`ml.readers.rules`).
"""

from collections.abc import Iterable, Mapping
from functools import cache

import polars as pl
import pyarrow as pa

_BITS: dict[type[pl.DataType], tuple[bool, int]] = {
    pl.Int8: (True, 8), pl.Int16: (True, 16), pl.Int32: (True, 32), pl.Int64: (True, 64), pl.Int128: (True, 128),
    pl.UInt8: (False, 8), pl.UInt16: (False, 16), pl.UInt32: (False, 32), pl.UInt64: (False, 64),
}  # fmt: skip
_SAFE = (pl.Boolean, pl.Null, pl.Date, pl.Datetime)


@cache
def polars_type(kind: pa.DataType) -> pl.DataType:
    """The Polars type of an Arrow type."""
    series = pl.from_arrow(pa.array([], kind))
    assert isinstance(series, pl.Series)
    return series.dtype


def polars_types(columns: Iterable[pa.Field]) -> pl.Schema:
    """The Polars type of each field."""
    return pl.Schema({f.name: polars_type(f.type) for f in columns})


def may_misfit(have: pl.DataType, wanted: pl.DataType) -> bool:
    """Whether a value of type `have` can be without a counterpart in `wanted`."""
    if have == wanted or isinstance(have, _SAFE):
        return False
    if isinstance(have, pl.List) and isinstance(wanted, pl.List):
        return may_misfit(_inner(have), _inner(wanted))
    if have.is_integer() and wanted.is_integer():
        (signed, bits), (wanted_signed, wanted_bits) = _BITS[type(have)], _BITS[type(wanted)]
        return (signed and not wanted_signed) or bits + (not signed) > wanted_bits + (not wanted_signed)
    return not (have.is_numeric() and wanted.is_float())


def misfit(column: str, have: pl.DataType, wanted: pl.DataType) -> pl.Expr:
    """True where casting `column` to `wanted` turns a value, or a list's item, into null."""
    there, cast = pl.col(column), pl.col(column).cast(wanted, strict=False)
    if isinstance(have, pl.List) and isinstance(wanted, pl.List):
        return (there.list.drop_nulls().list.len() > cast.list.drop_nulls().list.len()).fill_null(False)
    return there.is_not_null() & cast.is_null()


def misfits(rows: pl.DataFrame, wanted: Mapping[str, pl.DataType]) -> dict[str, pl.Expr]:
    """By name, for the columns of `rows` that may hold such a value: true where they do."""
    both = {name: kind for name, kind in wanted.items() if name in rows.columns}
    risky = {name: kind for name, kind in both.items() if may_misfit(rows.schema[name], kind)}
    return {name: misfit(name, rows.schema[name], kind) for name, kind in risky.items()}


def _inner(kind: pl.List) -> pl.DataType:
    inner = kind.inner
    return inner if isinstance(inner, pl.DataType) else inner()
