"""Hostile sources: bombs, cells of 100 MB, lying metadata, links; each is held back or refused in bounded memory."""

import gzip
import json
import os
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml.datasets import DATASETS
from ml.errors import DataError
from ml.readers import DayTables, canonical, files, reader, rules
from ml.readers.cells import LIST_ITEMS, sound
from ml.readers.files import frame, parquet_batches
from ml.readers.rules import NUMBER
from ml.readers.text import column_names, pieces
from tests.fuzz import lies
from tests.ml import bundles
from tests.ml.bundles import GLOBO_COLUMNS, article, globo_click, history, impression, write_bundle, write_hour
from tests.ml.test_readers_ebnerd import assert_conserved, reasons, told
from tests.ml.test_readers_mind import write_mind
from tests.ml.test_readers_own_log import click, write_log

EBNERD, GLOBO = DATASETS["ebnerd"], DATASETS["globo"]
D18 = date(2023, 5, 18)
TIME = "2023-05-18 10:00"
MIB = 1 << 20
WITHIN = 1_500 * MIB
"""Address space beyond what the imports take, in which every hostile source must be dealt with."""

_SPLIT = """
import resource, sys, pathlib
from ml.datasets import DATASETS
from ml.errors import DataError
from ml.own_log import declared_dataset
from ml.readers import reader
import polars, pyarrow.dataset, pyarrow.compute
polars.DataFrame({"a": [1]}).lazy().filter(polars.col("a") > 0).collect()
name, root, out, within = sys.argv[1:]
taken = int(next(l for l in open("/proc/self/status") if l.startswith("VmSize")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (taken + int(within),) * 2)
try:
    known = DATASETS.get(name) or declared_dataset(pathlib.Path(root))
    days = reader(name).split(pathlib.Path(root), known, pathlib.Path(out))
    rows = {str(d): reader(name).tables(pathlib.Path(out) / str(d), known, d).counts for d in days}
    print("taken", sorted(rows))
except DataError as error:
    print("refused", error)
"""


def split_apart(name: str, root: Path, out: Path, within: int = WITHIN) -> str:
    """What a process of bounded memory says of a source."""
    command = [sys.executable, "-c", _SPLIT, name, str(root), str(out), str(within)]
    environment = os.environ | {
        "POLARS_MAX_THREADS": "2",
        "OMP_NUM_THREADS": "1",
        "ARROW_DEFAULT_MEMORY_POOL": "system",
    }
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-2_000:]
    return done.stdout.strip()


def held_back(out: Path) -> list[dict[str, Any]]:
    """The split's quarantine with the rows parsed."""
    rows = pq.read_table(out / "quarantine.parquet").to_pylist()
    return [r | {"content": json.loads(r["row"])} for r in rows]


def one_impression(root: Path, **more: Any) -> Path:
    return write_bundle(root, {"train": [impression(1, 1, TIME, [5, 6], [5])]}, {}, **more)


def split(root: Path, out: Path) -> dict[date, DayTables]:
    found = reader("ebnerd")
    return {d: found.tables(out / str(d), EBNERD, d) for d in found.split(root, EBNERD, out)}


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(path)), path)


def put(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)


# Bounded memory


def test_a_text_of_100_mb_is_held_back_and_cut(tmp_path: Path) -> None:
    listed = [article(5, "2023-05-18 08:00"), article(6, "2023-05-18 08:00", body="x" * (100 << 20))]
    root = one_impression(tmp_path / "in", articles=listed)
    del listed
    assert split_apart("ebnerd", root, tmp_path / "out") == "taken ['2023-05-18']"
    (row,) = held_back(tmp_path / "out")
    assert (row["reason"], row["source"], row["content"]["article_id"]) == ("oversized_text", "articles.parquet:2", 6)
    assert row["content"]["body"].endswith("... [cut, 104857600 bytes]")
    assert len(row["row"]) < 2_000
    tables = reader("ebnerd").tables(tmp_path / "out" / "2023-05-18", EBNERD, D18)
    known = dict(zip(*(tables.articles[c].to_pylist() for c in ("article_id", "published_is_first_seen")), strict=True))
    assert known == {5: False, 6: True}  # it was shown, so it is an article, known by its first appearance


