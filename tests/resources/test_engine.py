"""SQL over the lake: what the views hold, and what a user's SQL cannot do."""

from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ml.errors import UsageError
from resources.engine import Engine
from resources.lake import Lake, Ref
from tests.resources.lake_help import publish_tables

USERS = [7, 7, 7, 8, 8]
ARTICLES = [10, 11, 12, 10, 13]
TIMES = [100, 200, 300, 150, 250]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path / "it's a lake")
    for day, users in (("2023-05-17", [1]), ("2023-05-18", [2, 3])):
        tables = {"clicks": {"user_id": users}, "quarantine": {"reason": ["late"] * len(users)}}
        publish_tables(lake, Ref("simulated", "clicks", day), tables)
    columns = {"user_id": USERS, "article_id": ARTICLES, "time": TIMES}
    for day in ("2023-05-18", "2023-05-19"):
        last = publish_tables(
            lake, Ref("simulated", "interactions", day), {"interactions": columns | {"as": [day] * 5}}
        )
        ranges = {"first": [0, 0, 0, 3], "target": [0, 1, 2, 4], "split": ["train", "train", "test", day]}
        publish_tables(lake, Ref("simulated", "session_splits", f"{day}.rolling"), {"sessions": ranges}, [last])
    for model in ("random", "snert"):
        tables = {"cases": {"case": [1]}, "top": {"case": [1, 2]}, "inview": {"impression_id": [5]}}
        publish_tables(lake, Ref("simulated", "predictions", "2023-05-19.lag_2", model), tables)
    return lake


def test_days_are_united(lake: Lake, tmp_path: Path) -> None:
    with Engine(tmp_path / "spill") as engine:
        names = engine.views(lake, "simulated")
        clicks = engine.query("SELECT user_id, day FROM clicks ORDER BY user_id")
        assert clicks["user_id"].to_pylist() == [1, 2, 3]
        assert clicks["day"].to_pylist() == [date(2023, 5, 17), date(2023, 5, 18), date(2023, 5, 18)]
        assert engine.query("SELECT count(*) AS n FROM quarantine WHERE reason = 'late'")["n"].to_pylist() == [3]
    assert names == [
        "clicks",
        "quarantine",
        "interactions",
        "session_interactions",
        "session_ranges",
        "sessions",
        "cases",
        "top",
        "inview",
    ]


def test_the_current_version_is_read(lake: Lake, tmp_path: Path) -> None:
    publish_tables(lake, Ref("simulated", "clicks", "2023-05-17"), {"clicks": {"user_id": [99]}})
    with Engine(tmp_path / "spill") as engine:
        engine.views(lake, "simulated")
        assert engine.query("SELECT user_id FROM clicks ORDER BY 1")["user_id"].to_pylist() == [2, 3, 99]


def test_sessions_are_readable_lists(lake: Lake, tmp_path: Path) -> None:
    with Engine(tmp_path / "spill") as engine:
        engine.views(lake, "simulated")
        rows = engine.query("FROM sessions").to_pylist()
    assert [
        (r["user_id"], r["history"], r["history_times"], r["target"], r["target_time"], r["split"]) for r in rows
    ] == [
        (7, [], [], 10, 100, "train"),
        (7, [10], [100], 11, 200, "train"),
        (7, [10, 11], [100, 200], 12, 300, "test"),
        (8, [10], [150], 13, 250, "2023-05-19"),
    ]


