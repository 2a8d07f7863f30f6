"""A newspaper's own log: the contract's tables, log.toml, days, quarantine."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml import schema
from ml.datasets import Dataset, SyntheticInView
from ml.errors import DataError
from ml.log_check import check_log, check_undeclared
from ml.own_log import declared_dataset, read_log_file
from ml.readers import DayTables, reader
from ml.readers.codes import category_code
from ml.readers.contract import TABLES
from ml.readers.own_log import utc_milliseconds
from tests.ml.bundles import at, ms
from tests.ml.test_readers_ebnerd import assert_conserved, columns, digests

READER = reader("own")
OSLO = 'name = "paper"\ntimezone = "Europe/Oslo"\n'
UTC_TIMES = OSLO + 'times_without_zone = "UTC"\n'
D1, D2, D3 = (date(2023, 5, d) for d in (1, 2, 3))


def write_log(
    root: Path,
    said: str = UTC_TIMES,
    types: Mapping[str, pa.DataType] | None = None,
    **tables: Sequence[Mapping[str, Any]],
) -> Path:
    """`log.toml` and tables from rows; `types` of columns that pyarrow would not guess."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "log.toml").write_text(said)
    for name, rows in tables.items():
        columns = list(dict.fromkeys(column for row in rows for column in row))
        table = pa.table({c: pa.array([r.get(c) for r in rows], (types or {}).get(c)) for c in columns})
        pq.write_table(table, root / f"{name}.parquet")
    return root


def click(user: Any, article: Any, time: str | datetime, **other: Any) -> dict[str, Any]:
    return {"user_id": user, "article_id": article, "time": at(time) if isinstance(time, str) else time, **other}


def split_and_read(root: Path, out: Path) -> tuple[Dataset, dict[date, DayTables]]:
    known = declared_dataset(root)
    return known, {day: READER.tables(out / str(day), known, day) for day in READER.split(root, known, out)}


def held_back(out: Path) -> Counter[tuple[str, str]]:
    path = out / "quarantine.parquet"
    rows = pq.read_table(path).to_pylist() if path.exists() else []
    return Counter((r["source"], r["reason"]) for r in rows)


def test_clicks_alone(tmp_path: Path) -> None:
    rows = [click(1, 10, "2023-05-01 08:00"), click(2, 11, "2023-05-02 09:00"), click(1, 10, "2023-05-01 08:00")]
    known, days = split_and_read(write_log(tmp_path / "in", clicks=rows), tmp_path / "out")
    assert (known.name, known.first_day, known.last_day) == ("paper", D1, D2)
    assert not known.has_impressions and not known.has_text and known.declared and not known.synthetic
    assert columns(days[D1].clicks, "user_id", "article_id", "time") == [(1, 10, ms("2023-05-01 08:00"))]
    assert days[D1].counts["clicks"]["duplicates"] == 1
    assert columns(days[D2].articles, "article_id", "published", "published_is_first_seen") == [
        (11, ms("2023-05-02 09:00"), True)
    ]
    for tables in days.values():
        assert_conserved(tables)
        for name in ("articles", "clicks", "impressions"):
            assert getattr(tables, name).schema.equals(getattr(schema, name.upper()))


def test_every_column_of_the_contract_arrives(tmp_path: Path) -> None:
    context = {"device": 1, "os": 2, "region": 3, "referrer": 4, "subscriber": True}
    more = {"session_id": 5, "impression_id": 6, "read_time": 7.5, "scroll_percentage": 80.0, **context}
    shown = {"impression_id": 6, "user_id": 1, "time": at("2023-05-02 08:00"), "inview": [10, 12], "clicked": [10]}
    listed = {
        "article_id": 10, "published": at("2023-05-02 07:00"), "modified": at("2023-05-03 07:00"), "title": "t",
        "subtitle": "s", "body": "b", "category": "news", "subcategory": "crime", "premium": False,
        "sentiment_score": 0.5,
    }  # fmt: skip
    root = write_log(
        tmp_path / "in",
        clicks=[click(1, 10, "2023-05-02 08:00", **more)],
        impressions=[{**shown, "session_id": 5, **context}],
        articles=[listed],
    )
    known, days = split_and_read(root, tmp_path / "out")
    assert known.text == ("body",) and known.has_text and known.has_impressions
    assert {k: v for k, v in days[D2].clicks.to_pylist()[0].items() if k in more} == more
    (impression,) = days[D2].impressions.to_pylist()
    assert (impression["inview"], impression["clicked"], impression["device"]) == ([10, 12], [10], 1)
    first, second = days[D2].articles.to_pylist()
    assert {k: first[k] for k in ("title", "subtitle", "body", "category", "subcategory", "premium")} == {
        "title": "t", "subtitle": "s", "body": "b", "category": "news", "subcategory": "crime", "premium": False,
    }  # fmt: skip
    assert (first["category_id"], first["sentiment_score"]) == (category_code("news"), 0.5)
    assert not first["published_is_first_seen"]
    assert first["modified"] == datetime(2023, 5, 3, 7, tzinfo=UTC)
    assert (second["article_id"], second["title"], second["published_is_first_seen"]) == (12, None, True)