@pytest.mark.slow
def test_a_text_of_100_mb_that_is_repeated_in_a_tiny_file(tmp_path: Path) -> None:
    root = one_impression(tmp_path / "in", articles=[article(i, "2023-05-18 08:00") for i in range(300)])
    body = pa.DictionaryArray.from_arrays(pa.array([0] * 300, pa.int32()), pa.array(["x" * (100 << 20)]))
    table = pq.read_table(root / "articles.parquet")
    schema = table.schema.set(table.column_names.index("body"), pa.field("body", body.type))
    columns = [body if n == "body" else table[n].combine_chunks() for n in table.column_names]
    pq.write_table(pa.table(columns, schema=schema), root / "articles.parquet", compression="zstd", store_schema=False)
    del body, columns
    assert (root / "articles.parquet").stat().st_size < MIB
    assert split_apart("ebnerd", root, tmp_path / "out") == "taken ['2023-05-18']"
    assert [r["reason"] for r in held_back(tmp_path / "out")] == ["oversized_text"] * 300


@pytest.mark.slow
def test_a_list_of_100_mb_is_held_back_and_cut(tmp_path: Path) -> None:
    root = one_impression(tmp_path / "in")

    def change(table: pa.Table) -> pa.Table:
        many = pa.array(np.arange(26_000_000, dtype=np.int32))
        lists = pa.LargeListArray.from_arrays(pa.array([0, 2, len(many)], pa.int64()), many)
        return put(table.take([0, 0]), "article_ids_inview", lists)

    rewrite(root / "train" / "behaviors.parquet", change)
    assert split_apart("ebnerd", root, tmp_path / "out") == "taken ['2023-05-18']"
    (row,) = held_back(tmp_path / "out")
    assert row["reason"] == "oversized_list"
    assert row["content"]["__cut"] == "500 of 25999998 items of article_ids_inview"
    assert len(row["content"]["article_ids_inview"]) == 500


def test_a_line_of_100_mb_is_held_back_and_cut(tmp_path: Path) -> None:
    lines = [globo_click(1, 1, "2017-10-01 04:00", 50 + i, "2017-10-01 05:00") for i in range(3)]
    wide = globo_click("7" * (100 << 20), 1, "2017-10-01 04:00", 50, "2017-10-01 05:00")
    write_hour(tmp_path / "in", 0, [lines[0], wide, lines[1], lines[2]], packed=False)
    del wide
    assert split_apart("globo", tmp_path / "in", tmp_path / "out") == "taken ['2017-10-01']"
    (row,) = held_back(tmp_path / "out")
    assert (row["reason"], len(row["row"]) < 2_000) == ("oversized_line", True)
    assert pq.read_metadata(tmp_path / "out" / "2017-10-01" / "clicks.parquet").num_rows == 3


def test_a_line_of_100_mb_in_mind_is_held_back_and_cut(tmp_path: Path) -> None:
    root = write_mind(tmp_path / "in", "train", ["1|U7|11/9/2019 9:00:00 AM||N5-1 N6-0"])
    with (root / "train" / "behaviors.tsv").open("ab") as file:
        file.write(b"2\tU7\t11/9/2019 9:00:00 AM\t\t" + b"N5-1 " * (20 << 20) + b"\n")
        file.write(b"3\tU7\t11/9/2019 9:00:00 AM\t\tN5-0\n")
    assert split_apart("mind", root, tmp_path / "out").startswith("taken ['2019-11-09']")
    (row,) = held_back(tmp_path / "out")
    assert (row["reason"], row["source"]) == ("line_too_long", "train/behaviors.tsv:2")
    assert len(row["row"]) < 1_000
    raw = pq.read_table(tmp_path / "out" / "2019-11-09" / "impressions.parquet")
    assert raw["impression_id"].to_pylist() == [1, 3]


def test_a_text_of_100_mb_and_a_list_of_a_million_in_an_own_log_are_held_back_and_cut(tmp_path: Path) -> None:
    long = np.random.default_rng(0).integers(0, 2**40, 1_000_000)
    shown = {"impression_id": 1, "user_id": 1, "time": bundles.at("2023-05-01 08:00"), "clicked": [5]}
    root = write_log(
        tmp_path / "in",
        clicks=[click(1, 5, "2023-05-01 08:00")],
        articles=[{"article_id": 5, "body": "x" * (100 << 20)}, {"article_id": 6, "body": "short"}],
        impressions=[{**shown, "inview": [5, 6]}, {**shown, "impression_id": 2, "inview": long}],
    )
    assert split_apart("own", root, tmp_path / "out").startswith("taken ['2023-05-01']")
    found = {r["source"]: r["reason"] for r in held_back(tmp_path / "out")}
    assert found == {"articles.parquet:1": "oversized_text", "impressions.parquet:2": "oversized_list"}
    assert max(len(r["row"]) for r in held_back(tmp_path / "out")) < 10_000


