"""The graph as users see it: names, keys, groups and what importing it costs."""

import os
import subprocess
import sys
from datetime import timedelta

import dagster as dg
import pytest

from assets.build import partitions_of
from assets.graph import STAGES
from ml.datasets import DATASETS
from pipeline.definitions import build_defs
from pipeline.definitions import defs as load
from resources.bindings import DEFAULT_MODELS
from tests.ml.test_readers_own_log import click, write_log

STAGE_NAMES = [
    "raw_parquet",
    "articles",
    "clicks",
    "impressions",
    "dataset_analysis",
    "article_embeddings",
    "interactions",
    "article_features",
    "popularity_tensor",
    "session_splits",
    "checkpoint",
    "faiss_index",
    "predictions",
    "evaluation_rq1",
    "evaluation_rq2",
    "evaluation_rq3",
    "evaluation_segments",
    "evaluation_report",
    "promotion",
    "decay",
    "drift",
]


@pytest.fixture(scope="module")
def defs():
    return load()


def test_stage_names_are_those_that_users_read():
    assert [s.name for s in STAGES] == STAGE_NAMES


def test_every_dataset_has_its_own_keys(defs):
    keys = {spec.key.to_user_string() for spec in defs.resolve_all_asset_specs()}
    per_model = {"predictions", "evaluation_rq1", "evaluation_rq2", "evaluation_rq3", "evaluation_segments"}
    for dataset in ("simulated", "ebnerd", "globo", "mind"):
        expected = {
            f"{dataset}/{n}"
            for n in STAGE_NAMES
            if n not in {*per_model, "checkpoint", "faiss_index", "promotion", "decay"}
        }
        expected |= {f"{dataset}/{n}/{m}" for n in per_model for m in DEFAULT_MODELS}
        expected |= {f"{dataset}/{n}/snert" for n in ("checkpoint", "faiss_index", "promotion", "decay")}
        assert {k for k in keys if k.startswith(f"{dataset}/")} == expected


def test_definitions_are_loadable_and_checkpoint_waits_for_the_gpu_pool(defs):
    dg.Definitions.validate_loadable(build_defs(datasets=["simulated"]))
    graph = defs.resolve_asset_graph()
    assert graph.get(dg.AssetKey(["simulated", "checkpoint", "snert"])).pools == {"gpu"}


def test_a_checkpoint_reads_nothing_from_its_day_on():
    graph = build_defs(datasets=["simulated"]).resolve_asset_graph()
    node = graph.get(dg.AssetKey(["simulated", "checkpoint", "snert"]))
    for key, mapping in node.partition_mappings.items():
        daily = key.path[1] in ("impressions", "article_embeddings", "clicks")
        assert mapping.end_offset <= (-1 if daily else 0), key


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_the_last_as_of_day_is_the_day_after_the_last_day_of_data(name):
    keys = partitions_of(DATASETS[name]).get_partition_keys()
    assert keys[0] == str(DATASETS[name].first_day)
    assert keys[-1] == str(DATASETS[name].last_day + timedelta(days=1))


def test_definitions_load_without_the_heavy_libraries():
    code = (
        "import sys; from pipeline.definitions import defs; loaded = set(sys.modules); defs();"
        "heavy = {'torch', 'transformers', 'mlflow', 'sentence_transformers', 'faiss', 'great_expectations'};"
        "computing = {'numba', 'scipy', 'sklearn', 'pandas', 'polars', 'duckdb'};"
        "found = heavy & set(sys.modules) | (heavy | computing) & loaded; print(sorted(found)); sys.exit(bool(found))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-500:]


def test_a_log_that_the_environment_names_is_in_the_graph(tmp_path):
    write_log(tmp_path, clicks=[click(1, 2, "2023-05-01 08:00")])
    code = (
        "from pipeline.definitions import defs; "
        "print({k.path[0] for k in defs().resolve_asset_graph().get_all_asset_keys()})"
    )
    environment = {**os.environ, "NEWSREC_DATASET": "paper", "NEWSREC_DATA_ROOT": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert "'paper'" in done.stdout, done.stderr[-500:]
