"""Drops of MIND and of own logs: they become days as those of the other layouts do."""

from datetime import date
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from ml.articles import build_article_features
from ml.datasets import Dataset, dataset
from ml.errors import DataError
from ml.log import Catalogue, Clicks
from ml.own_log import declared_dataset
from ml.readers import DayTables, reader
from ml.readers.codes import category_code
from ml.sessions import build_interactions
from resources.drops import LANDING
from resources.source import DatasetSource
from tests.ml.bundles import article, at, impression
from tests.ml.test_readers_ebnerd import assert_conserved, columns, told
from tests.ml.test_readers_mind import news, write_mind
from tests.ml.test_readers_own_log import UTC_TIMES, click, write_log
from tests.resources.deliveries import EBNERD, files, log, mark, rows
from tests.resources.deliveries import drop as ebnerd_drop

D1, D2, D3 = (date(2023, 5, d) for d in (1, 2, 3))
OPEN = UTC_TIMES + "last_day = 2023-12-31\n"


def tables(source: DatasetSource, known: Dataset, day: date) -> DayTables:
    """The canonical tables of a raw day, whoever delivered it."""
    found = reader(known.reader).tables(source.raw_day(known, day).files[0].parent, known, day)
    assert_conserved(found)
    return found


def own(home: Path, said: str = OPEN) -> Path:
    shown = {"impression_id": 1, "user_id": 1, "time": at("2023-05-01 08:00"), "inview": [5, 6], "clicked": [5]}
    return write_log(
        home / "log",
        said,
        clicks=[click(1, 5, "2023-05-01 08:00", impression_id=1)],
        impressions=[shown],
        articles=[{"article_id": 5, "category": "news"}],
    )


def drop(root: Path, day: str, **rows: object) -> Path:
    folder = write_log(root / LANDING / day, "", **rows)  # type: ignore[arg-type]
    (folder / "log.toml").unlink()
    mark(folder)
    return folder


def own_drop(root: Path) -> Path:
    """2 May, with two late rows of 1 May: one names the impression of the bundle, one is another reader's."""
    shown = {"impression_id": 2, "user_id": 1, "time": at("2023-05-02 08:00"), "inview": [6, 7], "clicked": [6]}
    return drop(
        root,
        "2023-05-02",
        clicks=[
            click(1, 6, "2023-05-02 08:00", impression_id=2),
            click(1, 6, "2023-05-01 08:05", impression_id=1),
            click(2, 6, "2023-05-01 08:06", impression_id=1),
            click(1, 7, "2023-05-02 08:02", impression_id=1),
        ],
        impressions=[shown],
        articles=[{"article_id": 6, "category": "autos"}, {"article_id": 7, "category": "news"}],
    )


def test_an_own_log_takes_a_drop_of_a_day_that_it_names(tmp_path):
    root = own(tmp_path)
    known = declared_dataset(root)
    source = DatasetSource(tmp_path / "lake", {"paper": root}, watermark_hours=1_000_000)
    own_drop(root)
    (taken,) = source.take(known, "me")
    assert (taken.state, taken.why, taken.rows, taken.late) == ("taken", "", 5, 0)
    assert source.days(known) == [D1, D2]
    second = tables(source, known, D2)
    assert columns(second.clicks, "user_id", "article_id", "impression_id") == [(1, 6, 2), (1, 7, None)]
    assert columns(second.articles, "article_id", "category_id") == [
        (6, category_code("autos")),
        (7, category_code("news")),
    ]
    assert told(second) == {
        ("clicks", "impression_missing", "impression_id", "landing/2023-05-02/clicks.parquet"): 1,
    }
    assert [r.examples[0][0] for r in second.remarks] == ["landing/2023-05-02/clicks.parquet:4"]


def test_links_are_judged_again_by_the_day_that_several_deliveries_make(tmp_path):
    root = own(tmp_path)
    known = declared_dataset(root)
    source = DatasetSource(tmp_path / "lake", {"paper": root}, watermark_hours=1_000_000)
    own_drop(root)
    source.take(known, "me")
    first = tables(source, known, D1)
    assert columns(first.clicks, "user_id", "article_id", "impression_id") == [(1, 5, 1), (1, 6, 1), (2, 6, None)]
    assert columns(first.articles, "article_id", "category_id") == [
        (5, category_code("news")), (6, category_code("autos")),
    ]  # fmt: skip
    assert told(first) == {
        ("clicks", "impression_of_another_reader", "impression_id", "landing/2023-05-02/clicks.parquet"): 1,
    }


