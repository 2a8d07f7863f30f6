"""The whole graph on the tiny simulated log, through the command line, with a lake of its own."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ml.segments import DIMENSIONS
from resources.bindings import DEFAULT_MODELS
from resources.lake import Lake, Ref
from resources.lineage.metric import ADDRESSED, numbers
from tests.pipeline.conftest import newsrec


def test_the_report_has_every_model_and_question(home):
    report = json.loads(newsrec(home, "metrics", "--json"))
    assert set(report["models"]) == set(DEFAULT_MODELS)
    assert report["dataset"] == "simulated"
    for name, model in report["models"].items():
        assert set(model["rq1"]) >= {"thesis", "unread", "in_session"}, name
        for protocol in model["rq1"].values():
            entry = protocol["recall@20"]
            assert 0 <= entry["low"] <= entry["value"] <= entry["high"] <= 1
    values = {m: v["rq2"]["auc"]["value"] for m, v in report["models"].items()}
    assert abs(values["random"] - 0.5) < 0.05
    assert values["popular_15"] > 0.55
    recall = {m: v["rq1"]["thesis"]["recall@20"]["value"] for m, v in report["models"].items()}
    assert recall["popular_15"] > 2 * recall["random"]
    assert recall["snert"] > recall["random"]


def test_segments_stand_in_the_report_and_sum_up_to_all_lists(home):
    report = json.loads(newsrec(home, "metrics", "--json"))
    for name, model in report["models"].items():
        for protocol, dimensions in model["segments"]["rq1"].items():
            assert set(dimensions) == set(DIMENSIONS), name
            for segments in dimensions.values():
                lists = sum(entry["lists"] for entry in segments.values())
                assert lists == model["counts"]["rq1"][protocol]["lists"]
                total = sum(e["recall@20"]["value"] * e["lists"] for e in segments.values() if e["lists"])
                assert total / lists == pytest.approx(model["rq1"][protocol]["recall@20"]["value"], abs=1e-9)
    assert "under_1h" in newsrec(home, "metrics", "--segments", "article_age")
    assert "no segments 'magic'" in newsrec(home, "metrics", "--segments", "magic", code=2)


def test_a_second_run_computes_nothing(home):
    plan = json.loads(newsrec(home, "run", "--explain", "--json"))
    assert plan and {row["state"] for row in plan} == {"fresh"}


def test_the_log_is_described_once(home):
    (report,) = json.loads(newsrec(home, "analyse", "--json"))
    assert report["simulated"] and 0 < report["measures"]["gini"]["value"] < 1
    assert report["measures"]["lifecycle_median_hours"]["published"][0]["value"] == 5.3
    plan = json.loads(newsrec(home, "analyse", "--explain", "--json"))
    assert plan and {row["state"] for row in plan} == {"fresh"}
    assert "no days" in newsrec(home, "analyse", "--from", "2030-01-01", code=2)


def test_another_seed_makes_only_what_the_seed_decides_stale(home):
    plan = json.loads(newsrec(home, "run", "--explain", "--json", "--seed", "8"))
    stages = {row["partition"].split("/")[1] for row in plan if row["state"] != "fresh"}
    assert "checkpoint" in stages
    assert not stages & {"raw_parquet", "articles", "clicks", "interactions", "popularity_tensor", "session_splits"}


def test_every_version_of_the_lake_verifies_and_names_existing_inputs(home):
    lake = Lake(home / "lake")
    for stage in lake.stages("simulated"):
        for model in [None, *lake.models("simulated", stage)]:
            for partition in lake.partitions("simulated", stage, model):
                version = lake.require(Ref("simulated", stage, partition, model))
                assert lake.verify(version) == []
                for ref, digest in version.manifest["inputs"].items():
                    assert lake.require(Ref.parse(ref)).manifest_digest == digest


def test_checkpoint_and_report_are_read_back_without_dagster(home):
    from safetensors.numpy import load_file

    lake = Lake(home / "lake")
    (partition,) = lake.partitions("simulated", "checkpoint", "snert")
    version = lake.require(Ref("simulated", "checkpoint", partition, "snert"))
    weights = load_file(version.file("model.safetensors"))
    assert weights and all(np.isfinite(w).all() for w in weights.values())
    report = lake.require(Ref("simulated", "evaluation_report", partition))
    assert "<html" in report.file("report.html").read_text()


def test_recommend_answers_for_a_reader_and_for_a_stranger(home):
    reader = json.loads(newsrec(home, "sql", "SELECT user_id FROM interactions LIMIT 1", "--json"))[0]["user_id"]
    for user in (reader, 2**40):
        answer = json.loads(newsrec(home, "recommend", "--user", str(user), "--k", "5", "--json"))
        assert len(answer["articles"]) == 5
        read = {h["article_id"] for h in answer["history"]}
        assert not read & {a["article_id"] for a in answer["articles"]}


def test_a_training_alone_takes_the_lakes_inputs(home, tmp_path):
    (tmp_path / "spec.json").write_text(newsrec(home, "spec", "--out", str(tmp_path / "trained")))
    spec = json.loads((tmp_path / "spec.json").read_text())
    assert spec["out"] == str(tmp_path / "trained")
    assert all(Path(spec["asof"][name]).is_file() for name in ("features", "interactions"))
    train = [sys.executable, "-m", "ml.train"]
    for wrong in ({}, spec | {"seed": "many"}, spec | {"sessions_digest": "0"}):
        (tmp_path / "wrong.json").write_text(json.dumps(wrong))
        done = subprocess.run([*train, str(tmp_path / "wrong.json")], capture_output=True, text=True, check=False)
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "no model that is trained" in newsrec(home, "spec", "--out", "x", "--model", "random", code=2)


def test_sql_sees_sessions_as_lists(home):
    rows = json.loads(newsrec(home, "sql", "SELECT * FROM sessions LIMIT 3", "--json"))
    assert len(rows) == 3
    assert all(isinstance(r["history"], list) and r["history"] for r in rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "--dataset", "nonsense"), "unknown dataset"),
        (("run", "--as-of", "yesterday"), "YYYY-MM-DD"),
        (("run", "--as-of", "2023-01-01"), "no evaluation"),
        (("run", "--as-of", "2030-01-01"), "no evaluation"),
        (("run", "--seed", "-1"), "--seed"),
        (("run", "--models", ","), "no model"),
        (("nosuch",), "no such command"),
        (("recommend", "--user", "1", "--k", "0"), "--k"),
        (("metrics", "--split", "thesis"), "--split thesis"),
        (("sql", ""), "no statement"),
        (("run", "--split", "weekly"), "unknown split"),
        (("run", "--models", "magic"), "unknown model"),
        (("run", "--recipe", "secret"), "unknown recipe"),
        (("run", "--profile", "slow"), "unknown profile"),
        (("run", "--data-root", "/nowhere"), "no such folder"),
        (("metrics", "--model", "magic"), "no model"),
        (("recommend", "--user", "1", "--at", "noon"), "no ISO time"),
        (("sql", "SELEKT 1"), "syntax"),
        (("bench", "nothing"), "unknown benchmark"),
    ],
)
def test_bad_input_ends_in_one_line_and_exit_code_2(home, arguments, message):
    text = newsrec(home, *arguments, code=2)
    assert message.lower() in text.lower()
    assert "Traceback" not in text


def test_the_mlflow_run_of_the_checkpoint_names_the_manifest(home):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    lake = Lake(home / "lake")
    (partition,) = lake.partitions("simulated", "checkpoint", "snert")
    version = lake.require(Ref("simulated", "checkpoint", partition, "snert"))
    experiments = [e.experiment_id for e in client.search_experiments()]
    runs = client.search_runs(experiments, filter_string=f"tags.`newsrec.ref` = '{version.ref}'")
    assert [r.data.tags["newsrec.manifest"] for r in runs] == [version.manifest_digest]
    assert {r.info.status for r in client.search_runs(experiments)} == {"FINISHED"}


def test_the_audit_finds_a_real_lake_in_order_and_both_stores_agree(home):
    verified = json.loads(newsrec(home, "audit", "verify", "--all", "--data-root", str(home / "log"), "--json"))
    assert verified["ok"] and verified["findings"] == []
    assert verified["anchors"]["named"] == {"mlflow": verified["nodes"], "dagster": verified["nodes"]}
    reconciled = json.loads(newsrec(home, "audit", "reconcile", "--json"))
    counts = reconciled["counts"]
    assert reconciled["ok"] and counts["figures"] == counts["in_mlflow"] == counts["in_dagster"] > 100
    leaks = json.loads(newsrec(home, "audit", "leaks", "--all", "--json"))
    assert leaks["ok"] and leaks["findings"] == [] and leaks["looked_at"]["targets"] > 1000


def test_a_number_comes_out_again_from_stored_predictions(home):
    answer = json.loads(newsrec(home, "audit", "replay", "rq2.auc", "--json"))
    assert answer["identical"] and answer["notes"] == []
    assert [s["same"] for s in answer["stages"]] == [True] * len(answer["stages"])


def test_every_number_of_every_report_comes_out_again(home):
    lake = Lake(home / "lake")
    (partition,) = lake.partitions("simulated", "evaluation_report")
    report = json.loads(lake.require(Ref("simulated", "evaluation_report", partition)).file("report.json").read_text())
    wanted = len(numbers(report, ADDRESSED))
    assert wanted > 1000 * len(DEFAULT_MODELS), "segments, too"
    answer = json.loads(newsrec(home, "audit", "replay", "--all", "--json"))
    assert answer["ok"] and answer["numbers"] == answer["identical"] == wanted
    (one,) = answer["reports"]
    assert one["notes"] == [] and {s["same"] for s in one["stages"]} == {True}
    assert len(one["stages"]) == 4 * len(DEFAULT_MODELS)


def test_a_number_comes_out_again_from_the_stored_checkpoint(home):
    answer = json.loads(newsrec(home, "audit", "replay", "rq1.thesis.ndcg@20", "--from", "checkpoint", "--json"))
    assert answer["identical"] and all(s["same"] for s in answer["stages"])
    assert {s["ref"].split("/")[1] for s in answer["stages"]} == {"predictions", "evaluation_rq1"}


@pytest.mark.slow
def test_a_number_comes_out_again_from_the_raw_files(home):
    answer = json.loads(newsrec(home, "audit", "replay", "rq1.thesis.recall@20", "--from", "raw", "--json"))
    assert answer["identical"] and all(s["same"] for s in answer["stages"])
    assert {s["ref"].split("/")[1] for s in answer["stages"]} >= {"raw_parquet", "checkpoint", "article_embeddings"}


@pytest.mark.slow
def test_a_day_that_landed_is_evaluated_without_the_oracle(home, tmp_path):
    """The default as-of day becomes the landed one, of which the bundle's oracle knows nothing."""
    for name in ("dagster", "lake", "log"):
        shutil.copytree(home / name, tmp_path / name, copy_function=shutil.copy2)
    shutil.copy2(home / "mlflow.db", tmp_path / "mlflow.db")
    shown = pl.read_parquet(home / "log" / "validation" / "behaviors.parquet")
    last = shown.filter(pl.col("impression_time") >= pl.col("impression_time").max().dt.offset_by("-23h"))
    later = last.with_columns(pl.col("impression_time").dt.offset_by("1d"), pl.col("impression_id") + 1_000_000)
    (tmp_path / "drop").mkdir()
    later.write_parquet(tmp_path / "drop" / "behaviors.parquet")
    newsrec(tmp_path, "land", str(tmp_path / "drop"), "--day", "2023-05-06")
    report = json.loads(newsrec(tmp_path, "run", "--models", "popular_15,random", "--json"))
    assert report["as_of"] == "2023-05-06"
    for model in report["models"].values():
        assert model["rq2"]["auc"]["n"] > 100 and "share_of_signal" not in model["rq2"] and "oracle" not in model
        assert model["left_out"]["share_of_signal"].startswith("the oracle holds 0 of the ")
    assert "Left out: Share of the oracle's signal: the oracle holds 0 of" in newsrec(tmp_path, "metrics")
    before = json.loads(newsrec(tmp_path, "run", "--as-of", "2023-05-05", "--models", "popular_15,random", "--json"))
    assert all("oracle" in model and "left_out" not in model for model in before["models"].values())
    newsrec(tmp_path, "simulate", "--out", str(tmp_path / "log"), "--size", "tiny", "--seed", "3")


def test_every_report_has_its_cards(home):
    lake = Lake(home / "lake")
    (partition,) = lake.partitions("simulated", "evaluation_report")
    report = lake.require(Ref("simulated", "evaluation_report", partition))
    card = report.file("data_card.md").read_text()
    clicks = sum(
        lake.require(Ref("simulated", "clicks", day)).manifest["rows"]["clicks.parquet"]
        for day in lake.partitions("simulated", "clicks")
    )
    assert f"| clicks | {clicks:,} |" in card and "train/behaviors.parquet" in card
    assert "## snert" in report.file("model_card.md").read_text()
