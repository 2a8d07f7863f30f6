"""A reader erased from a real tiny lake by the command: scanned, verified, run again, replayed, collected."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from resources.lake import Lake, Ref
from tests.pipeline.test_end_to_end import newsrec
from tests.resources.lineage_help import flip

pytestmark = pytest.mark.slow
METRIC = "rq1.thesis.recall@20"


def scan(lake: Path, user: int) -> list[str]:
    """Every file below the lake that shows the reader: any integer column of tables and arrays but counts and ids of
    other things, and any text."""
    found = []
    for path in (p for p in lake.rglob("*") if p.is_file()):
        if path.suffix == ".parquet":
            columns = pq.read_table(path).to_pydict()
            if user in columns.get("user_id", []) or any(f":{user}," in str(r) for r in columns.get("row", [])):
                found.append(str(path))
        elif path.suffix == ".npy":
            if user in np.load(path):
                found.append(str(path))
        elif path.suffix in (".json", ".jsonl", ".html", ".md") and re.search(
            rf"user_id\W{{1,4}}{user}\b", path.read_text()
        ):
            found.append(str(path))
    return found


def test_a_reader_is_erased_and_does_not_come_back(tmp_path):
    (tmp_path / "dagster").mkdir()
    newsrec(tmp_path, "simulate", "--out", str(tmp_path / "log"), "--size", "tiny", "--seed", "3")
    newsrec(tmp_path, "run", "--models", "popular_15,snert", "--json")
    lake = Lake(tmp_path / "lake")
    day = lake.partitions("simulated", "evaluation_report")[0]
    cases = lake.require(Ref("simulated", "predictions", day, "snert")).file("cases.parquet")
    user = int(pq.read_table(cases).column("user_id").value_counts().to_pylist()[0]["values"])
    assert scan(lake.root, user)
    said = json.loads(newsrec(tmp_path, "erase", "--user", str(user), "--dry-run", "--json"))
    done = json.loads(newsrec(tmp_path, "erase", "--user", str(user), "--why", "a letter", "--json"))
    assert said["rows"] == done["rows"] and [m["ref"] for m in done["models"]] == [f"simulated/checkpoint/snert/{day}"]
    assert done["unverifiable"]["evaluation_report"][0].startswith(f"simulated/evaluation_report/{day}")
    assert scan(lake.root, user) == []
    verified = newsrec(tmp_path, "audit", "verify", METRIC)
    assert f"by request {done['request']}" in verified and "everything is as it was published" in verified
    newsrec(tmp_path, "audit", "show", METRIC, "--html", str(tmp_path / "page.html"))
    assert '"state":"erased"' in (tmp_path / "page.html").read_text()
    newsrec(tmp_path, "recommend", "--user", str(user), "--k", "3")
    newsrec(tmp_path, "run", "--models", "popular_15,snert", "--json")
    assert scan(lake.root, user) == []
    assert "everything is as it was published" in newsrec(tmp_path, "audit", "verify", "--all")
    for start in ("predictions", "checkpoint"):
        assert "identical" in newsrec(tmp_path, "audit", "replay", METRIC, "--from", start)
    newsrec(tmp_path, "lake", "gc", "--keep-days", "0", "--keep-versions", "0", "--apply", "--caches")
    assert "everything is as it was published" in newsrec(tmp_path, "audit", "verify", "--all")
    flip(lake.require(Ref("simulated", "clicks", "2023-05-01")).file("clicks.parquet"), 40, 2)
    newsrec(tmp_path, "audit", "verify", "--all", code=1)
