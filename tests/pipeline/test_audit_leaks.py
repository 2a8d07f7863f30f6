"""Leaks that were put into a lake are found, each by its own check; a clean lake has none."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from ml import schema
from pipeline.audit.leaks import leaks, render
from resources.lake import Lake, Ref, Version
from resources.lineage.graph import walk_all
from tests.resources.lake_help import publish_tables
from tests.resources.test_lineage import bury

NAME, DAY, PARTITION = "globo", "2017-10-05", "2017-10-05.rolling"
START = datetime(2017, 10, 5, 3, tzinfo=UTC)
"""The as-of day's start: Globo's days begin at 03:00 UTC."""


def clicks(times: list[datetime], **more: list) -> pa.Table:
    columns = {
        schema.USER_ID: list(range(len(times))),
        schema.CLICK_TIME: pa.array(times, schema.TIME),
        schema.ARTICLE_ID: [7] * len(times),
        **more,
    }
    return pa.table(columns)


def world(
    root: Path,
    learned: datetime = START - timedelta(hours=1),
    tested: datetime = START + timedelta(hours=1),
    days: tuple[str, ...] = ("2017-10-03", "2017-10-04"),
    published: datetime = START - timedelta(days=1),
    **article_columns: list,
) -> Path:
    """Two days of clicks, a checkpoint and its predictions; one reader's click at `learned` is a target."""
    lake = Lake(root)
    tables = [publish_tables(lake, Ref(NAME, "clicks", d), {"clicks": clicks([START])}) for d in days]
    earlier = min(learned, START) - timedelta(days=1)
    known = publish_tables(lake, Ref(NAME, "interactions", DAY), {"interactions": clicks([earlier, learned])}, tables)
    sessions = publish_tables(
        lake, Ref(NAME, "session_splits", PARTITION),
        {"sessions": pa.table({"first": [0], "target": [1], "split": ["train"]})}, [known],
    )  # fmt: skip
    articles = pa.table(
        {schema.ARTICLE_ID: [7], schema.PUBLISHED: pa.array([published], schema.TIME), **article_columns}
    )
    features = publish_tables(lake, Ref(NAME, "article_features", DAY), {"features": articles})
    weights = {"model": pa.table({"w": [1.0]})}
    model = publish_tables(lake, Ref(NAME, "checkpoint", PARTITION, "snert"), weights, [known, sessions, features])
    later = publish_tables(lake, Ref(NAME, "impressions", DAY), {"impressions": clicks([tested])})
    predict(lake, model, later, tested)
    return root


def predict(lake: Lake, model: Version, impressions: Version, tested: datetime) -> None:
    cases = pa.table({schema.USER_ID: [1], schema.CLICK_TIME: pa.array([tested], schema.TIME), schema.ARTICLE_ID: [7]})
    publish_tables(lake, Ref(NAME, "predictions", PARTITION, "snert"), {"cases": cases}, [model, impressions])


def found(root: Path) -> list[tuple[str, str]]:
    answer = leaks(walk_all(root))
    assert answer["ok"] == (not [f for f in answer["findings"] if f["broken"]])
    return [(f["kind"], f["message"]) for f in answer["findings"]]


def test_a_clean_lake_has_no_leak_and_was_looked_at(tmp_path):
    answer = leaks(walk_all(world(tmp_path)))
    assert answer["ok"] and answer["findings"] == []
    assert answer["looked_at"] == {"versions": 2, "inputs": 7, "tables": 3, "targets": 1, "test_cases": 1}


def test_a_day_from_the_as_of_day_on_is_newer_than_allowed(tmp_path):
    said = found(world(tmp_path, days=("2017-10-04", DAY)))
    assert said == [
        (
            "newer",
            f"reads {NAME}/clicks/{DAY}, newer than its split rolling allows (nothing from {DAY} on)",
        )
    ]


def test_a_click_of_the_future_among_the_inputs_is_a_column_that_knows(tmp_path):
    said = found(world(tmp_path, learned=START, tested=START + timedelta(hours=2)))
    assert ("column", f"{NAME}/interactions/{DAY}: interactions.parquet holds time 2017-10-05T03:00:00+00:00, "
            "after what the model may know") in said  # fmt: skip


