"""The simulator's oracle is sealed: no source but evaluation's names or imports it, and no stage before opens it."""

import ast
import ctypes
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ml import oracle
from ml.oracle import Oracle
from ml.simulator import bundle, simulate
from resources import source
from tests.conftest import REPOSITORY

ROOMS = ("ml", "resources", "assets", "pipeline")
READS = {"ml/evaluate.py", "ml/simulator/check.py"}
"""May import `ml.oracle`."""
NAMES = {"ml/oracle.py", "ml/simulator/bundle.py", "resources/source.py"}
"""May name the folder."""
ASKS = {"assets/evaluation.py", "resources/source.py"}
"""May ask the source for the folder or its digest."""
KNOWS = {"pipeline/validate.py", "resources/source.py"}
"""May ask whether a bundle has the folder, which opens nothing in it."""


def sources() -> dict[str, str]:
    """Text of the rooms' modules, by path."""
    found = {p.relative_to(REPOSITORY).as_posix(): p.read_text() for r in ROOMS for p in (REPOSITORY / r).rglob("*.py")}
    assert len(found) > 100
    return found


def imports_it(code: str) -> bool:
    """Whether the module imports `ml.oracle`, in whatever form, or spells its name in a string."""
    for node in ast.walk(ast.parse(code)):
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
    tree = ast.parse(code)
    keys = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            keys |= set(node.keys)
        elif isinstance(node, ast.Subscript):
            keys.add(node.slice)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
            keys |= set(node.args)
    strings = (n for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str) and n not in keys)
    return any("oracle" in node.value.split("/") for node in strings)


def uses(code: str, *names: str) -> bool:
    """Whether the module uses an attribute or a name of `names`."""
    nodes = list(ast.walk(ast.parse(code)))
    found = {n.attr for n in nodes if isinstance(n, ast.Attribute)} | {n.id for n in nodes if isinstance(n, ast.Name)}
    return not found.isdisjoint(names)


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
    "code", ["root / 'oracle'", "f'{root}/oracle/inview.parquet'", "open('data/oracle/x')", "root.joinpath('oracle')"]
)
def test_every_path_to_it_is_seen(code):
    assert names_it(code)


def test_figures_may_bear_its_name():
    assert not names_it("'''The oracle/ folder.'''\nfound['oracle'] = {'oracle': shown.get('oracle')}")


# --- what a run opens

OPEN = 0x20
FOLDER = 0x40000000
"""Bits of inotify's events: something was opened; it is a folder."""


@contextmanager
def opened(folder: Path) -> Iterator[list[str]]:
    """Collects, until the block ends, names of the files in `folder` that any process opens, by whatever library."""
    libc = ctypes.CDLL(None, use_errno=True)
    found: list[str] = []
    watch = libc.inotify_init1(os.O_NONBLOCK)
    assert watch >= 0 and libc.inotify_add_watch(watch, os.fsencode(folder), OPEN) >= 0, os.strerror(ctypes.get_errno())
    try:
        yield found
        try:
            data = os.read(watch, 1 << 20)
        except BlockingIOError:
            data = b""
        while data:
            _, bits, _, length = struct.unpack_from("iIII", data)
            if not bits & FOLDER:
                found.append(data[16 : 16 + length].rstrip(b"\0").decode())
            data = data[16 + length :]
    finally:
        os.close(watch)


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """A tiny bundle, shared: do not change it."""
    root = tmp_path_factory.mktemp("sealed") / "log"
    simulate(root, "tiny", 3)
    return root


def run(log: Path, home: Path, *more: str) -> list[str]:
    """Runs `sealed_run` on the bundle; files below it that Python opened."""
    (home / "dagster").mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-m", "tests.pipeline.sealed_run", str(log), str(home), *more],
        env={**os.environ, "DAGSTER_HOME": str(home / "dagster"), "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_ingestion_and_features_open_nothing_below_the_oracle(log, tmp_path):
    with opened(log / "oracle") as natively, opened(log / "train") as elsewhere:
        by_python = run(log, tmp_path / "home")
    assert str(log / "articles.parquet") in by_python
    assert "behaviors.parquet" in elsewhere
    assert not [p for p in by_python if p.startswith(str(log / "oracle"))]
    assert natively == []


def test_both_watches_see_it_being_opened(log, tmp_path):
    """Else the test above could not fail."""
    with opened(log / "oracle") as natively:
        by_python = run(log, tmp_path / "home", "--open-the-oracle")
    assert str(log / "oracle" / "inview.parquet") in by_python
    assert "inview.parquet" in natively
    with opened(log / "oracle") as natively:
        Oracle.open(log)
    assert set(natively) == {"inview.parquet", "readers.parquet", "articles.parquet"}
