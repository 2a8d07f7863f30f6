"""Challengers of two as-of days on the tiny log: decisions, record, registry, rollback, decay and drift."""

import json
import shutil
from datetime import date, timedelta

import pytest

from resources.champion import Champions
from resources.lake import Lake, Ref
from resources.lineage.archive import read_partition
from tests.pipeline.conftest import newsrec

LOOSE = ("--margin-recall", "1", "--margin-auc", "1", "--margin-coverage", "1")


@pytest.fixture(scope="module")
def duels(home, tmp_path_factory):
    """A copy of the shared lake after challenges of the day before its last as-of day, and of that one."""
    folder = tmp_path_factory.mktemp("duels")
    for name in ("dagster", "lake", "log"):
        shutil.copytree(home / name, folder / name, copy_function=shutil.copy2)
    shutil.copy2(home / "mlflow.db", folder / "mlflow.db")
    (partition,) = Lake(folder / "lake").partitions("simulated", "checkpoint", "snert")
    new = date.fromisoformat(partition.split(".")[0])
    old = new - timedelta(days=1)
    told = [newsrec(folder, "challenge", "--as-of", str(d), *LOOSE, "--json") for d in (old, new)]
    return folder, [str(old), str(new)], [json.loads(text) for text in told]


def champion(folder):
    """What `newsrec champion --json` prints, without a process of its own."""
    champions = Champions(Lake(folder / "lake"), "simulated", "snert", "rolling")
    current = champions.current()
    assert current is not None
    named = {"ref": str(current.ref), "manifest": current.manifest}
    return {"champion": named, "acts": [a.to_json() for a in champions.acts()]}


def alias(folder):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    return client.get_model_version_by_alias("newsrec.simulated.snert.rolling", "champion").tags["newsrec.manifest"]


def test_the_second_challenger_meets_the_first_on_the_same_lists(duels):
    folder, (old, new), (first, second) = duels
    assert first["champion"] is None and first["promote"] and second["promote"]
    assert second["champion"]["ref"].endswith(f"{old}.rolling")
    lake = Lake(folder / "lake")
    own = json.loads(
        lake.require(Ref("simulated", "evaluation_rq1", f"{new}.rolling", "snert")).file("metrics.json").read_text()
    )
    ours = second["figures"]["rq1"]["challenger"]["thesis"]["recall@20"]
    theirs = second["figures"]["rq1"]["champion"]["thesis"]["recall@20"]
    paired = second["figures"]["rq1"]["paired"]["thesis"]["recall@20"]
    assert ours == own["protocols"]["thesis"]["recall@20"]
    assert ours["n"] == theirs["n"] == paired["n"]
    assert paired["difference"] == pytest.approx(ours["value"] - theirs["value"], abs=1e-9)
    ages = second["segments"]["rq1"]["article_age"]
    assert sum(e["lists"] for e in ages.values()) == ours["n"]
    assert {c["name"] for c in second["criteria"]} >= {"RQ2 AUC", "RQ3 coverage", "latency", "manifest"}


def test_the_decision_is_an_asset_with_a_page_that_stands_alone(duels):
    folder, (old, new), (_, second) = duels
    version = Lake(folder / "lake").require(Ref("simulated", "promotion", f"{new}.rolling", "snert"))
    assert version.manifest["inputs"][f"simulated/checkpoint/snert/{old}.rolling"] == second["champion"]["manifest"]
    text = version.file("promotion.html").read_text()
    assert "becomes champion" in text and "By segment: Device" in text and "http" not in text
    assert sum(f["bytes"] for f in version.manifest["files"]) < 1_000_000, "lists and scores do not stay"


def test_a_decision_stands_and_is_acted_on_once(duels):
    folder, (_, new), (_, second) = duels
    before = champion(folder)
    again = json.loads(newsrec(folder, "challenge", "--as-of", new, *LOOSE, "--json"))
    assert again == second
    assert champion(folder) == before and len(before["acts"]) == 2
    assert before["acts"][1]["decision"] == second["manifest"]
    told = json.loads(newsrec(folder, "champion", "--json"))
    assert {name: told[name] for name in before} == before


