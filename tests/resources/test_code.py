"""Source digests follow imports, and only imports."""

from pathlib import Path

import pytest

from ml.errors import UsageError
from resources.code import source_digest

SOURCES = {
    "ml/__init__.py": "",
    "ml/a.py": "import ml.b\nfrom ml.pack import thing\nimport numpy\n",
    "ml/b.py": "def f():\n    from ml.deep import VALUE\n    return VALUE\n",
    "ml/deep.py": "VALUE = 1\n",
    "ml/unrelated.py": "VALUE = 1\n",
    "ml/pack/__init__.py": "from .inner import thing\n",
    "ml/pack/inner.py": "from .. import sibling\nthing = 1\n",
    "ml/pack/other.py": "VALUE = 1\n",
    "ml/sibling.py": "VALUE = 1\n",
    "ml/from_package.py": "from ml import deep\n",
    "ml/from_module.py": "import ml.pack.other\n",
    "ml/loop_a.py": "import ml.loop_b\n",
    "ml/loop_b.py": "import ml.loop_a\n",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, source in SOURCES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source)
    return tmp_path


def changed_by(root: Path, modules: list[str]) -> set[str]:
    """Files whose change changes the digest of `modules`."""
    before = source_digest(modules, root)
    found = set()
    for name, source in SOURCES.items():
        (root / name).write_text(source + "# touched\n")
        if source_digest(modules, root) != before:
            found.add(name)
        (root / name).write_text(source)
    assert source_digest(modules, root) == before
    return found


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("ml.a", "ml/a.py ml/b.py ml/deep.py ml/pack/__init__.py ml/pack/inner.py ml/sibling.py"),
        ("ml.deep", "ml/deep.py"),
        ("ml.from_package", "ml/from_package.py ml/deep.py"),
        ("ml.from_module", "ml/from_module.py ml/pack/other.py"),
        ("ml.pack", "ml/pack/__init__.py ml/pack/inner.py ml/pack/other.py ml/sibling.py"),
        ("ml.loop_a", "ml/loop_a.py ml/loop_b.py"),
    ],
)
def test_the_closure_of_imports(root: Path, module: str, expected: str) -> None:
    assert changed_by(root, [module]) - {"ml/__init__.py"} == set(expected.split())


def test_order_and_repetition_do_not_matter(root: Path) -> None:
    assert source_digest(["ml.a", "ml.deep"], root) == source_digest(["ml.deep", "ml.a", "ml.a"], root)


@pytest.mark.parametrize("name", ["ml.nothing", "resources.nothing", "pipeline.cli", "os", ""])
def test_a_name_that_is_no_module_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="no module of ml"):
        source_digest([name])


def test_our_own_modules() -> None:
    assert source_digest(["ml.clock"]) != source_digest(["ml.datasets"])


def test_of_a_module_of_another_room_its_own_source_and_its_ml_imports_count(root: Path) -> None:
    (root / "assets").mkdir()
    (root / "assets" / "__init__.py").touch()
    body = root / "assets" / "stage_a.py"
    body.write_text("from ml import b\nfrom assets import other\n")
    (root / "assets" / "other.py").write_text("VALUE = 1\n")
    assert {"ml/b.py", "ml/deep.py"} <= changed_by(root, ["assets.stage_a"])
    before = source_digest(["assets.stage_a"], root)
    (root / "assets" / "other.py").write_text("VALUE = 2\n")
    assert source_digest(["assets.stage_a"], root) == before
    body.write_text("from ml import b\n")
    assert source_digest(["assets.stage_a"], root) != before