def test_articles_lie_in_the_day_of_their_publication(tmp_path: Path) -> None:
    listed = [
        {"article_id": 1, "published": at("2022-01-01 00:00")},
        {"article_id": 2, "published": at("2023-05-03 10:00")},
        {"article_id": 3, "published": None},
        {"article_id": 4, "published": None},
        {"article_id": 5, "published": at("2024-01-01 00:00")},
    ]
    rows = [click(1, 9, "2023-05-01 08:00"), click(1, 3, "2023-05-02 08:00"), click(1, 2, "2023-05-02 09:00"),
            click(1, 9, "2023-05-03 08:00")]  # fmt: skip
    _, days = split_and_read(write_log(tmp_path / "in", clicks=rows, articles=listed), tmp_path / "out")
    placed = {d: columns(t.articles, "article_id", "published_is_first_seen") for d, t in days.items()}
    assert placed == {
        D1: [(1, False), (9, True)],
        D2: [(3, True), (2, True)],
        D3: [(9, True), (2, False)],
    }
    assert held_back(tmp_path / "out") == {
        ("articles.parquet:4", "never_shown"): 1,
        ("articles.parquet:5", "after_log_end"): 1,
    }


def test_rows_that_break_a_rule_are_held_back_with_their_number(tmp_path: Path) -> None:
    rows = [
        click(1, 10, "2023-05-01 08:00"),
        click(2**63, 10, "2023-05-01 08:00"),
        click(1, 10, "2023-05-01 08:00", region=2**31),
        click(1, 10, "2023-05-01 08:00", region=-1),
        click(1, 10, "1990-05-01 08:00"),
        click(1, None, "2023-05-01 09:00"),
        {"user_id": 1, "article_id": 10, "time": None},
    ]
    shown = {"user_id": 1, "time": at("2023-05-01 08:00"), "inview": [1, 2], "clicked": [1]}
    impressions = [
        {"impression_id": 0, **shown},
        {"impression_id": 5, **shown},
        {"impression_id": 6, **shown, "clicked": [3]},
    ]
    said = UTC_TIMES + "first_day = 2023-05-01\n"
    kinds = {"user_id": pa.uint64(), "region": pa.int64()}
    root = write_log(tmp_path / "in", said, kinds, clicks=rows, impressions=impressions)
    _, days = split_and_read(root, tmp_path / "out")
    assert held_back(tmp_path / "out") == {
        ("clicks.parquet:2", "id_too_large"): 1,
        ("clicks.parquet:3", "code_out_of_range"): 1,
        ("clicks.parquet:4", "code_out_of_range"): 1,
        ("clicks.parquet:5", "outside_days"): 1,
        ("clicks.parquet:7", "null_time"): 1,
        ("impressions.parquet:1", "zero_impression_id"): 1,
    }
    found = {(r["source"], r["reason"]) for r in days[D1].quarantine.to_pylist()}
    assert found == {("clicks.parquet:6", "null_id"), ("impressions.parquet:3", "clicked_not_in_view")}
    assert columns(days[D1].clicks, "user_id", "article_id") == [(1, 10)]