def test_without_a_last_day_a_drop_of_a_later_day_is_refused(tmp_path):
    root = own(tmp_path, UTC_TIMES)
    source = DatasetSource(tmp_path / "lake", {"paper": root})
    own_drop(root)
    (refused,) = source.take(declared_dataset(root), "me")
    assert refused.state == "malformed"
    assert "whose days are 2023-05-01 to 2023-05-01: name a later last_day in its log.toml" in refused.why
    (root / "log.toml").write_text(OPEN)
    (taken,) = source.take(declared_dataset(root), "me")
    assert taken.state == "taken"


def test_what_is_cut_from_a_drop_follows_what_the_log_says_of_itself(tmp_path):
    """The days and the zone of an own log are no part of a drop's files, and yet decide what these become."""
    root = own(tmp_path)
    source = DatasetSource(tmp_path / "lake", {"paper": root})
    drop(root, "2023-05-02", clicks=[click(1, 6, "2023-05-02 08:00"), click(1, 6, "2023-05-02 09:00")])
    source.take(declared_dataset(root), "me")
    assert len(tables(source, declared_dataset(root), D2).clicks) == 2
    (root / "log.toml").write_text(OPEN.replace('"UTC"', '"Europe/Oslo"'))
    moved = tables(source, declared_dataset(root), D2).clicks["time"].to_pylist()
    assert [t.hour for t in moved] == [6, 7]


def test_a_drop_of_an_own_log_brings_no_declaration(tmp_path):
    root = own(tmp_path)
    known = declared_dataset(root)
    source = DatasetSource(tmp_path / "lake", {"paper": root})
    folder = own_drop(root)
    (folder / "colours.parquet").write_bytes(b"")
    (folder / "_COMPLETE").write_text("")
    (refused,) = source.take(known, "me")
    assert refused.state == "malformed" and "colours.parquet is no file that a drop of paper can bring" in refused.why
    with pytest.raises(DataError, match="no row of 2023-05-03"):
        source.landing(known).check(own_drop(tmp_path / "elsewhere"), D3)


@pytest.mark.parametrize("said", [OPEN, 'name = "another"\n'])
def test_a_drop_with_a_log_toml_is_refused(tmp_path, said):
    root = own(tmp_path)
    known = declared_dataset(root)
    source = DatasetSource(tmp_path / "lake", {"paper": root})
    folder = own_drop(root)
    (folder / "log.toml").write_text(said)
    (folder / "_COMPLETE").write_text("")
    (refused,) = source.take(known, "me")
    assert refused.state == "malformed" and "log.toml is no file that a drop of paper can bring: remove" in refused.why
    with pytest.raises(DataError, match=r"log\.toml is no file that a drop of paper can bring: remove it"):
        source.landing(known).check(folder, D2)


def test_an_empty_drop_is_called_so(tmp_path):
    root = own(tmp_path)
    source = DatasetSource(tmp_path / "lake", {"paper": root, "ebnerd": log(tmp_path / "other").root(EBNERD)})
    empty = own_drop(tmp_path / "elsewhere")
    pq.write_table(pq.read_table(empty / "clicks.parquet").slice(0, 0), empty / "clicks.parquet")
    (empty / "impressions.parquet").unlink()
    with pytest.raises(DataError) as refused:
        source.landing(declared_dataset(root)).check(empty, D2)
    assert str(refused.value).startswith(f"{empty} is empty (no row in clicks.parquet): deliver the day's rows")
    none = files(tmp_path / "none", [])
    with pytest.raises(DataError, match=r"none is empty .no row in behaviors\.parquet."):
        source.landing(EBNERD).check(none, date(2023, 5, 21))


def test_mind_takes_a_drop(tmp_path):
    mind = dataset("mind")
    lines = ["1|U7|11/9/2019 8:00:00 AM|N9|N1-0 N2-1", "2|U8|11/9/2019 9:00:00 AM||N2-1"]
    root = write_mind(tmp_path / "log", "train", lines, [news(1, "sports"), news(2, "autos")])
    source = DatasetSource(tmp_path / "lake", {"mind": root}, watermark_hours=1_000_000)
    more = ["3|U7|11/10/2019 8:00:00 AM||N1-1 N3-0", "4|U9|11/9/2019 9:30:00 AM||N1-1"]
    folder = write_mind(root / LANDING, "2019-11-10", more, [news(1, "sports"), news(3, "weather")]) / "2019-11-10"
    mark(folder)
    (taken,) = source.take(mind, "me")
    assert (taken.state, taken.rows, taken.late) == ("taken", 2, 0), taken.why
    second = tables(source, mind, date(2019, 11, 10))
    assert columns(second.clicks, "user_id", "article_id", "impression_id") == [(7, 1, 3)]
    names = ("article_id", "category", "category_id", "title")
    assert columns(second.articles, *names) == [
        (1, "sports", category_code("sports"), "Title 1"),
        (3, "weather", category_code("weather"), "Title 3"),
    ]
    first = tables(source, mind, date(2019, 11, 9))
    assert columns(first.clicks, "user_id", "article_id") == [(7, 2), (8, 2), (9, 1)]
    assert columns(first.articles, "article_id", "category_id") == [
        (1, category_code("sports")), (2, category_code("autos")),
    ]  # fmt: skip