@pytest.mark.parametrize("lines", [True, False])
def test_a_gzip_bomb_is_refused(tmp_path: Path, lines: bool) -> None:
    path = write_hour(tmp_path / "in", 0, [])
    block = (globo_click(1, 1, "2017-10-01 04:00", 50, "2017-10-01 05:00").encode() + b"\n") * 14_000 if lines else None
    block = block or b"\0" * MIB
    packer = zlib.compressobj(9, wbits=31)
    with path.open("wb") as stream:
        stream.write(packer.compress(GLOBO_COLUMNS.encode() + b"\n"))
        for _ in range(500 if lines else 250):
            stream.write(packer.compress(block))
        stream.write(packer.flush())
    assert path.stat().st_size < 10 * MIB
    said = split_apart("globo", tmp_path / "in", tmp_path / "out")
    assert said.startswith("refused") and "clicks_hour_000.csv.gz" in said and "expands to more than" in said


def test_a_bomb_of_rows_is_refused(tmp_path: Path) -> None:
    root = one_impression(tmp_path / "in")
    path = root / "train" / "behaviors.parquet"
    table = pq.read_table(path)
    with pq.ParquetWriter(path, table.schema, compression="zstd", data_page_size=64 * MIB) as writer:
        writer.write_table(table.take(pa.array(np.zeros(3_000_000, np.int32))), row_group_size=3_000_000)
    assert path.stat().st_size < MIB
    said = split_apart("ebnerd", root, tmp_path / "out")
    assert said.startswith("refused") and "behaviors.parquet" in said and "claims" in said


# Lying metadata


def lied(root: Path, lie: Callable[[bytes], bytes], name: str = "train/behaviors.parquet") -> Path:
    path = root / name
    path.write_bytes(lie(path.read_bytes()))
    return root


def three_impressions(root: Path) -> Path:
    return write_bundle(root, {"train": [impression(i, i, TIME, [5, 6], [5]) for i in (1, 2, 3)]}, {})


@pytest.mark.parametrize("lie", [lies.everything_fewer, lies.page_sizes])
def test_metadata_that_lies_is_refused(tmp_path: Path, lie: Callable[..., bytes]) -> None:
    root = lied(three_impressions(tmp_path / "in"), lambda data: lie(data, np.random.default_rng(0)))
    with pytest.raises(DataError, match=r"train/behaviors\.parquet cannot be read \(column .*fetch it again"):
        reader("ebnerd").split(root, EBNERD, tmp_path / "out")


def test_pyarrow_alone_believes_the_lie(tmp_path: Path) -> None:
    """Why the pages are counted: without that, a row would be lost without a word."""
    root = lied(three_impressions(tmp_path), lambda data: lies.everything_fewer(data, np.random.default_rng(0)))
    with pq.ParquetFile(root / "train" / "behaviors.parquet") as file:
        assert [len(batch) for batch in file.iter_batches()] == [2]


def test_statistics_that_lie_change_nothing(tmp_path: Path) -> None:
    root = lied(three_impressions(tmp_path / "in"), lambda data: lies.statistics(data, np.random.default_rng(1)))
    tables = split(root, tmp_path / "out")[D18]
    assert tables.impressions["impression_id"].to_pylist() == [1, 2, 3]
    assert len(tables.quarantine) == 0


@pytest.mark.parametrize("number", [10**12, -1, 2**62])
def test_a_claim_of_many_rows_asks_for_no_memory(tmp_path: Path, number: int) -> None:
    def claim(footer: lies.Footer) -> None:
        for fields, at in [(footer, 3), *((g, 3) for g in lies.groups(footer)), *((c, 5) for c in lies.chunks(footer))]:
            lies.put(fields, at, number)

    root = lied(three_impressions(tmp_path / "in"), lambda data: lies.relied(data, claim))
    with pytest.raises(DataError, match=r"train/behaviors\.parquet cannot be read"):
        reader("ebnerd").split(root, EBNERD, tmp_path / "out")


# Types and values


