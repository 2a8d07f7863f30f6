"""The simulator's oracle is sealed: no source but evaluation's names or imports it, and no asset before opens it.

Three proofs. What the source says: imports, names, searches of folders. What a run opens: the whole graph up to
evaluation is made under the kernel's watch, with poison in the oracle's place. What it makes: with the true oracle in
its place nothing of that is made again.
"""

import ast
import functools
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from assets.build import models_of
from assets.graph import STAGES
from ml import oracle
from ml.datasets import DATASETS
from ml.errors import DataError
from ml.oracle import Oracle
from ml.readers import reader
from ml.simulator import SIZES, Size, bundle, simulate
from pipeline.validate import report_on
from resources import source
from resources.bindings import DEFAULT_MODELS
from resources.lake import Lake, Ref
from resources.source import sealed_folder
from tests.conftest import REPOSITORY
from tests.pipeline.conftest import ASIDE
from tests.pipeline.seal import before_the_oracle, opened, poisoned, sealed_run

ROOMS = ("ml", "resources", "assets", "pipeline")
READS = {"ml/evaluate.py", "ml/simulator/check.py"}
"""May import `ml.oracle`."""
NAMES = {"ml/oracle.py", "ml/simulator/bundle.py", "resources/source.py"}
"""May name the folder."""
FILES = {
    "inview.parquet": {
        "ml/oracle.py",
        "ml/simulator/bundle.py",
        "ml/predict.py",
        "ml/stored.py",
        "assets/predictions.py",
    },
    "readers.parquet": {"ml/oracle.py", "ml/simulator/bundle.py", "ml/simulator/write.py"},
}
"""May name its files; predictions have an `inview.parquet` of their own, below the lake."""
SEARCHES = {
    "ml/benchmarks/ingestion.py",
    "ml/benchmarks/sessions.py",
    "ml/readers/base.py",
    "ml/readers/ebnerd.py",
    "ml/readers/files.py",
    "ml/readers/globo.py",
    "ml/readers/merge.py",
    "ml/readers/own_log.py",
    "ml/readers/span.py",
    "ml/readers/strays.py",
    "ml/resume.py",
    "ml/simulator/bundle.py",
}
"""Of `ml`, may look for files; all else is told what to read."""
SEARCHING = ("glob", "rglob", "iglob", "iterdir", "walk", "scandir", "listdir")
ASKS = {"assets/evaluation.py", "resources/source.py"}
"""May ask the source for the folder or its digest."""
KNOWS = {"pipeline/validate.py", "resources/source.py"}
"""May ask whether a bundle has the folder, which opens nothing in it."""


@functools.cache
def nodes(code: str) -> tuple[ast.AST, ...]:
    """All parts of a module."""
    return tuple(ast.walk(ast.parse(code)))


def strings(code: str, besides: set[ast.AST] | None = None) -> list[str]:
    """All texts of a module, but those `besides`."""
    found = (n for n in nodes(code) if isinstance(n, ast.Constant) and n not in (besides or ()))
    return [n.value for n in found if isinstance(n.value, str)]


@functools.cache
def sources() -> dict[str, str]:
    """Text of the rooms' modules, by path."""
    found = {p.relative_to(REPOSITORY).as_posix(): p.read_text() for r in ROOMS for p in (REPOSITORY / r).rglob("*.py")}
    assert len(found) > 100
    return found


def imports_it(code: str) -> bool:
    """Whether the module imports `ml.oracle`, in whatever form, or spells its name in a string."""
    for node in nodes(code):
        if isinstance(node, ast.Import) and any(a.name == "ml.oracle" for a in node.names):
            return True
        if isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{a.name}" for a in node.names} | {node.module}
            if node.level and (node.module or "oracle").split(".")[0] == "oracle":
                return True
            if "ml.oracle" in names:
                return True
        if isinstance(node, ast.Constant) and node.value == "ml.oracle":
            return True
    return False


def names_it(code: str) -> bool:
    """Whether a string has `oracle` as a part of a path. Keys of figures are none: keys of a mapping, subscripts."""
    keys: set[ast.AST] = set()
    for node in nodes(code):
        if isinstance(node, ast.Dict):
            keys |= set(node.keys)
        elif isinstance(node, ast.Subscript):
            keys.add(node.slice)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
            keys |= set(node.args)
    return any("oracle" in text.split("/") for text in strings(code, keys))


def names_file(code: str, name: str) -> bool:
    """Whether a string, but for docstrings, names the file."""
    return any(name in text for text in strings(code, {n.value for n in nodes(code) if isinstance(n, ast.Expr)}))


def searches(code: str) -> bool:
    """Whether the module looks for files: by a call that lists folders, or by a pattern in a string."""
    return uses(code, *SEARCHING) or any("*.parquet" in text or "**/" in text for text in strings(code))


def uses(code: str, *names: str) -> bool:
    """Whether the module uses an attribute or a name of `names`."""
    found = {n.attr for n in nodes(code) if isinstance(n, ast.Attribute)}
    return not (found | {n.id for n in nodes(code) if isinstance(n, ast.Name)}).isdisjoint(names)


