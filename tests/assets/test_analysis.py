"""`dataset_analysis` as an asset: what its span reads, and what it publishes."""

import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from assets.analysis import DATASET_ANALYSIS
from assets.build import input_refs
from assets.graph import BY_NAME
from assets.stage import Summary, Work
from ml.datasets import DATASETS
from ml.schema import ARTICLES, CLICKS, IMPRESSIONS
from pipeline.definitions import build_defs
from resources.bindings import RunSettings
from resources.lake import Ref

GLOBO = DATASETS["globo"]
DAYS = GLOBO.days[:3]


@pytest.mark.parametrize(("span_days", "first"), [(0, 1), (2, 2), (1, 3)])
def test_the_span_shapes_clicks_but_not_articles(span_days, first):
    day, settings = date(2017, 10, 4), RunSettings(span_days=span_days)
    found = input_refs(DATASET_ANALYSIS, GLOBO, day, None, settings, BY_NAME, DAYS)
    for name, start in (("clicks", first), ("impressions", first), ("articles", 1)):
        assert [r.partition for _, _, r in found[name]] == [f"2017-10-0{d}" for d in range(start, 4)]


def test_the_graph_lets_it_read_any_span_before_its_day():
    graph = build_defs(datasets=["globo"]).resolve_asset_graph()
    mappings = graph.get(dg.AssetKey(["globo", "dataset_analysis"])).partition_mappings
    assert {key.path[1] for key in mappings} == {"articles", "clicks", "impressions"}
    for mapping in mappings.values():
        assert mapping.end_offset == -1 and mapping.start_offset <= -len(GLOBO.days)


@dataclass
class Given:
    """An input as a body sees it: the partition's name and a file."""

    ref: Ref
    folder: Path

    def file(self, name):
        return self.folder / str(self.ref) / name


def published(tmp_path: Path, **article: str) -> tuple[Path, Summary]:
    """What the asset writes of two days with five articles, and what it says of that."""
    inputs, start = {}, GLOBO.clock.start(DAYS[0])
    rows = {
        "clicks": [{"user_id": i % 7, "article_id": i % 5, "time": start + i * 60_000} for i in range(2880)],
        "articles": [
            {"article_id": i, "published": start + i, "published_is_first_seen": False, **article} for i in range(5)
        ],
        "impressions": [],
    }
    for name, columns in (("articles", ARTICLES), ("clicks", CLICKS), ("impressions", IMPRESSIONS)):
        inputs[name] = [Given(Ref("globo", name, str(day)), tmp_path) for day in DAYS[:2]]
        for i, version in enumerate(inputs[name]):
            found = rows[name][1440 * i : 1440 * (i + 1)]
            version.file("").mkdir(parents=True)
            pq.write_table(pa.Table.from_pylist(found, schema=columns), version.file(f"{name}.parquet"))
    out = tmp_path / "out"
    out.mkdir()
    work = Work(GLOBO, DAYS[2], None, RunSettings(span_days=2), inputs, out, None, lambda _: None)
    return out, DATASET_ANALYSIS.compute(work)


def test_a_category_that_is_a_formula_is_none_in_the_csv_files(tmp_path):
    out, _ = published(tmp_path, category="=1+1")
    assert "=1+1" in pq.read_table(out / "tables/categories.parquet")["category"].to_pylist()
    lines = (out / "tables/categories.csv").read_text().splitlines()
    assert any(line.startswith('"\'=1+1"') for line in lines), lines


def test_it_writes_page_figures_and_tables(tmp_path):
    out, summary = published(tmp_path)
    tables = sorted(p.stem for p in out.glob("tables/*.parquet"))
    assert {"lorenz", "days", "rhythm", "click_ages"} <= set(tables)
    for name in tables:
        read = pq.read_table(out / "tables" / f"{name}.parquet")
        written = pyarrow.csv.read_csv(out / "tables" / f"{name}.csv")
        assert written.column_names == read.column_names and len(written) == len(read)
        assert summary.rows[f"tables/{name}.parquet"] == len(read)
    assert summary.metrics["clicks"] == 2880 and "categories" in summary.metadata["left_out"]
    assert all(png.startswith(b"\x89PNG") for png in summary.plots.values()) and "lorenz" in summary.plots
    assert all((out / name).is_file() for name in summary.artifacts)
    assert json.loads((out / "analysis.json").read_text())["span"]["days"] == 2
