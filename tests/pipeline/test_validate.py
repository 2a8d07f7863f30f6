"""`newsrec validate`, and the README's way from a CSV file to a report."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import mlflow
import polars as pl
import pytest
import typer
from typer.testing import CliRunner

from ml import simulator
from ml.errors import DataError, UsageError
from pipeline.cli import app
from pipeline.validate import dataset_of, report_on
from pipeline.validate_text import render
from resources.lake import Lake, Ref
from tests.ml import bundles
from tests.ml.bundles import globo_click, write_hour
from tests.ml.test_readers_mind import small
from tests.ml.test_readers_own_log import OSLO, click, write_log

ROOT = Path(__file__).parents[2]
LAST = " && newsrec run"


def shell(home: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in `home`, with `newsrec` and `python` of this environment and a lake there."""
    tools = home / "tools"
    tools.mkdir(exist_ok=True)
    for name, arguments in (("newsrec", "-m pipeline.cli "), ("python", "")):
        (tools / name).write_text(f'#!/bin/sh\nexec {sys.executable} {arguments}"$@"\n')
        (tools / name).chmod(0o755)
    (home / "dagster").mkdir(exist_ok=True)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("NEWSREC_")} | {
        "PATH": f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "DAGSTER_HOME": str(home / "dagster"),
        "NEWSREC_LAKE": str(home / "lake"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{home / 'mlflow.db'}",
    }
    return subprocess.run(
        ["bash", "-c", command], cwd=home, env=environment, capture_output=True, text=True, check=False
    )


def test_a_folder_is_known_by_its_files(tmp_path):
    bundles.synthetic_bundle(tmp_path / "ebnerd")
    write_hour(tmp_path / "globo", 0, [globo_click(0, 1, "2017-10-01 03:00", 5, "2017-10-01 03:00")])
    small(tmp_path / "mind")
    for name in ("ebnerd", "globo", "mind"):
        assert dataset_of(tmp_path / name, None).name == name
    (tmp_path / "ebnerd" / "oracle").mkdir()
    assert dataset_of(tmp_path / "ebnerd", None).name == "simulated"
    log = write_log(tmp_path / "own", clicks=[click(1, 2, "2023-05-01 08:00")])
    assert {dataset_of(log, asked).name for asked in (None, "own", "paper")} == {"paper"}
    with pytest.raises(UsageError, match="calls the log 'paper'"):
        dataset_of(log, "times")
    with pytest.raises(UsageError, match="layout of no dataset"):
        dataset_of(tmp_path, None)
    with pytest.raises(UsageError, match="unknown dataset 'nonsense'"):
        dataset_of(tmp_path, "nonsense")
    (log / "log.toml").unlink()
    with pytest.raises(DataError, match=r"log\.toml cannot be read"):
        dataset_of(log, None)


def test_exit_codes_and_report(tmp_path):
    log = write_log(tmp_path / "log", clicks=[click(1, 2, "2023-05-01 08:00"), click(-1, 2, "2023-05-01 08:00")])
    done = shell(tmp_path, f"newsrec validate {log}")
    assert done.returncode == 2 and "row 2: " in done.stdout and "negative_id" in done.stdout
    report = json.loads(shell(tmp_path, f"newsrec validate {log} --json").stdout)
    assert not report["clean"] and report["errors"][0]["examples"][0]["row"] == 2
    write_log(log, clicks=[click(1, 2, "2023-05-01 08:00")])
    done = shell(tmp_path, f"newsrec validate {log} --json")
    assert done.returncode == 0 and json.loads(done.stdout)["clean"]
    write_log(log, OSLO)
    done = shell(tmp_path, f"newsrec validate {log} --json")
    assert (
        done.returncode == 2 and "times without a zone" in json.loads(done.stdout)["errors"][0]["examples"][0]["value"]
    )
    done = shell(tmp_path, "newsrec validate nowhere")
    assert done.returncode == 2 and "no such folder" in done.stderr
    assert not (tmp_path / "lake").exists()


@pytest.mark.parametrize(
    "arguments",
    [["validate", ""], ["land", "", "--day", "2023-05-01"], ["run", "--data-root", ""], ["simulate", "--out", ""],
     ["correct", "--day", "2023-05-01", "--why", "x", "--from", ""]],
    ids=lambda arguments: arguments[0],
)  # fmt: skip
def test_an_empty_path_is_no_folder(arguments):
    with pytest.raises(typer.BadParameter, match="it is empty: name a folder"):
        CliRunner().invoke(app, arguments, standalone_mode=False, catch_exceptions=False)


def said_of(root: Path) -> str:
    return render(report_on(root, None, lambda _: None))


def test_the_report_reads_as_it_should(tmp_path):
    rows = [click(1, 10, "2023-05-01 08:00"), click(-1, 10, "2023-05-01 08:00"), click(1, 10, "2023-05-01 08:00")]
    log = write_log(tmp_path, clicks=rows, impression=[{"user_id": 1}])
    (log / "readme.txt").write_text("")
    assert (
        said_of(log)
        == f"""\
{log}: paper, 1 file read, 1 day from 2023-05-01 to 2023-05-01

file            rows in  in days  quarantined  exact copies
clicks.parquet        3        3            0             0

table        rows in  published  quarantined  exact copies
articles           0          0            0             0
clicks             3          1            1             1
impressions        0          0            0             0
  articles: 1 more articles have no row and are known by their appearance alone

errors, 2 kinds
  misnamed
    impression.parquet: it is not read: is impressions.parquet meant? Rename, convert or move it; if it is no part of \
the log, move it away
  negative_id (clicks): ids are whole numbers from 0 up
    clicks.parquet, column ids: 1
      row 2: {{"user_id": -1, "article_id": 10, "time": 1682928000000}}

warnings, 1 kind
  duplicate_clicks (clicks): exact copies are dropped
    clicks.parquet: 1
      row 3: {{"article_id": 10, "time": "2023-05-01T08:00:00.000Z"}}

not read
  readme.txt

the contract is broken: see the errors"""
    )


def test_of_many_broken_files_some_are_shown_and_all_are_counted(tmp_path):
    start = "2017-10-01 03:00"
    for hour in range(60):
        write_hour(tmp_path, hour, [globo_click(hour, hour, start, 50, start), f"bad line {hour}"])
    for hour in range(60, 100):
        write_hour(tmp_path, hour, [], header="user_id,session_id")
    for hour in range(100, 150):
        write_hour(tmp_path, hour, []).write_bytes(b"\x1f\x8b broken")
    (tmp_path / "more").mkdir()
    for hour in range(40):
        (tmp_path / f"file {hour:02d}").write_text("")
    report = report_on(tmp_path, None, lambda _: None)
    counts = Counter(b.kind for b in report.breaches if b.severity == "error")
    assert counts == {"wrong_number_of_fields": 60, "missing_column": 400, "unreadable_file": 50}
    assert report.tables["clicks"] == {"rows_in": 120, "published": 60, "quarantined": 60, "duplicates": 0}
    text = render(report)
    kinds = re.split(r"\n  (?=\w+(?: \(|, ))", text.split("errors, 3 kinds")[1].split("\nnot read")[0])[1:]
    assert len(kinds) == 3 and all(25 <= len(kind.splitlines()) <= 31 for kind in kinds)
    assert all(re.search(r"and \d+ more, \d+ in all", kind) for kind in kinds)
    assert "wrong_number_of_fields (clicks), 60 in all" in text and "missing_column, 400 in all" in text
    assert ", columns session_start, session_size, click_article_id" in text
    assert "\n40 other files " in text and "\n  and 21 more\n" in text
    assert len(text.splitlines()) < 170


def test_a_folder_of_no_layout_is_told_what_it_almost_is(tmp_path):
    (tmp_path / "MINDsmall_train").mkdir()
    (tmp_path / "MINDsmall_train" / "behaviors.tsv").write_text("")
    with pytest.raises(UsageError, match=r"MINDsmall_train/ is almost train/ of mind\)"):
        dataset_of(tmp_path, None)
    (tmp_path / "MINDsmall_train").rename(tmp_path / "whatever")
    (tmp_path / "click.parquet").write_bytes(b"")
    (tmp_path / "whatever" / "behaviors.tsv").unlink()
    with pytest.raises(UsageError, match=r"click.parquet is almost clicks.parquet of own"):
        dataset_of(tmp_path, None)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with the `clicks.csv` of simulated readers."""
    folder = tmp_path_factory.mktemp("readme")
    simulator.simulate(folder / "simulated", "tiny", 3)
    shown = pl.concat([pl.read_parquet(p) for p in sorted(folder.glob("simulated/*/behaviors.parquet"))])
    rows = shown.select(
        pl.col("user_id").alias("user"),
        pl.col("article_ids_clicked").alias("article"),
        pl.col("impression_time").dt.to_string("%Y-%m-%d %H:%M:%S").alias("time"),
    ).explode("article")
    rows.drop_nulls().unique(maintain_order=True).write_csv(folder / "clicks.csv")
    return folder


def example() -> str:
    """The README's lines."""
    text = (ROOT / "README.md").read_text().split("## From a CSV of clicks to RQ1 tables")[1]
    found = re.search(r"```sh\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_readme_example_makes_a_log_that_keeps_the_contract(home):
    lines = example()
    assert len(lines.splitlines()) <= 10 and LAST in lines
    done = shell(home, lines.split(LAST)[0])
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    rows = len((home / "clicks.csv").read_text().splitlines()) - 1
    assert re.search(rf"\nclicks +{rows:,} +{rows:,} +0 +0\n", done.stdout), done.stdout


@pytest.mark.slow
def test_the_readme_example_ends_in_rq1_tables_and_lists_can_be_synthesised(home):
    log = home / "data"
    if log.exists():
        log.rename(home / "data_before")
    done = shell(home, example())
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "RQ1" in done.stdout and "RQ2" not in done.stdout
    report = json.loads(shell(home, "newsrec metrics --dataset mypaper --json").stdout)
    assert report["models"]["popular_15"]["rq1"]["thesis"]["recall@20"]["value"] > 0.1
    assert not report["models"]["popular_15"]["rq2"] and not report["synthetic_inview"]

    toml = home / "data" / "mypaper" / "log.toml"
    toml.write_text(toml.read_text() + '[inview]\nsynthesise = "uniform"\nlength = 6\n')
    run = "newsrec run --dataset own --data-root data/mypaper --models popular_60,random"
    done = shell(home, run)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "random (synthetic)" in done.stdout and "RQ2" in done.stdout
    report = json.loads(shell(home, "newsrec metrics --dataset mypaper --json").stdout)
    made = "synthetic: uniform among clicks of the last 60 min, 6 long, seed 1"
    assert report["synthetic_inview"] == made and any(made in note for note in report["notes"])
    assert all(m["synthetic_inview"] == made for m in report["models"].values())
    assert abs(report["models"]["random"]["rq2"]["auc"]["value"] - 0.5) < 0.05
    lake = Lake(home / "lake")
    (partition,) = lake.partitions("mypaper", "evaluation_report")
    page = lake.require(Ref("mypaper", "evaluation_report", partition)).file("report.html").read_text()
    assert "synthetic in-view lists" in page and "random (synthetic)" in page
    for query in (
        "SELECT DISTINCT synthetic_inview AS s FROM impressions",
        "SELECT DISTINCT synthetic_inview AS s FROM inview",
    ):
        found = json.loads(shell(home, f'newsrec sql --dataset mypaper --json "{query}"').stdout)
        assert made in {row["s"] for row in found}
    client = mlflow.MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    runs = client.search_runs(
        [e.experiment_id for e in client.search_experiments()],
        filter_string=f"tags.`newsrec.synthetic_inview` = '{made}'",
    )
    labelled = {r.data.tags["newsrec.ref"].split("/")[1] for r in runs}
    assert labelled == {f"evaluation_{n}" for n in ("rq2", "segments", "report")} | {"impressions", "predictions"}
    hours = shell(home, "newsrec metrics --dataset mypaper --segments hour").stdout
    assert "AUC (synthetic)" in hours and "Recall@20, thesis " in hours
    told = shell(home, "newsrec analyse --dataset mypaper --data-root data/mypaper").stdout
    assert "articles in view, median (synthetic)" in told and made in told
    told = shell(home, "newsrec audit show rq2.auc --dataset mypaper --model random").stdout
    assert told.startswith("rq2.auc (synthetic) = 0.")

    for known in (
        "newsrec analyse --dataset mypaper --data-root data/mypaper --json",
        "newsrec landing --dataset own --data-root data/mypaper",
        "newsrec audit leaks --dataset mypaper --model random",
        "newsrec audit replay rq1.thesis.recall@20 --dataset mypaper --model random --data-root data/mypaper",
    ):
        done = shell(home, known)
        assert done.returncode == 0, known + done.stderr[-2000:]