# --- what the source says


def test_only_evaluation_and_the_report_import_the_oracle():
    assert {path for path, code in sources().items() if imports_it(code)} == READS


def test_the_folder_is_named_at_its_door_only():
    assert {path for path, code in sources().items() if names_it(code)} == NAMES
    assert oracle.FOLDER == bundle.FOLDER == source.ORACLE


def test_only_evaluation_asks_the_source_for_it():
    every = sources()
    door = {"oracle", "oracle_digest"}
    asking = {p for p, code in every.items() if any(uses(code, f) and f"source.{f}(" in code for f in door)}
    assert asking | {"resources/source.py"} == ASKS
    assert {path for path, code in every.items() if uses(code, "sealed_folder")} == KNOWS
    assert {path for path, code in every.items() if uses(code, "ORACLE")} == {"resources/source.py"}
    assert {path for path, code in every.items() if uses(code, "Oracle")} == READS


def test_its_files_are_named_by_its_writers_and_readers_only():
    for name, known in FILES.items():
        assert {path for path, code in sources().items() if names_file(code, name)} == known


def test_nothing_that_computes_features_or_trains_looks_for_files():
    every = {path: code for path, code in sources().items() if path.startswith("ml/")}
    assert {path for path, code in every.items() if searches(code)} == SEARCHES
    assert not {path for path, code in every.items() if uses(code, "environ", "getenv")}


@pytest.mark.parametrize(
    "code",
    [
        "import ml.oracle",
        "import ml.oracle as truth",
        "from ml.oracle import Oracle",
        "from ml import schema, oracle",
        "from . import oracle",
        "from .oracle import Oracle",
        "from importlib import import_module\nx = import_module('ml.oracle')",
        "def f():\n    from ml.oracle import folder_of",
    ],
)
def test_every_form_of_import_is_seen(code):
    assert imports_it(code)


@pytest.mark.parametrize(
    "code",
    [
        "root.rglob('*')",
        "from glob import iglob\niglob(p)",
        "for _, _, names in os.walk(root): pass",
        "pl.scan_parquet(f'{root}/*/in*.parquet')",
        "con.execute(\"SELECT * FROM '/data/**/x.parquet'\")",
    ],
)
def test_every_search_is_seen(code):
    assert searches(code) and not searches("root / 'train' / 'behaviors.parquet'")


@pytest.mark.parametrize(
    "code", ["root / 'oracle'", "f'{root}/oracle/inview.parquet'", "open('data/oracle/x')", "root.joinpath('oracle')"]
)
def test_every_path_to_it_is_seen(code):
    assert names_it(code)


def test_figures_may_bear_its_name():
    assert not names_it("'''The oracle/ folder.'''\nfound['oracle'] = {'oracle': shown.get('oracle')}")


# --- what a run opens


@pytest.fixture(scope="module")
def seen(home):
    """What the shared run opened before it evaluated, and what it made before and after."""
    return json.loads((home / "sealed.json").read_text())


@pytest.fixture(scope="module")
def aside(home, tmp_path_factory):
    """The same of the stages that the report does not need, in a copy."""
    folder = tmp_path_factory.mktemp("sealed")
    for name in ("dagster", "lake", "log"):
        shutil.copytree(home / name, folder / name, copy_function=shutil.copy2)
    shutil.copy2(home / "mlflow.db", folder / "mlflow.db")
    with poisoned(folder / "log" / "oracle", folder / "aside"):
        return sealed_run(folder, before_the_oracle())


def opens_nothing_of_it(run: dict) -> bool:
    """Listed it may be: the reader looks for files of text vectors in whatever folder they are."""
    return not any(name.split("/")[0] == "oracle" for name in run["opened"]) and set(run["natively"]) <= {"."}


def test_nothing_opens_the_oracle_before_evaluation_asks(seen):
    """Readers, features, training, index and predictions, by Python or by native code."""
    assert {"train/behaviors.parquet", "articles.parquet"} <= set(seen["opened"])
    assert "behaviors.parquet" in seen["elsewhere"]
    assert opens_nothing_of_it(seen)


@pytest.mark.slow
def test_nothing_that_the_report_does_not_need_opens_it(aside):
    """Promotion, drift, decay and the analysis of the log."""
    assert opens_nothing_of_it(aside)
    assert made_of(aside) >= before_evaluation()


def test_readers_and_the_check_do_not_even_list_it(home, tmp_path):
    log, layout = tmp_path / "log", reader("ebnerd")
    shutil.copytree(home / "log", log)
    with opened(log / "oracle") as natively:
        layout.split(log, DATASETS["simulated"], tmp_path / "out")
        layout.artifact_vectors(log)
        (stray, marker) = layout.strays(log)
        report = report_on(log, None, lambda _: None)
    assert natively == []
    assert (stray.name, marker.name) == ("oracle/", "simulation.json")
    assert report.clean and [line.split(" ")[0] for line in report.not_read] == ["oracle/", "simulation.json"]


