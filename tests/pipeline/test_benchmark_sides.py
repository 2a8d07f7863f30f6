"""Both sides of the pipeline's benchmarks do the same work; what an asset cost is what its ledger says."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml.datasets import dataset
from ml.readers import reader
from pipeline.benchmarks import orchestration, scale, text
from pipeline.benchmarks.orchestration import Asked
from pipeline.run import as_of_day, report_goals
from resources.bindings import RunSettings, run_settings
from resources.text_encoder import text_digest


@pytest.fixture(scope="module")
def encoding(tmp_path_factory: pytest.TempPathFactory) -> text.Encoding:
    folder = tmp_path_factory.mktemp("text")
    return text.Encoding(str(text.small_encoder(folder / "encoder")), 20, folder)


def test_sorted_and_unsorted_batches_give_the_same_vectors(encoding: text.Encoding, tmp_path: Path) -> None:
    digests = [text_digest(t) for t in encoding._texts]
    assert len(set(digests)) == 20
    ways = (encoding.sorted, encoding.plain)
    first, second = (
        way.encode(encoding._texts, digests, tmp_path / str(number), lambda _: None) for number, way in enumerate(ways)
    )
    np.testing.assert_allclose(first, second, atol=1e-5)


def test_only_what_changed_is_encoded(encoding: text.Encoding, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    original = encoding.sorted._encode_new

    def counting(items: list, store: object, progress: object) -> None:
        asked.append(len(items))
        original(items, store, progress)

    monkeypatch.setattr(encoding.sorted, "_encode_new", counting)
    assert encoding.changed(3) > 0 and encoding.changed(5) > 0
    assert asked == [20, 3, 5]


def test_vectors_of_the_scale_log_are_a_published_artifact(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    articles = pa.table({"article_id": pa.array([7, 3], pa.int32()), "body": ["fire in house", "match ended"]})
    pq.write_table(articles, tmp_path / "articles.parquet")
    scale.write_vectors(tmp_path)
    layout = reader(dataset("simulated").reader)
    found = layout.vectors_of(layout.artifact_vectors(tmp_path)["body"], np.array([3, 7]))
    vectors = np.array(found["vector"].to_pylist())
    assert found["article_id"].to_pylist() == [3, 7] and vectors.shape == (2, 300)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_the_scale_run_takes_500_steps_and_20000_cases() -> None:
    settings = scale.ScaleSettings()
    assert settings.budget == 20_000 and settings.recipe_of("snert").steps == 500
    usual = RunSettings().recipe_of("snert")
    assert settings.recipe_of("snert") == usual.model_copy(update={"steps": 500})


@pytest.mark.slow
def test_with_and_without_dagster_the_lake_holds_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ml import simulator

    simulator.simulate(tmp_path / "log", "tiny", 3, lambda *_: None)
    known, settings = dataset("simulated"), run_settings("rolling", "popular_15")
    boxes = []
    original = Asked.toolbox
    monkeypatch.setattr(Asked, "toolbox", lambda self: boxes.append(original(self)) or boxes[-1])
    empty = Asked(known, settings, [], tmp_path / "log", tmp_path)
    goals = report_goals(as_of_day(known, settings, empty.toolbox(), None), settings)
    asked = Asked(known, settings, goals, tmp_path / "log", tmp_path)
    with orchestration._dagster_home(tmp_path / "dagster"):
        asked.with_dagster()
        assert asked.without() > 50
    with_it, without = ({str(n.ref): n for n in _nodes(asked, box)} for box in boxes[1:])
    assert with_it.keys() == without.keys()
    for ref, node in with_it.items():
        content = [box.tools().lake.require(node.ref).content for box in boxes[1:]]
        assert content[0] == content[1] or node.stage.name in {"evaluation_report"}, ref
    costs = scale.costs(list(with_it.values()), boxes[1].tools().lake)
    assert sum(c["partitions"] for c in costs) == len(with_it)
    assert all(c["seconds"] >= 0 and c["peak_mib"] > 50 and c["bytes"] > 0 for c in costs)


def _nodes(asked: Asked, box: object) -> list:
    from pipeline.plan import make_plan

    nodes = make_plan(asked.known, asked.settings, box.tools(), asked.goals).nodes
    assert {n.state for n in nodes} == {"fresh"}
    return nodes