def test_times_that_overflow_are_held_back(tmp_path: Path) -> None:
    seconds = pa.array([2**63 - 1, -(2**63), 2**62, 1_684_404_000, None], pa.int64()).cast(pa.timestamp("s"))
    made, damage = sound(pa.table({"t": seconds}))
    assert damage is not None
    assert damage.to_pylist() == ["time_out_of_range"] * 3 + [None] * 2
    assert made["t"].cast(pa.int64()).to_pylist() == [None] * 3 + [1_684_404_000_000, None]
    lists = pa.ListArray.from_arrays([0, 2, 3, 3, 5], seconds)
    made, damage = sound(pa.table({"t": lists}))
    assert damage is not None
    assert damage.to_pylist() == ["time_out_of_range", "time_out_of_range", None, None]
    assert made.schema.field("t").type == pa.list_(pa.timestamp("ms"))


def test_years_1_and_9999_and_beyond(tmp_path: Path) -> None:
    root = write_bundle(
        tmp_path / "in",
        {"train": [impression(i, 1, TIME, [5], [5]) for i in range(1, 6)]},
        {},
        [article(i, "2023-05-18 08:00") for i in range(1, 5)],
    )
    extremes = [2**63 - 1, -(2**63), -62_135_596_800 * 10**6, 253_402_214_400 * 10**6]

    def change(name: str) -> Callable[[pa.Table], pa.Table]:
        return lambda t: put(
            t, name, pa.array([*extremes, *t[name].cast(pa.int64()).to_pylist()[4:]]).cast(bundles.NAIVE)
        )

    rewrite(root / "train" / "behaviors.parquet", change("impression_time"))
    rewrite(root / "articles.parquet", change("published_time"))
    tables = split(root, tmp_path / "out")[D18]
    assert tables.impressions["impression_id"].to_pylist() == [5]
    rows = held_back(tmp_path / "out")
    assert reasons(pq.read_table(tmp_path / "out" / "quarantine.parquet")) == {
        ("impressions", "outside_days"): 4, ("articles", "implausible_time"): 4,
    }  # fmt: skip
    assert {r["content"]["impression_time"] for r in rows if r["table"] == "impressions"} >= {9_223_372_036_854_775}


def test_values_that_fit_no_column_are_held_back_with_the_value(tmp_path: Path) -> None:
    root = write_bundle(tmp_path / "in", {"train": [impression(i, i, TIME, [5], [5]) for i in (1, 2, 3, 4)]}, {})

    def change(table: pa.Table) -> pa.Table:
        table = put(table, "user_id", pa.array([2**64 - 1, 2, 3, 4], pa.uint64()))
        table = put(table, "article_ids_inview", pa.array([[5], [5, 2**63], [5], [5]], pa.list_(pa.uint64())))
        return put(table, "device_type", pa.array([1, 1, 2**31, 1], pa.int64()))

    rewrite(root / "train" / "behaviors.parquet", change)
    tables = split(root, tmp_path / "out")[D18]
    assert tables.impressions["impression_id"].to_pylist() == [4]
    rows = held_back(tmp_path / "out")
    assert [r["reason"] for r in rows] == ["out_of_range"] * 3
    found = [(r["content"]["user_id"], r["content"]["article_ids_inview"], r["content"]["device_type"]) for r in rows]
    assert found == [(2**64 - 1, [5], 1), (2, [5, 2**63], 1), (3, [5], 2**31)]


def test_canonical_tables_hold_back_what_their_types_cannot_say() -> None:
    start = EBNERD.clock.start(D18)
    rows = pl.DataFrame(
        {
            "user_id": [1, 2],
            "article_id": ["7", "x"],
            "time": [start, start],
            "device": [2**31, 1],
            "source": ["a", "a"],
        }
    )
    result = canonical.clicks(rows, start, start + 1)
    assert len(result.rows) == 0
    assert result.held_back["reason"].to_pylist() == ["out_of_range", "out_of_range"]
    assert [json.loads(r)["__unfit"] for r in result.held_back["row"].to_pylist()] == [
        "device=2147483648",
        "article_id=x",
    ]