def test_both_changes_of_the_clocks(tmp_path: Path) -> None:
    said = OSLO + 'times_without_zone = "Europe/Oslo"\nfirst_day = 2023-03-26\nlast_day = 2023-10-29\n'
    rows = [
        click(1, 10, "2023-03-26 01:59"),  # CET
        click(1, 11, "2023-03-26 02:30"),  # skipped
        click(1, 12, "2023-03-26 03:00"),  # CEST, a minute after the first
        click(1, 13, "2023-10-29 01:59"),  # CEST
        click(1, 14, "2023-10-29 02:30"),  # twice
        click(1, 15, "2023-10-29 03:00"),  # CET, 61 minutes later
    ]
    known, days = split_and_read(write_log(tmp_path / "in", said, clicks=rows), tmp_path / "out")
    assert {d: columns(t.clicks, "article_id", "time") for d, t in days.items()} == {
        date(2023, 3, 26): [(10, ms("2023-03-26 00:59")), (12, ms("2023-03-26 01:00"))],
        date(2023, 10, 28): [(13, ms("2023-10-28 23:59"))],
        date(2023, 10, 29): [(15, ms("2023-10-29 02:00"))],
    }
    assert held_back(tmp_path / "out") == {
        ("clicks.parquet:2", "unknowable_local_time"): 1,
        ("clicks.parquet:5", "unknowable_local_time"): 1,
    }
    times = np.array([t for tables in days.values() for (t,) in columns(tables.clicks, "time")])
    sunday = 6 * 1440
    assert known.clock.local_minutes(times).tolist() == [sunday + 119, sunday + 180, sunday + 119, sunday + 180]


