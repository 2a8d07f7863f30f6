"""Fixtures shared by all rooms: the repository, real data where present, and a clean environment."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads that wait for each other spin where others need the core
REPOSITORY = Path(__file__).resolve().parent.parent


FIRST = REPOSITORY / "tests" / "pipeline" / "test_promotion.py"
"""Makes the run that others share, and is the longest of those that need it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that share the run of the fixture `home` come last, but one: with several processes none waits for it."""
    shared = {item.path for item in items if "home" in getattr(item, "fixturenames", ())}
    items.sort(key=lambda item: (item.path != FIRST, item.path in shared))


@pytest.fixture(scope="session")
def real_data():
    """A function that gives a folder of ../shared/data or skips with the reason."""

    def find(name: str) -> Path:
        folder = REPOSITORY.parent / "shared" / "data" / name
        if not folder.exists():
            pytest.skip(f"real data {name} is not beside the repository")
        return folder

    return find
