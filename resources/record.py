"""What a publication's record says of the machine and the code: commit, libraries, platform.

Belongs here: facts that hold for the whole process. Does not belong here: facts of one run (`assets.build`) and
the ledger that keeps them (`resources.ledger`).
"""

import platform
import shutil
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from resources.places import REPOSITORY

ROOMS = ("ml", "resources", "assets", "pipeline")
LIBRARIES = (
    "dagster", "duckdb", "faiss-cpu", "great-expectations", "mlflow", "numba", "numpy", "polars", "pyarrow",
    "scikit-learn", "scipy", "torch", "transformers",
)  # fmt: skip


@cache
def environment() -> dict[str, Any]:
    """Git commit and whether the rooms' source differs from it (None outside a repository), versions of Python and
    of the libraries that are installed, and the platform. Looked up once a process."""
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--", *ROOMS)
    return {
        "git_commit": commit,
        "git_dirty": None if commit is None else bool(changes),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "libraries": {name: found for name in LIBRARIES if (found := _version(name)) is not None},
    }


def _git(*arguments: str) -> str | None:
    program = shutil.which("git")
    if program is None:
        return None
    done = subprocess.run([program, *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
