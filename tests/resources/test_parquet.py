"""Equal tables are equal bytes; damage is named."""

from pathlib import Path

import pyarrow as pa
import pytest

from ml.errors import DataError
from resources.parquet import read_parquet, write_parquet


def test_chunks_do_not_show_in_the_bytes(tmp_path: Path) -> None:
    whole = pa.table({"a": list(range(1000)), "b": [f"word {i % 7}" for i in range(1000)]})
    pieces = pa.concat_tables([whole.slice(0, 1), whole.slice(1, 600), whole.slice(601)])
    assert write_parquet(whole, tmp_path / "a") == write_parquet(pieces, tmp_path / "b") == 1000
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert read_parquet(tmp_path / "a") == whole
    assert read_parquet(tmp_path / "a", ["b"]).column_names == ["b"]


def test_damage_and_missing_columns_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_parquet(pa.table({"a": [1]}), path)
    with pytest.raises(DataError, match=r"a\.parquet: no column 'c' \(it has a\)"):
        read_parquet(path, ["c"])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"a\.parquet cannot be read"):
        read_parquet(path)
    with pytest.raises(DataError, match=r"none\.parquet is missing"):
        read_parquet(tmp_path / "none.parquet")
