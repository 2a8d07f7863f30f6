"""Readers: how each dataset's published files become raw days and canonical tables.

Belongs here: one module a source layout, and the registry. Does not belong here: what the canonical columns are
(`ml.schema`), where files lie (`resources.source`).
"""

from ml.datasets import OWN
from ml.errors import UsageError
from ml.readers.base import DayTables, Progress, Reader
from ml.readers.ebnerd import EbnerdReader
from ml.readers.globo import GloboReader
from ml.readers.mind import MindReader
from ml.readers.own_log import OwnLogReader

READERS: dict[str, Reader] = {
    "ebnerd": EbnerdReader(),
    "globo": GloboReader(),
    "mind": MindReader(),
    OWN: OwnLogReader(),
}


def reader(name: str) -> Reader:
    """The reader called `name` (`Dataset.reader`); raises UsageError naming the known ones."""
    if name not in READERS:
        raise UsageError(f"unknown reader {name!r}: choose one of {', '.join(sorted(READERS))}")
    return READERS[name]


__all__ = ["READERS", "DayTables", "Progress", "Reader", "reader"]