def test_infinite_and_negative_read_times_are_unknown(tmp_path: Path) -> None:
    values = [float("inf"), -5.0, float("nan"), 3.5, 1e300]
    rows = [impression(i, i, TIME, [5], [5]) for i in range(1, 6)]
    root = write_bundle(tmp_path / "in", {"train": rows}, {})
    rewrite(root / "train" / "behaviors.parquet", lambda t: put(t, "next_read_time", pa.array(values, pa.float64())))
    tables = split(root, tmp_path / "out")[D18]
    assert tables.clicks["read_time"].to_pylist() == [None, None, None, 3.5, None]
    assert told(tables) == {("clicks", "value_out_of_range", "next_read_time", "train/behaviors.parquet"): 4}


def test_text_that_is_not_utf8_is_held_back(tmp_path: Path) -> None:
    root = one_impression(tmp_path / "in", articles=[article(5, "2023-05-18 08:00"), article(6, "2023-05-18 08:00")])
    raw = pa.array([b"fine", b"\xffbad\x80"])
    texts = pa.Array.from_buffers(pa.string(), 2, raw.buffers())
    rewrite(root / "articles.parquet", lambda t: put(t, "title", texts))
    tables = split(root, tmp_path / "out")[D18]
    (row,) = held_back(tmp_path / "out")
    assert (row["reason"], row["content"]["title"]) == ("not_utf8", "\\xffbad\\x80")
    assert dict(zip(tables.articles["article_id"].to_pylist(), tables.articles["title"].to_pylist(), strict=True)) == {
        5: "fine", 6: None,
    }  # fmt: skip
    with pytest.raises(DataError, match=r"articles\.parquet has 1 rows with cells like not_utf8: mend or remove them"):
        list(files.parquet_batches(root / "articles.parquet", 10))


def test_negative_ids_in_view_are_held_back(tmp_path: Path) -> None:
    root = write_bundle(tmp_path / "in", {"train": [impression(1, 1, TIME, [5, -6], [5])]}, {})
    tables = split(root, tmp_path / "out")[D18]
    assert reasons(tables.quarantine) == {("impressions", "negative_id"): 1}
    assert_conserved(tables)


@pytest.mark.parametrize("name", ["source", "__day", "__placed", "__damage", "reason", "time", "line\nbreak"])
def test_a_column_may_have_any_name(tmp_path: Path, name: str) -> None:
    root = one_impression(tmp_path / "in", articles=[article(5, "2023-05-18 08:00")])
    said: list[str] = []
    for file in ("train/behaviors.parquet", "articles.parquet"):
        rewrite(root / file, lambda t: t.append_column(name, pa.array(["x"] * len(t))))
    days = reader("ebnerd").split(root, EBNERD, tmp_path / "out", said.append)
    assert days == [D18]
    raw = pq.read_table(tmp_path / "out" / "2023-05-18" / "behaviors.parquet")
    assert raw["source"].to_pylist() == ["train/behaviors.parquet"]
    left_out = name in ("source", "__day", "__placed", "__damage")
    assert (name in raw.column_names and name != "source") is not left_out
    assert any("left out" in line for line in said) is left_out


def test_columns_that_nothing_carries_are_named(tmp_path: Path) -> None:
    root = one_impression(tmp_path / "in")
    rewrite(root / "train" / "behaviors.parquet", lambda t: t.append_column("nested", pa.array([{"a": 1}])))
    said: list[str] = []
    reader("ebnerd").split(root, EBNERD, tmp_path / "out", said.append)
    assert "split train/behaviors.parquet: columns that no table needs are left out: nested" in said


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    root = one_impression(tmp_path / "in")
    rewrite(root / "train" / "behaviors.parquet", lambda t: t.append_column("user_id", t["user_id"]))
    with pytest.raises(DataError, match=r"behaviors\.parquet: column user_id is there 2 times"):
        reader("ebnerd").split(root, EBNERD, tmp_path / "out")


def test_a_history_list_beyond_all_measure(tmp_path: Path) -> None:
    many = history(4, *[("2023-05-17 10:00", 5)] * (LIST_ITEMS + 1))
    root = write_bundle(tmp_path / "in", {}, {"train": [many, history(5, ("2023-05-17 10:00", 5))]})
    tables = split(root, tmp_path / "out")[date(2023, 5, 17)]
    assert tables.clicks["user_id"].to_pylist() == [5]
    assert [r["reason"] for r in held_back(tmp_path / "out")] == ["oversized_list"]


