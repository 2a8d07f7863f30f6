"""Rows on their way to days: all arrive, in order, with few bytes gathered and few files open."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml.readers import spill
from ml.readers.spill import DaySpill

FIELDS = pa.schema([("n", pa.int64()), ("text", pa.string()), ("more", pa.list_(pa.int64()))])
DAYS = 60


def pieces(seed: int) -> list[pl.DataFrame]:
    """Rows of 60 days in disorder, numbered; a day has 1 to some hundred."""
    rng = np.random.default_rng(seed)
    found, n = [], 0
    for _ in range(20):
        size = int(rng.integers(1, 400))
        days = [date(2023, 1, 1) + timedelta(days=int(d)) for d in rng.integers(0, DAYS, size)]
        texts = [None if d.day == 3 else "x" * int(rng.integers(0, 200)) for d in days]
        numbers = list(range(n, n + size))
        lists = [[i] * (i % 3) for i in numbers]
        found.append(pl.DataFrame({"n": numbers, "text": texts, "more": lists, "day": days}))
        n += size
    return found


@pytest.mark.parametrize("seed", range(3))
def test_many_days_take_few_bytes_and_few_open_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    class Counting(pq.ParquetWriter):  # type: ignore[misc]
        open = most = 0

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            Counting.open += 1
            Counting.most = max(Counting.most, Counting.open)

        def close(self) -> None:
            if self.is_open:
                Counting.open -= 1
            super().close()

    monkeypatch.setattr(spill.pq, "ParquetWriter", Counting)
    monkeypatch.setattr(spill, "_BUDGET", 60_000)
    monkeypatch.setattr(spill, "_OPEN", 4)
    most = 0
    with DaySpill(tmp_path, "rows", FIELDS) as days:
        for piece in pieces(seed):
            days.append(piece, "day")
            assert days._held == sum(s.held for s in days._days.values())
            most = max(most, days._held)
    assert most <= 60_000 and Counting.open == 0
    assert Counting.most <= 4 + 1 + spill._WAITING + 1, "those that wait to be closed, and the one that is written"
    expected = pl.concat(pieces(seed)).partition_by("day", include_key=False, as_dict=True)
    assert days.days == sorted(day for (day,) in expected)
    for (day,), rows in expected.items():
        assert [p.name for p in (tmp_path / str(day)).iterdir()] == ["rows.parquet"]
        found = pq.read_table(tmp_path / str(day) / "rows.parquet")
        assert found.schema.equals(FIELDS)
        assert found.to_pylist() == rows.to_dicts() and days.rows[day] == len(rows)


def test_equal_rows_give_equal_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill, "_BUDGET", 60_000)
    monkeypatch.setattr(spill, "_OPEN", 4)
    for out in ("a", "b"):
        with DaySpill(tmp_path / out, "rows", FIELDS) as days:
            for piece in pieces(9):
                days.append(piece, "day")
    first, second = (sorted((tmp_path / out).rglob("*.parquet")) for out in ("a", "b"))
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
