"""Tables of the lake: what is written is read back; what lies, expands beyond measure or has another form is
refused."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml import schema
from ml.errors import DataError
from ml.parquet import check, read_batches, read_schema, read_table, require_columns
from tests.fuzz import lies, strange

CELLS = {
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.float32(): st.floats(width=32, allow_nan=False),
    pa.bool_(): st.booleans(),
    pa.string(): st.text(),
    pa.list_(pa.int64()): st.lists(st.integers(0, 9), max_size=4),
}


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """A table with a column of every kind, nulls among the cells."""
    rows = draw(st.integers(0, 8))
    columns = {
        str(kind): pa.array(draw(st.lists(st.none() | cells, min_size=rows, max_size=rows)), kind)
        for kind, cells in CELLS.items()
    }
    return pa.table(columns)


def written(table: pa.Table, path: Path, **options: object) -> Path:
    pq.write_table(table, path, **options)
    return path


@settings(deadline=None, max_examples=60)
@given(tables(), st.booleans(), st.integers(1, 5))
def test_what_is_written_is_read_back(table: pa.Table, dictionary: bool, rows: int) -> None:
    path = Path(os.environ.get("PYTEST_TMP", "/tmp")) / f"read-back-{os.getpid()}.parquet"
    written(table, path, use_dictionary=dictionary, row_group_size=3)
    try:
        assert read_table(path).equals(table) and check(path) == len(table)
        names = table.column_names[::-1]
        assert read_table(path, names).equals(table.select(names))
        parts = list(read_batches(path, rows))
        assert all(len(part) <= rows for part in parts)
        assert pa.concat_tables([table.slice(0, 0), *parts]).combine_chunks().equals(table.combine_chunks())
    finally:
        path.unlink()


def clicks(rows: int) -> pa.Table:
    nulls = {name: pa.nulls(rows, schema.CLICKS.field(name).type) for name in schema.CLICKS.names}
    known = {schema.USER_ID: np.arange(rows), schema.ARTICLE_ID: np.arange(rows)}
    return pa.table({**nulls, **known, schema.CLICK_TIME: pa.array(np.arange(rows)).cast(schema.TIME)})


def test_columns_of_a_schema_have_its_types_and_the_file_s_metadata(tmp_path: Path) -> None:
    wanted = schema.some(schema.CLICKS, schema.CLICK_TIME, schema.USER_ID, "device")
    table = clicks(3).set_column(7, "device", pa.nulls(3)).replace_schema_metadata({b"a": b"b"})
    found = read_table(written(table, tmp_path / "t"), wanted)
    assert found.schema.equals(wanted) and found.schema.metadata[b"a"] == b"b"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.drop_columns(["user_id"]), "no column 'user_id' .it has article_id"),
        (lambda t: t.append_column("user_id", t["user_id"]), "column 'user_id' twice"),
        (lambda t: t.set_column(0, "user_id", t["user_id"].cast(pa.int32())), "user_id has type int32, not int64"),
        (lambda t: t.set_column(0, "user_id", t["user_id"].cast(pa.string())), "user_id has type string"),
        (lambda t: t.set_column(0, "user_id", pa.array([[1]] * 3)), "user_id has type list"),
        (lambda t: t.set_column(0, "user_id", pa.array([["a"]] * 3)), "type list<.*string>, which no table here has"),
        (lambda t: t.set_column(0, "user_id", pa.array([b"a"] * 3)), "binary, which no table here has"),
        (lambda t: t.set_column(0, "user_id", pa.array([1, None, 2])), "null values to non-nullable"),
    ],
)
def test_another_form_is_refused(tmp_path: Path, change, said: str) -> None:
    path = written(change(clicks(3)), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=rf"t\.parquet.*{said}.*: again$"):
        read_table(path, schema.some(schema.CLICKS, "user_id"), "again")
    if "null values" not in said:
        with pytest.raises(DataError, match=said):
            require_columns(path, schema.some(schema.CLICKS, "user_id"), "again")


@pytest.mark.parametrize("lie", [lies.everything_fewer, lies.page_sizes])
def test_a_footer_that_lies_is_refused(tmp_path: Path, lie) -> None:
    path = written(clicks(50), tmp_path / "t")
    path.write_bytes(lie(path.read_bytes(), np.random.default_rng(0)))
    for read in (read_table, check, lambda p: list(read_batches(p, 10))):
        with pytest.raises(DataError, match="t cannot be read as parquet"):
            read(path)


@pytest.mark.parametrize(("checksum", "put", "said"), [(False, b"\xff", "UTF"), (True, b"y", "CRC")])
def test_texts_that_are_not_utf8_and_damaged_pages_are_refused(
    tmp_path: Path, checksum: bool, put: bytes, said: str
) -> None:
    as_it_is = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    path = written(pa.table({"a": ["x" * 40]}), tmp_path / "t", write_page_checksum=checksum, **as_it_is)
    data = path.read_bytes()
    assert data.count(b"x" * 40) == 1
    path.write_bytes(data.replace(b"x" * 40, put * 40))
    with pytest.raises(DataError, match=said):
        read_table(path)


@pytest.mark.parametrize(
    "data", [b"", b"PAR1", b"PAR1" * 3, b"PAR1" + b"\xff" * 8 + b"\xff\xff\xff\x7fPAR1", b"x" * 100]
)
def test_what_is_no_parquet_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "t").write_bytes(data)
    for read in (read_table, read_schema, check):
        with pytest.raises(DataError, match=r"t cannot be read as parquet .*(end is not that|it is empty)"):
            read(tmp_path / "t")


def test_links_are_not_followed(tmp_path: Path) -> None:
    written(clicks(1), tmp_path / "there")
    (tmp_path / "t").symlink_to(tmp_path / "there")
    with pytest.raises(DataError, match="t is a link"):
        read_table(tmp_path / "t")


_READ = """
import resource, sys, pathlib
import pyarrow.compute, pyarrow.dataset
from ml.errors import DataError
from ml.parquet import read_batches, read_table
path, way = pathlib.Path(sys.argv[1]), sys.argv[2]
taken = int(next(l for l in open("/proc/self/status") if l.startswith("VmSize")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (taken + (1_500 << 20),) * 2)
try:
    print("taken", len(read_table(path)) if way == "whole" else sum(len(t) for t in read_batches(path, 65536)))
except DataError as error:
    print("refused", error)
"""


def bomb(kind: str) -> bytes:
    """A small file that takes gigabytes."""
    rng = np.random.default_rng(0)
    if kind == "rows":
        out = io.BytesIO()
        block = pa.table({name: np.zeros(4_000_000, dtype=np.int64) for name in "abcd"})
        with pq.ParquetWriter(out, block.schema, compression="zstd") as writer:
            for _ in range(6):
                writer.write_table(block, row_group_size=len(block))
        return out.getvalue()
    table, made = pa.table({"a": ["x"], "b": pa.array([[1]])}), None
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    while made is None:
        made = (
            strange.text_bomb(buffer.getvalue(), rng) if kind == "text" else strange.list_bomb(buffer.getvalue(), rng)
        )
    return made


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["rows", "text", "list"])
@pytest.mark.parametrize("way", ["whole", "batches"])
def test_bombs_take_bounded_memory(tmp_path: Path, kind: str, way: str) -> None:
    path = tmp_path / "bomb.parquet"
    path.write_bytes(bomb(kind))
    assert path.stat().st_size < 4 << 20
    settings_ = os.environ | {"OMP_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
    done = subprocess.run(
        [sys.executable, "-c", _READ, str(path), way], capture_output=True, text=True, check=False, env=settings_
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said = done.stdout.strip()
    assert said.startswith("refused") or way == "batches", said
    assert "malloc" not in said and "memory" not in said