def test_an_article_that_is_not_published_yet_is_found(tmp_path):
    (said,) = found(world(tmp_path, published=START + timedelta(seconds=1)))
    assert said[0] == "column" and "features.parquet holds published" in said[1]


@pytest.mark.parametrize("name", ["total_pageviews", "next_read_time"])
def test_columns_that_sum_up_what_came_after_are_found(tmp_path, name):
    (said,) = found(world(tmp_path, **{name: [3]}))
    assert said == ("column", f"{NAME}/article_features/{DAY}: features.parquet has column {name}, known only later")


def test_a_later_correction_of_an_article_is_told_and_no_break(tmp_path):
    (said,) = found(world(tmp_path, modified=pa.array([START + timedelta(days=9)], schema.TIME)))
    assert "1 articles are in the version of a later correction" in said[1]
    assert leaks(walk_all(tmp_path))["ok"]


def test_a_test_case_that_was_a_target_is_an_overlap(tmp_path):
    moment = START - timedelta(hours=1)
    said = found(world(tmp_path, learned=moment, tested=moment))
    messages = [m for kind, m in said if kind == "overlap"]
    assert any(m.startswith("1 test cases are targets") for m in messages)
    assert any("at or after the first test case" in m for m in messages)


@pytest.mark.parametrize("stage", ["interactions", "session_splits"])
def test_what_was_erased_is_not_checked_and_said_so(tmp_path, stage):
    moment = START - timedelta(hours=1)
    root = world(tmp_path, learned=moment, tested=moment)
    ref = Ref(NAME, stage, DAY if stage == "interactions" else PARTITION)
    bury(root, ref, recorded=True)
    answer = leaks(walk_all(root))
    unread = {f["ref"]: (f["message"], f["broken"]) for f in answer["findings"] if f["kind"] == "unread"}
    said = (f"not checked: {ref} is erased", False)
    assert unread == {f"{NAME}/checkpoint/snert/{PARTITION}": said, f"{NAME}/predictions/snert/{PARTITION}": said}
    assert answer["ok"] and render(answer).endswith("no leak found in what could be read")
    assert answer["looked_at"]["targets"] == 0


def test_erased_predictions_are_not_checked_and_said_so(tmp_path):
    root = world(tmp_path)
    ref, lake = Ref(NAME, "predictions", PARTITION, "snert"), Lake(root)
    figures = {"per_case": pa.table({"hit": [1.0]})}
    publish_tables(lake, Ref(NAME, "evaluation_rq1", PARTITION, "snert"), figures, [lake.require(ref)])
    bury(root, ref, recorded=True)
    (told,) = [f for f in leaks(walk_all(root))["findings"] if "erased" in f["message"]]
    assert told["message"] == f"not checked: {ref} is erased" and not told["broken"]


@pytest.mark.parametrize("stage", ["interactions", "session_splits", "clicks", "checkpoint", "predictions"])
def test_what_is_missing_is_not_checked_and_breaks(tmp_path, stage):
    root = world(tmp_path)
    (path,) = (p for p in (root / NAME / stage).rglob("manifest.json") if "2017-10-03" not in str(p))
    path.parent.chmod(0o755)
    shutil.rmtree(path.parent)
    answer = leaks(walk_all(root))
    assert not answer["ok"]
    assert any(f["kind"] == "unread" and f["message"].endswith("is missing") for f in answer["findings"])
    assert "BROKEN" in render(answer) and "no leak found in what could be read" in render(answer)


def test_a_table_of_another_size_is_not_read(tmp_path):
    root = world(tmp_path, learned=START, tested=START + timedelta(hours=2))
    (path,) = (root / NAME / "interactions").rglob("interactions.parquet")
    path.chmod(0o644)
    path.write_bytes(path.read_bytes() + b"x")
    answer = leaks(walk_all(root))
    assert not answer["ok"] and {f["kind"] for f in answer["findings"]} == {"unread"}
    assert any(f["message"] == f"not checked: {NAME}/interactions/{DAY} is changed" for f in answer["findings"])


def test_a_clean_lake_is_told_as_such_and_a_leak_is_counted(tmp_path):
    assert render(leaks(walk_all(world(tmp_path / "clean")))).endswith("test cases\nno leak found")
    leaking = leaks(walk_all(world(tmp_path / "leak", published=START + timedelta(seconds=1))))
    assert render(leaking).endswith("\n1 leak found")