def test_quarantined_rows_are_cut_with_a_note() -> None:
    rows = pl.DataFrame({"a": ["x" * 5_000, "short"], "b": [[1], list(range(900))], "source": ["s", "s"]})
    table = rules.quarantine(rows, "clicks", pl.lit("why"))
    first, second = (json.loads(r) for r in table["row"].to_pylist())
    assert first["__cut"] == "2000 of 5000 bytes of a"
    assert second["__cut"] == "500 of 900 items of b"
    assert (len(first["a"]), second["a"], len(second["b"])) == (2_000, "short", 500)


# Paths


def _fifo(path: Path) -> None:
    os.mkfifo(path)


PLACES: dict[str, Callable[[Path], None]] = {
    "pipe": _fifo,
    "folder": Path.mkdir,
    "dangling link": lambda path: path.symlink_to(path.parent / "nothing"),
    "circular link": lambda path: path.symlink_to(path),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "absolute link": lambda path: path.symlink_to("/etc/hostname"),
    "relative link": lambda path: path.symlink_to("../../../outside"),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ["train/history.parquet", "articles.parquet", "document_vector.parquet"])
def test_what_is_no_file_within_the_root_is_refused(tmp_path: Path, name: str, place: str) -> None:
    root = one_impression(tmp_path / "a" / "b" / "in")
    (tmp_path / "outside").write_text("x")
    PLACES[place](root / name)
    with pytest.raises(DataError, match=rf"{name} (is no regular file|leads outside|leads nowhere|cannot be reached)"):
        reader("ebnerd").sources(root)


@pytest.mark.parametrize("place", PLACES)
def test_the_same_for_hour_files(tmp_path: Path, place: str) -> None:
    root = tmp_path / "a" / "in"
    write_hour(root, 0, [])
    PLACES[place](root / "clicks" / "clicks_hour_001.csv")
    with pytest.raises(DataError, match=r"clicks_hour_001\.csv (is no|leads|cannot be reached)"):
        reader("globo").sources(root)


def test_a_link_within_the_root_is_followed(tmp_path: Path) -> None:
    root = one_impression(tmp_path / "in")
    (root / "train").rename(root / "elsewhere")
    (root / "train").symlink_to(root / "elsewhere")
    assert list(split(root, tmp_path / "out")) == [D18]


def test_a_folder_of_artifacts_that_lies_outside_is_refused(tmp_path: Path) -> None:
    root = one_impression(tmp_path / "in")
    (tmp_path / "vectors").mkdir()
    (root / "artifacts").symlink_to(tmp_path / "vectors")
    with pytest.raises(DataError, match="artifacts leads outside the data root"):
        reader("ebnerd").sources(root)


def test_names_of_any_bytes_give_one_line(tmp_path: Path) -> None:
    root = tmp_path / os.fsdecode(b"in\xff\nput")
    write_hour(root, 0, [globo_click(1, 1, "2017-10-01 04:00", 50, "2017-10-01 05:00"), "x"])
    odd = root / "clicks" / os.fsdecode(b"clicks_hour_\xfe\n1.csv")
    odd.write_text(f"{GLOBO_COLUMNS}\ny\n")
    reader("globo").split(root, GLOBO, tmp_path / "out")
    assert [r["source"] for r in held_back(tmp_path / "out")] == [
        "clicks/clicks_hour_000.csv.gz:3", "clicks/clicks_hour_\\udcfe\\n1.csv:2",
    ]  # fmt: skip
    odd.write_bytes(b"")
    with pytest.raises(DataError) as error:
        reader("globo").split(root, GLOBO, tmp_path / "again")
    assert str(error.value).isprintable()


def _encrypted(path: Path) -> None:
    with duckdb.connect(config={"force_mbedtls_unsafe": "true"}) as con:
        con.execute("PRAGMA add_parquet_key('k', '0123456789112345')")
        con.execute(f"COPY (SELECT 1 AS user_id) TO '{path}' (ENCRYPTION_CONFIG {{footer_key: 'k'}})")


WHOLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "encrypted": (_encrypted, "(it is encrypted): write it without encryption"),
    "text": (lambda p: p.write_bytes("user_id,café\n1,2\n".encode("latin-1")), "(it is text, no parquet): convert it"),
    "gzip": (lambda p: p.write_bytes(gzip.compress(b"PAR1")), "(it is packed by gzip): unpack it"),
    "empty": (lambda p: p.write_bytes(b""), "(it is empty): it is damaged or incomplete, fetch it again"),
    "cut": (lambda p: p.write_bytes(b"PAR1\0\0\0"), ": it is damaged or incomplete, fetch it again"),
}