def made_of(run: dict) -> set[tuple[str, str | None]]:
    """Stages, with their models, that a run left in the lake."""
    return {(ref.stage, ref.model) for ref in map(Ref.parse, run["made"])}


def before_evaluation() -> set[tuple[str, str | None]]:
    """All stages and models that are made before an evaluation: a new one is watched without a word here."""
    return {(s.name, m) for s in STAGES if s.name in before_the_oracle() for m in models_of(s, DEFAULT_MODELS)}


def test_every_asset_but_evaluation_was_made_under_watch(seen):
    """Those in ASIDE by the slow test above."""
    assert made_of(seen) == {(stage, model) for stage, model in before_evaluation() if stage not in ASIDE}
    assert {s.name for s in STAGES} - set(before_the_oracle()) == {
        "evaluation_rq2", "evaluation_segments", "evaluation_report"
    }  # fmt: skip


def test_with_the_true_oracle_nothing_of_it_is_made_again(seen):
    """The bytes of the oracle are in no recipe and no output but evaluation's: poison or truth, all else is fresh."""
    assert {ref: seen["after"].get(ref) for ref in seen["made"]} == seen["made"]
    new = {Ref.parse(ref).stage for ref in seen["after"].keys() - seen["made"].keys()}
    assert new == {"evaluation_rq2", "evaluation_segments", "evaluation_report"}


def test_the_evaluation_opens_it(home):
    """Else the tests above would hold of a system that knows no oracle."""
    lake = Lake(home / "lake")
    (partition,) = lake.partitions("simulated", "evaluation_report")
    report = json.loads(lake.require(Ref("simulated", "evaluation_report", partition)).file("report.json").read_text())
    for name, model in report["models"].items():
        assert model["oracle"]["auc"]["value"] > 0.8 and "share_of_signal" in model["rq2"], name


@pytest.mark.slow
def test_with_the_oracle_unsealed_every_byte_is_the_same(home, seen, tmp_path):
    """The same stages made again, the truth within reach."""
    shutil.copytree(home / "log", tmp_path / "log")
    (tmp_path / "dagster").mkdir()
    again = sealed_run(tmp_path, [name for name in before_the_oracle() if name not in ASIDE])
    assert set(again["natively"]) <= {"."}
    contents = [{r: Lake(h / "lake").require(Ref.parse(r)).content for r in seen["made"]} for h in (home, tmp_path)]
    assert contents[0] == contents[1]


# --- that it would be seen

READERS: dict[str, Callable[[Path], object]] = {
    "python": lambda path: path.read_bytes(),
    "pyarrow": pq.read_table,
    "pyarrow dataset": lambda path: ds.dataset(path).to_table(),
    "polars": pl.read_parquet,
    "polars, lazily": lambda path: pl.scan_parquet(path.with_name("in*.parquet")).head(1).collect(),
    "duckdb": lambda path: duckdb.connect().execute(f"SELECT count(*) FROM '{path}'").fetchone(),
    "pandas": pd.read_parquet,
    "another process": lambda path: subprocess.run(["cat", path], capture_output=True, check=True),
    "another name": lambda path: (os.link(path, path.parents[1] / "linked"), (path.parents[1] / "linked").read_bytes()),
    "a search": lambda path: [found.read_bytes() for found in path.parents[1].rglob("inview.parquet")],
}


@pytest.fixture(scope="module")
def bundle_root(tmp_path_factory):
    """The oracle of a bundle of a fraction of a second."""
    root = tmp_path_factory.mktemp("watched") / "log"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "micro", Size("micro", 60, 200, 20, 60, 1, 1, 1, 60))
        simulate(root, "micro", 3)
    return root


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_whatever_reads_it_is_seen(bundle_root, read):
    with opened(bundle_root / "oracle") as natively:
        read(bundle_root / "oracle" / "inview.parquet")
    assert "inview.parquet" in natively


def test_a_listing_is_seen_and_nothing_else_is(bundle_root):
    with opened(bundle_root / "oracle") as natively:
        (bundle_root / "articles.parquet").read_bytes()
        assert sealed_folder(bundle_root) == bundle_root / "oracle"
    assert natively == []
    with opened(bundle_root / "oracle") as natively:
        list((bundle_root / "oracle").iterdir())
    assert set(natively) == {"."}
    with opened(bundle_root / "oracle") as natively:
        Oracle.open(bundle_root)
    assert set(natively) - {"."} == {"inview.parquet", "readers.parquet", "articles.parquet"}


def test_poison_is_refused_by_evaluation_in_one_line_and_goes_away_again(bundle_root, tmp_path):
    before = (bundle_root / "oracle" / "inview.parquet").read_bytes()
    with poisoned(bundle_root / "oracle", tmp_path / "aside"), pytest.raises(DataError, match="cannot be read"):
        Oracle.open(bundle_root)
    assert (bundle_root / "oracle" / "inview.parquet").read_bytes() == before