def test_sessions_against_a_loop(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    users = np.sort(rng.integers(0, 40, 500))
    articles = rng.integers(0, 100, 500)
    starts = np.searchsorted(users, users)
    first = np.maximum(starts, np.arange(500) - rng.integers(0, 6, 500))
    times = np.arange(500) // 3
    keep = np.flatnonzero(rng.random(500) < 0.5)
    lake = Lake(tmp_path / "lake")
    columns = {"user_id": users, "article_id": articles, "time": times}
    version = publish_tables(lake, Ref("globo", "interactions", "2017-10-05"), {"interactions": pa.table(columns)})
    ranges = {"first": first[keep], "target": keep, "split": ["train"] * len(keep)}
    publish_tables(
        lake, Ref("globo", "session_splits", "2017-10-05.rolling"), {"sessions": pa.table(ranges)}, [version]
    )
    with Engine(tmp_path / "spill") as engine:
        engine.views(lake, "globo")
        found = engine.query("SELECT history, target FROM sessions").to_pylist()
    history = [[int(articles[i]) for i in range(first[t], t) if times[i] < times[t]] for t in keep]
    assert found == [{"history": h, "target": articles[t]} for h, t in zip(history, keep, strict=True)]


def test_another_as_of_day(lake: Lake, tmp_path: Path) -> None:
    with Engine(tmp_path / "spill") as engine:
        engine.views(lake, "simulated", as_of="2023-05-18")
        assert engine.query('SELECT DISTINCT "as" FROM interactions')["as"].to_pylist() == ["2023-05-18"]
        assert "2023-05-18" in engine.query("SELECT split FROM sessions")["split"].to_pylist()
    with Engine(tmp_path / "spill") as engine, pytest.raises(UsageError, match="choose one of 2023-05-18, 2023-05-19"):
        engine.views(lake, "simulated", as_of="2023-05-20")


def test_sessions_of_other_interactions_are_not_joined(lake: Lake, tmp_path: Path) -> None:
    columns = {"user_id": [1], "article_id": [1], "time": [1]}
    publish_tables(lake, Ref("simulated", "interactions", "2023-05-19"), {"interactions": columns})
    with Engine(tmp_path / "spill") as engine:
        assert "sessions" not in engine.views(lake, "simulated", as_of="2023-05-19")


def test_predictions_name_model_day_and_split(lake: Lake, tmp_path: Path) -> None:
    with Engine(tmp_path / "spill") as engine:
        engine.views(lake, "simulated")
        found = engine.query(
            "SELECT model, as_of, split, count(*) AS n FROM top GROUP BY ALL ORDER BY model"
        ).to_pylist()
    expected = {"as_of": date(2023, 5, 19), "split": "lag_2", "n": 2}
    assert found == [{"model": "random", **expected}, {"model": "snert", **expected}]


def test_an_empty_lake_says_what_to_run(tmp_path: Path) -> None:
    with Engine(tmp_path / "spill") as engine, pytest.raises(UsageError, match="newsrec run --dataset globo"):
        engine.views(Lake(tmp_path / "none"), "globo")


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("COPY (SELECT 1) TO '{lake}/x.parquet'", "read only"),
        ("CREATE TABLE t AS SELECT 1", "read only"),
        ("DROP VIEW clicks", "read only"),
        ("SET threads = 1", "read only"),
        ("ATTACH '{lake}/x.db'", "read only"),
        ("SELECT 1; SELECT 2", "read only"),
        ("", "read only"),
        ("SELECT * FROM read_text('{secret}')", "Permission"),
        ("SELECT * FROM read_parquet('{secret}')", "Permission"),
        ("SELECT * FROM read_text('{lake}/../secret')", "Permission"),
        ("SELECT * FROM glob('{secret}*')", "Permission"),
        ("FROM 'https://example.org/x.parquet'", "SQL"),
        ("SELECT nothing FROM clicks", "nothing"),
        ("SELEC 1", "syntax"),
        ("SELECT * FROM sql", "sql does not exist"),
    ],
)
def test_what_sql_cannot_do(lake: Lake, tmp_path: Path, sql: str, message: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    with Engine(tmp_path / "spill") as engine:
        engine.views(lake, "simulated")
        quoted = str(lake.root).replace("'", "''")
        with pytest.raises(UsageError, match=message) as caught:
            engine.query(sql.format(lake=quoted, secret=secret))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "sql", ["SHOW TABLES", "DESCRIBE clicks", "EXPLAIN FROM clicks", "SUMMARIZE clicks", "VALUES (1)"]
)
def test_what_sql_can_do(lake: Lake, tmp_path: Path, sql: str) -> None:
    with Engine(tmp_path / "spill") as engine:
        engine.views(lake, "simulated")
        assert len(engine.query(sql)) >= 1


def test_it_spills_after_the_lock_and_leaves_nothing(lake: Lake, tmp_path: Path) -> None:
    sql = "SELECT count(*) AS n FROM (SELECT DISTINCT hash(i)::VARCHAR || i AS x FROM range(1500000) t(i))"
    with Engine(tmp_path / "spill", memory_limit="40MB", threads=1) as engine:
        engine.views(lake, "simulated")
        assert engine.query(sql)["n"].to_pylist() == [1_500_000]
    assert [p.name for p in (tmp_path / "spill").iterdir()] == ["sweep"]


def test_a_lake_that_can_only_be_read_is_queried(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spilling goes elsewhere, and works after the lock."""
    monkeypatch.setattr("resources.engine.os.access", lambda path, mode: False)
    with Engine(lake.root / ".spill", memory_limit="60MB", threads=1) as engine:
        engine.views(lake, "simulated")
        count = engine.query("SELECT count(*) AS n FROM (SELECT DISTINCT hash(i) FROM range(3000000) t(i))")
    assert count["n"].to_pylist() == [3_000_000]
    assert not (lake.root / ".spill").exists()