def test_record_and_registry_name_the_same_champion_through_rollback_and_promotion(duels, tmp_path):
    source, (old, new), _ = duels
    folder = tmp_path / "copy"
    shutil.copytree(source, folder)
    assert champion(folder)["champion"]["ref"].endswith(f"{new}.rolling")
    assert alias(folder) == champion(folder)["champion"]["manifest"]
    assert "--why" in newsrec(folder, "rollback", code=2)
    newsrec(folder, "rollback", "--why", "complaints")
    found = champion(folder)
    assert found["champion"]["ref"].endswith(f"{old}.rolling") and alias(folder) == found["champion"]["manifest"]
    assert (found["acts"][-1]["action"], found["acts"][-1]["why"]) == ("rollback", "complaints")
    assert found["acts"][-1]["who"]
    assert "no champion" in newsrec(folder, "rollback", "--why", "more", code=2)
    answer = json.loads(newsrec(folder, "recommend", "--user", "10008", "--k", "3", "--json"))
    assert answer["checkpoint"].endswith(f"{old}.rolling"), "the champion, not the newest"
    newsrec(folder, "promote", "--as-of", new, "--why", "fixed")
    assert alias(folder) == champion(folder)["champion"]["manifest"]
    answer = json.loads(newsrec(folder, "recommend", "--user", "10008", "--k", "3", "--json"))
    assert answer["checkpoint"].endswith(f"{new}.rolling")


def test_a_challenger_over_the_latency_budget_is_refused_and_the_champion_stays(duels, tmp_path):
    source, (old, new), _ = duels
    folder = tmp_path / "copy"
    shutil.copytree(source, folder)
    newsrec(folder, "rollback", "--why", "so that the new one is a challenger again")
    tight = ("--latency-budget-ms", "0.001", *LOOSE, "--json")
    decision = json.loads(newsrec(folder, "challenge", "--as-of", new, *tight))
    assert not decision["promote"] and decision["why"].startswith("latency")
    found = champion(folder)
    assert found["champion"]["ref"].endswith(f"{old}.rolling")
    assert found["acts"][-1]["action"] == "refuse" and "latency" in found["acts"][-1]["why"]


def test_a_challenger_whose_inputs_were_changed_is_refused(duels, tmp_path):
    source, (_, new), _ = duels
    folder = tmp_path / "copy"
    shutil.copytree(source, folder)
    raw = next((folder / "lake" / "simulated" / "raw_parquet").glob("2023-04-29/*/*.parquet"))
    data = bytearray(raw.read_bytes())
    data[len(data) // 2] ^= 1
    raw.chmod(0o644)
    raw.write_bytes(data)
    more = ("--latency-budget-ms", "9999", *LOOSE, "--json")
    decision = json.loads(newsrec(folder, "challenge", "--as-of", new, *more))
    assert not decision["promote"]
    assert "raw_parquet" in decision["faults"][0] and decision["why"].startswith("manifest")


def test_decay_shows_the_old_checkpoint_beside_the_retrained_one(duels):
    folder, (old, new), _ = duels
    found = json.loads(newsrec(folder, "decay", "--as-of", old, "--days", "2", "--json"))
    rows = {(r["age"], r["question"], r["metric"]): r for r in found["rows"] if r["protocol"] == "thesis"}
    row = rows[1, "rq1", "recall@20"]
    lake = Lake(folder / "lake")
    for partition, entry in ((f"{old}.lag_1", row), (f"{new}.rolling", row["retrained"])):
        metrics = lake.require(Ref("simulated", "evaluation_rq1", partition, "snert")).file("metrics.json")
        stored = json.loads(metrics.read_text())["protocols"]["thesis"]["recall@20"]
        assert entry["value"] == stored["value"]
    assert row["difference"]["difference"] == pytest.approx(row["retrained"]["value"] - row["value"], abs=1e-9)
    assert found["missing"] == [[str(date.fromisoformat(new) + timedelta(days=1)), "not evaluated yet"]]
    checkpoints = read_partition(folder / "lake", Ref("simulated", "checkpoint", f"{old}.rolling", "snert"))
    assert len(checkpoints.versions) == 1, "nothing was trained again"
    duel = duels[2][1]["figures"]["rq1"]["champion"]["thesis"]["recall@20"]
    assert duel["value"] == row["value"], "the champion in its duel is the checkpoint one day later"


def test_drift_covers_every_day_and_the_metrics_that_there_are(duels):
    folder, (_, new), _ = duels
    found = json.loads(newsrec(folder, "drift", "--json"))
    assert [d["day"] for d in found["days"]] == sorted(Lake(folder / "lake").partitions("simulated", "clicks"))
    assert {m["model"] for m in found["metrics"]} == {"snert", "popular_15"}
    assert new in {m["day"] for m in found["metrics"]}
    assert max(f["psi"] for f in found["features"]) > 0
    (page,) = (folder / "lake" / "simulated" / "drift").glob("*/*/drift.html")
    assert "<svg" in page.read_text()
    assert "choose a day" in newsrec(folder, "drift", "--as-of", "2030-01-01", code=2)


def test_every_version_still_verifies(duels):
    folder, _, _ = duels
    answer = json.loads(newsrec(folder, "audit", "verify", "--all", "--data-root", str(folder / "log"), "--json"))
    assert answer["ok"] and answer["findings"] == []
    assert Champions(Lake(folder / "lake"), "simulated", "snert", "rolling").kept()