ZONES = ["Europe/Oslo", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC"]


@given(
    st.sampled_from(ZONES),
    st.sampled_from(["s", "ms", "us", "ns"]),
    st.lists(
        st.datetimes(datetime(1980, 1, 1), datetime(2035, 1, 1)).map(lambda t: t.replace(microsecond=0)), max_size=5
    ),
)
@settings(max_examples=80, deadline=None)
def test_local_times_agree_with_the_calendar(zone: str, unit: str, times: list[datetime]) -> None:
    found = utc_milliseconds(pa.chunked_array([pa.array(times, pa.timestamp(unit))]), zone).to_list()
    for local, value in zip(times, found, strict=True):
        moments = {local.replace(tzinfo=ZoneInfo(zone), fold=fold).astimezone(UTC) for fold in (0, 1)}
        back = {m for m in moments if m.astimezone(ZoneInfo(zone)).replace(tzinfo=None) == local}
        assert value == (int(back.pop().timestamp()) * 1000 if len(back) == 1 else None)


@pytest.mark.parametrize(("unit", "per_second"), [("ms", 10**3), ("us", 10**6), ("ns", 10**9)])
def test_absurd_times_end_in_quarantine(tmp_path: Path, unit: str, per_second: int) -> None:
    good = ms("2023-05-01 08:00") // 1000 * per_second
    times = pa.array([good, 2**63 - 1, -(2**63) + 1, 2**53], pa.int64())
    for said, kind in (
        (OSLO, pa.timestamp(unit, "UTC")),
        (OSLO + 'times_without_zone = "Europe/Oslo"\n', pa.timestamp(unit)),
    ):
        root = tmp_path / ("zone" if kind.tz else "naive")
        root.mkdir()
        (root / "log.toml").write_text(said + "first_day = 2023-05-01\nlast_day = 2023-05-02\n")
        ids = pa.array([1, 2, 3, 4])
        pq.write_table(pa.table({"user_id": ids, "article_id": ids, "time": times.cast(kind)}), root / "clicks.parquet")
        _, days = split_and_read(root, root / "out")
        assert days[D1].clicks["user_id"].to_pylist() == [1]
        assert sum(held_back(root / "out").values()) == 3
        assert all(json.loads(r) for r in pq.read_table(root / "out" / "quarantine.parquet")["row"].to_pylist())


def test_a_table_may_be_a_folder_of_files(tmp_path: Path) -> None:
    root = write_log(tmp_path / "in", clicks=[click(1, 10, "2023-05-01 08:00")])
    (root / "clicks").mkdir()
    (root / "clicks.parquet").rename(root / "clicks" / "a.parquet")
    more = write_log(
        tmp_path / "more", clicks=[{"time": at("2023-05-01 09:00"), "extra": "x", "article_id": 11, "user_id": 2}]
    )
    (more / "clicks.parquet").rename(root / "clicks" / "b.parquet")
    _, days = split_and_read(root, tmp_path / "out")
    assert columns(days[D1].clicks, "user_id", "article_id") == [(1, 10), (2, 11)]
    (root / "clicks.parquet").write_bytes((root / "clicks" / "a.parquet").read_bytes())
    with pytest.raises(DataError, match="remove one of them"):
        READER.sources(root)


def test_equal_sources_give_equal_bytes(tmp_path: Path) -> None:
    rows = [click(u, a, "2023-05-01 08:00") for u in range(20) for a in range(3)]
    root = write_log(tmp_path / "in", clicks=rows, articles=[{"article_id": a, "title": f"t{a}"} for a in range(5)])
    for out in ("a", "b"):
        READER.split(root, declared_dataset(root), tmp_path / out)
    assert digests(tmp_path / "a") == digests(tmp_path / "b") != {}


SMALL = st.one_of(st.none(), st.integers(-2, 4))
WHEN = st.one_of(
    st.none(),
    st.integers(-60, 4 * 24 * 60).map(lambda m: at("2023-05-01 00:00") + timedelta(minutes=m)),
    st.just(at("2023-10-29 02:30")),
)
LIST = st.one_of(st.none(), st.lists(SMALL, max_size=3))


@given(
    st.lists(
        st.fixed_dictionaries({"user_id": SMALL, "article_id": SMALL, "time": WHEN, "region": SMALL}), max_size=12
    ),
    st.lists(
        st.fixed_dictionaries(
            {"impression_id": SMALL, "user_id": SMALL, "time": WHEN, "inview": LIST, "clicked": LIST}
        ),
        max_size=6,
    ),
    st.lists(
        st.fixed_dictionaries({"article_id": SMALL, "published": WHEN, "title": st.sampled_from(["", "a", None])}),
        max_size=6,
    ),
)
@settings(max_examples=60, deadline=None)
def test_no_row_is_lost(tmp_path_factory: pytest.TempPathFactory, clicks: Any, impressions: Any, articles: Any) -> None:
    root = tmp_path_factory.mktemp("own")
    said = OSLO + 'times_without_zone = "Europe/Oslo"\nfirst_day = 2023-05-01\nlast_day = 2023-05-03\n'
    ids, time = pa.int64(), pa.timestamp("us")
    kinds = {"user_id": ids, "article_id": ids, "region": ids, "impression_id": ids, "time": time, "published": time,
             "inview": pa.list_(ids), "clicked": pa.list_(ids), "title": pa.string()}  # fmt: skip
    clicks = [click(1, 1, "2023-05-01 12:00", region=1), *clicks]
    tables = {"clicks": clicks, "impressions": impressions, "articles": articles}
    write_log(root, said, kinds, **{k: v for k, v in tables.items() if v})
    _, days = split_and_read(root, root / "out")
    early: Counter[str] = Counter()
    if (root / "out" / "quarantine.parquet").exists():
        early.update(pq.read_table(root / "out" / "quarantine.parquet")["table"].to_pylist())
    for name in ("clicks", "impressions"):
        assert early[name] + sum(t.counts[name]["rows_in"] for t in days.values()) == len(tables[name])
    placed = {r for d in days for r in _sources(root / "out" / str(d) / "articles.parquet")}
    assert early["articles"] + len(placed) == len(articles)
    for tables_of_day in days.values():
        assert_conserved(tables_of_day)


def _sources(path: Path) -> list[str]:
    return pl.read_parquet(path)["source"].to_list() if path.exists() else []


def test_derived_unlisted_is_what_the_split_writes(tmp_path: Path) -> None:
    rows = [click(1, 10, "2023-05-01 08:00"), click(1, 11, "2023-05-01 09:00")]
    root = write_log(tmp_path / "in", clicks=rows, articles=[{"article_id": 10}])
    split_and_read(root, tmp_path / "out")
    folder = tmp_path / "out" / str(D1)
    derived = READER.derived(folder, np.array([10]))["unlisted.parquet"]  # type: ignore[attr-defined]
    assert derived.to_pylist() == pq.read_table(folder / "unlisted.parquet").to_pylist() == [{"article_id": 11}]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("", "name: Field required"),
        ('name = "Paper"\ntimezone = "UTC"', "name: use up to 40 lower-case letters"),
        ('name = "globo"\ntimezone = "UTC"', "'globo' has a meaning here"),
        ('name = "own"\ntimezone = "UTC"', "'own' has a meaning here"),
        ('name = "../x"\ntimezone = "UTC"', "name: use up to 40"),
        ('name = "p"\ntimezone = "Mars/Base"', "timezone: 'Mars/Base' is no time zone"),
        ('name = "p"\ntimezone = "../etc/passwd"', "timezone: .* is no time zone"),
        (OSLO + "day_starts_utc = 24", "day_starts_utc: Input should be less than or equal to 23"),
        (OSLO + 'first_day = "May"', "first_day: Input should be a valid date"),
        (OSLO + "first_day = 2023-05-02\nlast_day = 2023-05-01",
         r"log\.toml: last_day 2023-05-01 is before first_day 2023-05-02: correct one of them; see"),
        (OSLO + "first_day = 2020-01-01\nlast_day = 2023-12-31",
         r"log\.toml: first_day 2020-01-01 to last_day 2023-12-31 are 1,461 days of at most 1,000: name fewer"),
        (OSLO + "colour = 1", "colour: Extra inputs are not permitted"),
        ('name = "globo"\ncolour = 1', "meaning here.*timezone: Field required.*colour: Extra"),
        (OSLO + '[inview]\nsynthesise = "magic"', "inview.synthesise: Input should be 'popularity' or 'uniform'"),
        (OSLO + "x =", "is no TOML file"),
        (OSLO + "x = " + "[" * 5_000 + "]" * 5_000, r"log\.toml is nested too deeply: it holds a few entries"),
    ],
)  # fmt: skip
def test_a_wrong_log_toml_says_which_entry(tmp_path: Path, said: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_log_file(write_log(tmp_path, said))


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-16-le", "utf-16-be"])
def test_log_toml_in_another_encoding_says_which_it_should_be(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "log.toml").write_bytes((OSLO + 'note = "caf\u00e9"\n').encode(encoding))
    with pytest.raises(DataError, match=r"log\.toml .*: save it as UTF-8$"):
        read_log_file(tmp_path)


def test_log_toml_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "log.toml").write_bytes(OSLO.encode("utf-8-sig"))
    assert read_log_file(tmp_path).name == "paper"


