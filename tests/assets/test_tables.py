"""The canonical tables of a day: nothing is published where a row is lost on the way."""

from dataclasses import replace
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from assets.tables import refuse_loss
from ml.datasets import DATASETS, Dataset
from ml.errors import LakeError
from ml.readers import DayTables, canonical, reader
from ml.readers.rules import Judged, counted, judge
from tests.ml.bundles import globo_click, synthetic_bundle, write_hour
from tests.ml.test_readers_mind import small

TABLES = ("articles", "clicks", "impressions")


def _globo(root: Path) -> None:
    write_hour(root, 0, [globo_click(u, 1, "2017-10-01 03:00", 50 + u % 2, "2017-10-01 03:00") for u in (1, 2, 2, -3)])
    (root / "articles_metadata.csv").write_text("article_id,category_id\n50,1\n60,1\n")


BUNDLES = {"ebnerd": synthetic_bundle, "globo": _globo, "mind": small}


def days(name: str, root: Path, out: Path) -> list[tuple[Dataset, date, Path, DayTables]]:
    BUNDLES[name](root)
    known = DATASETS[name]
    found = reader(name).split(root, known, out)
    return [(known, day, out / str(day), reader(name).tables(out / str(day), known, day)) for day in found]


@pytest.mark.parametrize("name", BUNDLES)
def test_figures_agree_with_the_files_of_the_raw_day_and_a_row_too_many_is_seen(name: str, tmp_path: Path) -> None:
    seen = set()
    for _, _, raw, tables in days(name, tmp_path / "in", tmp_path / "out"):
        for table in TABLES:
            refuse_loss(table, tables, raw)
        for path in raw.glob("*.parquet"):
            table = {"behaviors": "impressions", "history": "clicks"}.get(path.stem, path.stem)
            if table in TABLES:
                rows = pl.read_parquet(path)
                pl.concat([rows, rows[:1]]).write_parquet(path)
                if len(rows):
                    seen.add(table)
                    with pytest.raises(LakeError, match=f"{table}: there are .* rows of the raw day"):
                        refuse_loss(table, tables, raw)
                rows.write_parquet(path)
    assert seen >= {"articles", "clicks" if name != "mind" else "impressions"}


def test_a_table_or_quarantine_without_a_row_is_seen(tmp_path: Path) -> None:
    _, _, raw, tables = days("globo", tmp_path / "in", tmp_path / "out")[0]
    with pytest.raises(LakeError, match="clicks: there are 1 published rows, 2 are accounted for"):
        refuse_loss("clicks", replace(tables, clicks=tables.clicks[:1]), raw)
    with pytest.raises(LakeError, match="clicks: there are 0 quarantined rows, 1 are accounted for"):
        refuse_loss("clicks", replace(tables, quarantine=tables.quarantine[:0]), raw)


def test_a_row_that_the_rules_lose_is_no_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known, day, raw, _ = days("globo", tmp_path / "in", tmp_path / "out")[0]

    def losing(*args: object) -> Judged:
        found = judge(*args)  # type: ignore[arg-type]
        return replace(found, kept=found.kept[:-1])

    monkeypatch.setattr(canonical, "judge", losing)
    with pytest.raises(LakeError, match="1 of 4 rows are neither published nor quarantined nor copies"):
        reader("globo").tables(raw, known, day)


def test_figures_that_do_not_add_up_are_refused() -> None:
    assert counted(4, 2, 1, 1) == {"rows_in": 4, "published": 2, "quarantined": 1, "duplicates": 1}
    with pytest.raises(LakeError, match="-1 of 4"):
        counted(4, 3, 1, 1)
