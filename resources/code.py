"""Source digests: which code an output depends on, found without importing it.

Belongs here: the closure of a module's imports inside `ml` and its digest. Does not belong here: recipe keys
(`resources.manifest`) and the git commit (`resources.record`).
"""

import ast
import hashlib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from ml.errors import UsageError
from resources.places import REPOSITORY

PACKAGE = "ml"
ROOMS = ("ml", "assets", "resources")
"""Whose modules may be named; of what they import only `ml` counts, so that orchestration does not."""


def source_digest(modules: Sequence[str], root: Path = REPOSITORY) -> str:
    """sha256 hex over name and source of `modules` and all that they import from `ml`, directly or not.

    A package named here stands for all its modules, since it may choose among them by name; an imported package
    stands for its `__init__`, and a package is not pulled in by one of its modules being imported. Imports inside
    functions count. Raises UsageError for a name that is no module of `ml`, `assets` or `resources`.
    """
    waiting = [m for name in modules for m in _named(root, name)]
    seen: dict[str, str] = {}
    while waiting:
        module = waiting.pop()
        if module not in seen:
            path = _require(root, module)
            source = path.read_bytes()
            seen[module] = hashlib.sha256(source).hexdigest()
            package = module if path.name == "__init__.py" else module.rpartition(".")[0]
            waiting += [m for name in _imports(source, package) if (m := _longest_module(root, name)) is not None]
    lines = "".join(f"{name} {seen[name]}\n" for name in sorted(seen))
    return hashlib.sha256(lines.encode()).hexdigest()


def _named(root: Path, name: str) -> Iterator[str]:
    _require(root, name)
    yield name
    folder = root / name.replace(".", "/")
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _path(root: Path, module: str) -> Path | None:
    base = root / module.replace(".", "/")
    candidates = (base.with_name(base.name + ".py"), base / "__init__.py")
    return next((p for p in candidates if p.is_file()), None)


def _require(root: Path, module: str) -> Path:
    path = _path(root, module) if module.split(".")[0] in ROOMS else None
    if path is None:
        raise UsageError(f"{module!r} is no module of {', '.join(ROOMS)}: a stage names modules such as ml.sessions")
    return path


def _longest_module(root: Path, dotted: str) -> str | None:
    """`ml.clock` for `ml.clock.DayClock`: the module that holds a dotted name; None outside `ml`."""
    parts = dotted.split(".")
    if parts[0] != PACKAGE:
        return None
    names = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((n for n in names if _path(root, n) is not None), None)


@cache
def _imports(source: bytes, package: str) -> tuple[str, ...]:
    """Dotted names that `source`, a module of `package`, imports anywhere."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return tuple(sorted(found))