def test_what_macos_keeps_beside_a_file_is_passed_over_and_named(tmp_path: Path) -> None:
    root = write_log(tmp_path / "log", clicks=[click(1, 5, "2023-05-01 08:00")])
    (root / "clicks").mkdir()
    (root / "clicks.parquet").rename(root / "clicks/a.parquet")
    (root / "clicks/._a.parquet").write_bytes(b"\x00\x05\x16\x07")
    (root / "._clicks.parquet").write_bytes(b"\x00\x05\x16\x07")
    report = check_log(root, declared_dataset(root))
    assert (report.clean, report.tables["clicks"]["published"]) == (True, 1)
    assert report.not_read == [
        f"{n} (what macOS keeps beside a file)" for n in ("._clicks.parquet", "clicks/._a.parquet")
    ]


def test_a_log_without_clicks_is_told_so_once_and_not_to_validate(tmp_path: Path) -> None:
    root = write_log(tmp_path / "none", articles=[{"article_id": 5}])
    with pytest.raises(DataError, match=r"has no clicks\.parquet") as error:
        declared_dataset(root)
    report = check_undeclared(root, error.value)
    assert [b.kind for b in report.breaches] == ["refused"]
    assert "has no clicks.parquet" in report.breaches[0].examples[0]["value"]

    empty = write_log(tmp_path / "empty", clicks=[click(1, 5, "2023-05-01 08:00")])
    pq.write_table(pq.read_table(empty / "clicks.parquet").slice(0, 0), empty / "clicks.parquet")
    pq.write_table(pa.table({"article_id": ["a"]}), empty / "articles.parquet")
    with pytest.raises(DataError, match=r"no row with a time: .*; `newsrec validate` names every breach$") as error:
        declared_dataset(empty)
    report = check_undeclared(empty, error.value)
    assert {b.kind for b in report.breaches} == {"refused", "wrong_type"}
    assert "newsrec validate" not in json.dumps(report.to_json())


def test_log_toml_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"log.toml cannot be read .*timezone"):
        declared_dataset(tmp_path)


@pytest.mark.parametrize(
    ("rows", "said", "message"),
    [
        ([click(1, 1, "2023-05-01 08:00")], OSLO, "column time has times without a zone"),
        ([click(1, 1, "2023-05-01 08:00"), click(1, 1, "2099-05-01 08:00")], UTC_TIMES, "is a clock off"),
        ([{"user_id": 1, "article_id": 1}], UTC_TIMES, "no column time"),
        ([{"user_id": 1, "article_id": 1, "time": "noon"}], UTC_TIMES, "column time has type string"),
        (
            [click(1, 1, "2023-05-01 08:00")],
            UTC_TIMES + "last_day = 2023-05-09\nfirst_day = 2023-05-02",
            "no click falls",
        ),
    ],
)
def test_tables_that_are_refused(tmp_path: Path, rows: Any, said: str, message: str) -> None:
    root = write_log(tmp_path / "in", said, clicks=rows)
    with pytest.raises(DataError, match=message):
        READER.split(root, declared_dataset(root), tmp_path / "out")