@pytest.mark.parametrize("what", WHOLE)
def test_a_whole_file_that_is_no_parquet_is_called_what_it_is(tmp_path: Path, what: str) -> None:
    make, said = WHOLE[what]
    make(tmp_path / "clicks.parquet")
    with pytest.raises(DataError) as error:
        frame(tmp_path / "clicks.parquet")
    assert said in str(error.value)


def test_a_parquet_file_whose_name_is_not_utf8_is_to_be_renamed(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    odd = (tmp_path / "a.parquet").rename(tmp_path / os.fsdecode(b"\xff.parquet"))
    with pytest.raises(DataError, match=r"cannot be read .its path is not UTF-8.: rename the file or its folder"):
        frame(odd)


def test_a_plain_file_under_a_packed_name(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_text("a\n1\n")
    with pytest.raises(
        DataError, match=r"a\.csv\.gz .*it is not packed by gzip.: leave \.gz out of its name, or pack it"
    ):
        column_names(tmp_path / "a.csv.gz")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (gzip.compress(b"a\n1\n"), "(it is packed by gzip): end its name in .gz, or unpack it"),
        ("a\n1\n".encode("utf-16"), "(it is UTF-16): save it as UTF-8"),
    ],
    ids=["gzip", "utf-16"],
)
def test_a_text_file_in_another_form(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "a.csv").write_bytes(data)
    for read in (lambda p: column_names(p), lambda p: list(pieces(p, ["a"]))):
        with pytest.raises(DataError) as error:
            read(tmp_path / "a.csv")
        assert said in str(error.value)


def test_a_file_that_expands_names_the_limit_and_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ml.readers.files._DECODED_FLOOR", 1 << 20)
    pq.write_table(pa.table({"title": ["a" * 1_000_000] * 40}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"expands to more than [0-9]+ MiB, the most .*: write it without compression"):
        list(parquet_batches(tmp_path / "a.parquet", 100))
    pq.write_table(
        pa.table({"title": ["a" * 1_000_000] * 4}), tmp_path / "b.parquet", compression="none", use_dictionary=False
    )
    assert sum(len(t) for t in parquet_batches(tmp_path / "b.parquet", 100)) == 4
    monkeypatch.setattr("ml.readers.text._DECODED_FLOOR", 0)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"a\n" + b"1\n" * 100_000))
    with pytest.raises(DataError, match=r"expands to more than [0-9]+ MiB, the most .*: unpack it"):
        list(pieces(tmp_path / "a.csv.gz", ["a"]))


# Text


def cells(path: Path, **options: Any) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Rows and breaches, each with the number of its line at the end."""
    found = list(pieces(path, ("a", "b"), **options))
    rows: Iterator[Any] = (row for piece in found for row in piece.rows.rows())
    return list(rows), [row for piece in found for row in piece.bad.rows()]


def test_every_line_is_a_row_or_a_breach(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(
        b'\xef\xbb\xbfb,extra,a\r\n1,2,3\r\n,x,\r\n1,2\r\n1,2,3,4\r\n\r\n"5",6,"7,8"\r\n1,"2,3\r\n\xff,1,2\r\n9,9,9'
    )
    rows, bad = cells(path)
    assert rows == [("3", "1", 2), (None, None, 3), ("7,8", "5", 7), ("9", "9", 10)]
    assert [(reason, line) for reason, _, line in bad] == [
        ("wrong_number_of_fields", 4), ("wrong_number_of_fields", 5), ("unbalanced_quotes", 8), ("not_utf8", 9),
    ]  # fmt: skip
    assert bad[-1][1] == "\\xff,1,2\r".removesuffix("\r") or bad[-1][1].startswith("\\xff,1,2")


@pytest.mark.parametrize("separator", [",", "\t"])
def test_many_blocks_of_lines(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "x.tsv.gz"
    lines = [f"{i}{separator}{i % 7}" for i in range(900_000)]
    path.write_bytes(gzip.compress("\n".join([separator.join("ab"), *lines]).encode(), 1))
    found = list(pieces(path, ("b", "a"), separator))
    assert len(found) > 2
    rows = pl.concat([p.rows for p in found])
    assert rows["a"].to_list() == [str(i) for i in range(900_000)]
    assert rows["b"][-1] == str(899_999 % 7)
    assert rows[NUMBER].to_list() == list(range(2, 900_002))
    assert sum(len(p.bad) for p in found) == 0
