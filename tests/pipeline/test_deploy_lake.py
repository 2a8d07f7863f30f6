"""The command line on a lake with a bucket: another machine audits it, and a bucket that is away ends in one line."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pipeline.conftest import newsrec
from tests.resources.s3_help import ADDRESS, Server, serving

METRIC = ("rq1.in_session.recall@20", "--dataset", "simulated", "--model", "snert", "--json")


@pytest.fixture
def s3(monkeypatch) -> Iterator[Server]:
    with serving() as server:
        monkeypatch.setenv("NEWSREC_BUCKET", ADDRESS)
        yield server


def test_a_fresh_machine_audits_what_another_has_published(home: Path, tmp_path: Path, s3: Server, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.delenv("NEWSREC_BUCKET")
        shown, figures = newsrec(home, "audit", "show", *METRIC), newsrec(home, "metrics", "--json")
    shutil.copytree(home, tmp_path / "one")
    assert "agree on" in newsrec(tmp_path / "one", "lake", "sync")
    (tmp_path / "two/dagster").mkdir(parents=True)
    assert json.loads(newsrec(tmp_path / "two", "audit", "show", *METRIC)) == json.loads(shown)
    assert newsrec(tmp_path / "two", "metrics", "--json") == figures
    (path,) = (tmp_path / "two/lake/simulated/evaluation_report").glob("*/*/report.json")
    path.chmod(0o644)
    path.write_text(path.read_text().replace("0.", "1.", 1))
    newsrec(tmp_path / "two", "audit", "verify", "--all", code=1)
    assert "report.json: taken from the bucket" in newsrec(tmp_path / "two", "lake", "sync", "--verify")
    newsrec(tmp_path / "two", "audit", "verify", "--all")


def test_a_bucket_that_is_away_ends_every_command_in_one_line(tmp_path: Path, s3: Server) -> None:
    (tmp_path / "dagster").mkdir()
    s3.stop()
    for command in (("metrics",), ("audit", "verify", "--all"), ("lake", "usage")):
        said = newsrec(tmp_path, *command, code=1).strip().splitlines()
        assert len(said) == 1 and said[0].startswith("newsrec: s3://news/lake/"), said
        assert "the bucket is away" in said[0]
    s3.start()


def test_a_bucket_that_means_nothing_is_bad_usage(tmp_path: Path, s3: Server, monkeypatch) -> None:
    (tmp_path / "dagster").mkdir()
    monkeypatch.setenv("NEWSREC_BUCKET", "news")
    assert "write s3://BUCKET" in newsrec(tmp_path, "metrics", code=2)
    monkeypatch.delenv("NEWSREC_BUCKET")
    (tmp_path / "lake").mkdir()
    assert "has no bucket: set NEWSREC_BUCKET" in newsrec(tmp_path, "lake", "sync", code=2)