def test_synthetic_lists_are_refused_beside_impressions(tmp_path: Path) -> None:
    shown = {"impression_id": 1, "user_id": 1, "time": at("2023-05-01 08:00"), "inview": [1], "clicked": [1]}
    said = UTC_TIMES + '[inview]\nsynthesise = "uniform"\nlength = 5\n'
    root = write_log(tmp_path, said, clicks=[click(1, 1, "2023-05-01 08:00")])
    assert declared_dataset(root).inview == SyntheticInView(synthesise="uniform", length=5)
    write_log(tmp_path, said, impressions=[shown])
    with pytest.raises(DataError, match="the log has impressions"):
        declared_dataset(root)


def test_the_documentation_lists_the_contract() -> None:
    text = (Path(__file__).parents[2] / "docs" / "own_log.md").read_text()
    for table in TABLES:
        assert f"### `{table.name}.parquet` ({'required' if table.required else 'optional'})" in text
        for c in table.columns:
            need = "required" if c.required else "optional"
            assert f"| `{c.name}` | {c.kind} | {need} | {c.unit} | {c.meaning} |" in text


def test_cells_that_no_table_can_take_are_held_back(tmp_path: Path) -> None:
    root = write_log(tmp_path / "in", UTC_TIMES + "first_day = 2023-05-01\nlast_day = 2023-05-02\n")
    raw = pa.array([b"fine", b"\xffbad"])
    titles = pa.Array.from_buffers(pa.string(), 2, raw.buffers())
    when = pa.array([at("2023-05-01 08:00")] * 2, pa.timestamp("us"))
    pq.write_table(pa.table({"article_id": [5, 6], "title": titles, "published": when}), root / "articles.parquet")
    pq.write_table(pa.table({"user_id": [1, 1], "article_id": [5, 6], "time": when}), root / "clicks.parquet")
    _, days = split_and_read(root, tmp_path / "out")
    assert held_back(tmp_path / "out") == {("articles.parquet:2", "not_utf8"): 1}
    assert columns(days[D1].articles, "article_id", "title") == [(5, "fine"), (6, None)]
    assert len(days[D1].clicks) == 2


def test_articles_of_other_centuries_are_held_back(tmp_path: Path) -> None:
    times = [datetime(1, 1, 1), datetime(1899, 12, 31, 23), datetime(1900, 1, 1), datetime(2100, 1, 1)]
    rows = [{"article_id": 5 + i, "published": time} for i, time in enumerate(times)]
    write_log(tmp_path / "in", clicks=[click(1, 5, "2023-05-01 08:00")], articles=rows)
    split_and_read(tmp_path / "in", tmp_path / "out")
    assert held_back(tmp_path / "out") == {(f"articles.parquet:{i}", "implausible_time"): 1 for i in (1, 2, 4)}


@pytest.mark.parametrize("first", ["1066-10-14", "2100-01-01"])
def test_days_of_other_centuries_are_refused(tmp_path: Path, first: str) -> None:
    said = UTC_TIMES + f"first_day = {first}\nlast_day = {first}\n"
    with pytest.raises(DataError, match="not all in the years 1900 to 2099: is a clock off"):
        declared_dataset(write_log(tmp_path / "in", said, clicks=[click(1, 5, "2023-05-01 08:00")]))


@pytest.mark.parametrize("name", ["log.toml", "clicks.parquet", "articles/a.parquet"])
@pytest.mark.parametrize("target", ["/dev/zero", "nothing", "a folder"])
def test_what_is_no_file_is_refused(tmp_path: Path, name: str, target: str) -> None:
    root = write_log(tmp_path / "in", clicks=[click(1, 5, "2023-05-01 08:00")])
    path = root / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    if target == "a folder":
        path.mkdir()
    else:
        path.symlink_to(target)
    with pytest.raises(DataError, match=rf"{name} (leads outside the data root|is no regular file)"):
        split_and_read(root, tmp_path / "out")


def test_a_text_column_that_is_there_twice_is_refused_by_name(tmp_path: Path) -> None:
    root = write_log(tmp_path / "in", clicks=[click(1, 5, "2023-05-01 08:00")])
    twice = pa.table([pa.array([5]), pa.array(["a"]), pa.array(["b"])], names=["article_id", "title", "title"])
    pq.write_table(twice, root / "articles.parquet")
    with pytest.raises(DataError, match=r"articles\.parquet: column title is there 2 times"):
        split_and_read(root, tmp_path / "out")