def test_an_article_that_a_later_drop_lists_stands_once_in_the_day_that_shows_it(tmp_path):
    """EB-NeRD's layout: a drop brings a late row of the day before, and the article that it shows."""
    source = log(tmp_path)
    late = [*rows((11, "2023-05-21 08:00")), impression(12, 1, "2023-05-20 09:00", [900], [900])]
    mark(ebnerd_drop(tmp_path, "2023-05-21", late, [article(900, "2023-05-20 08:00")]), "2023-05-21 09:00")
    source.take(EBNERD, "me")
    found = tables(source, EBNERD, date(2023, 5, 20))
    assert [i for i in found.articles["article_id"].to_pylist() if i == 900] == [900]
    assert found.articles["title"].to_pylist()[-1] == "Title 900"


def clicks_by_day(source: DatasetSource, known: Dataset, out: Path) -> list[int]:
    """How many clicks a model as of the end of each day loads: what `article_features` and `interactions` are made
    of."""
    found = []
    for number, day in enumerate(source.days(known)):
        rows = tables(source, known, day)
        for name in ("articles", "clicks"):
            folder = out / name / f"{number}"
            folder.mkdir(parents=True)
            pq.write_table(getattr(rows, name), folder / "rows.parquet")
        articles, clicks = (
            [out / name / f"{n}" / "rows.parquet" for n in range(number + 1)] for name in ("articles", "clicks")
        )
        build_article_features(articles, out / "features.parquet")
        with duckdb.connect() as con:
            build_interactions(con, clicks, out / "interactions.parquet", 0, known.clock.end(day))
        found.append(len(Clicks.load(out / "interactions.parquet", Catalogue.load(out / "features.parquet"))))
    return found


def test_a_correction_with_a_click_on_an_article_of_a_later_day(tmp_path):
    source = log(tmp_path)
    before = clicks_by_day(source, EBNERD, tmp_path / "before")
    files(tmp_path / "right", rows((21, "2023-05-17 10:00")))  # 106 is published on the log's 18 May
    source.correct(EBNERD, date(2023, 5, 17), tmp_path / "right", "why", "me")
    assert clicks_by_day(source, EBNERD, tmp_path / "after")[0] == 1 < before[0]


def test_late_rows_with_a_click_on_an_article_of_a_later_day(tmp_path):
    source = log(tmp_path, 1_000_000)
    mark(ebnerd_drop(tmp_path, "2023-05-21", rows((11, "2023-05-21 08:00"), (12, "2023-05-17 10:00"))))
    source.take(EBNERD, "me")
    assert clicks_by_day(source, EBNERD, tmp_path / "after")[0] == 4


def test_what_a_replaced_correction_listed_is_not_listed(tmp_path):
    source = log(tmp_path)
    click = impression(21, 1, "2023-05-19 10:00", [900], [900])
    for name, listed in (("first", [article(900, "2023-05-19 09:00")]), ("second", None)):
        files(tmp_path / name, [click], listed)
        source.correct(EBNERD, date(2023, 5, 19), tmp_path / name, "why", "me")
    assert clicks_by_day(source, EBNERD, tmp_path / "after")[-1] > 0
    found = tables(source, EBNERD, date(2023, 5, 19))
    assert [r["title"] for r in found.articles.to_pylist() if r["article_id"] == 900] == [None]


def test_an_article_without_publication_whose_only_appearance_was_corrected_away(tmp_path):
    """Its row lies in the corrected day, but does not stand there."""
    root = own(tmp_path)
    known = declared_dataset(root)
    source = DatasetSource(tmp_path / "lake", {"paper": root})
    right = write_log(tmp_path / "right", "", clicks=[click(1, 6, "2023-05-01 08:00")])
    (right / "log.toml").unlink()
    source.correct(known, D1, right, "why", "me")
    drop(root, "2023-05-02", clicks=[click(1, 5, "2023-05-02 08:00")])
    source.take(known, "me")
    assert clicks_by_day(source, known, tmp_path / "after") == [1, 2]
