"""DuckDB over the lake: an in-memory engine with a memory limit and a spill folder, and SQL for readers of the lake.

Belongs here: opening, limiting and locking the engine, running a user's query. Does not belong here: which views
there are (`resources.views`) and the queries of stages (`ml/`).
"""

import os
import tempfile
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType

import duckdb
import pyarrow as pa

from ml.errors import DataError, UsageError
from ml.strangers import one_line
from resources.lake import Lake
from resources.staging import temporary_folder
from resources.views import create_views

READ_ONLY = {duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN}


class Engine:
    """A context manager around one in-memory connection, which spills into a folder of its own below `spill`, or below
    the system's temporary folder where the lake can only be read."""

    def __init__(self, spill: Path, memory_limit: str = "4GB", threads: int | None = None) -> None:
        self._spill = spill
        self._settings: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": memory_limit,
            "threads": threads or os.cpu_count() or 1,
            "autoinstall_known_extensions": False,
            "allow_community_extensions": False,
            "python_enable_replacements": False,
            "TimeZone": "UTC",
        }
        self._stack = ExitStack()

    def __enter__(self) -> "Engine":
        folder = self._stack.enter_context(self._spill_folder())
        config = {**self._settings, "temp_directory": str(folder)}
        self.connection = self._stack.enter_context(duckdb.connect(":memory:", config=config))
        return self

    def _spill_folder(self) -> AbstractContextManager[Path | str]:
        if os.access(self._spill if self._spill.exists() else self._spill.parent, os.W_OK):
            return temporary_folder(self._spill)
        return tempfile.TemporaryDirectory()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def views(self, lake: Lake, dataset: str, as_of: str | None = None) -> list[str]:
        """Create the views of a dataset over the lake's current versions, and lock the engine: from here on it reads
        nothing outside the lake and its settings are fixed. `as_of`: partition of `interactions` and its sessions
        (default: the last one). Returns the names of the views.
        """
        try:
            names = create_views(self.connection, lake, dataset, as_of)
        except duckdb.Error as error:
            said = one_line(" ".join(str(error).split()))
            raise DataError(
                f"{lake.root} holds tables that fit no view ({said}): see `newsrec audit verify --all`"
            ) from error
        self.connection.execute(f"SET allowed_directories = ['{str(lake.root).replace(chr(39), chr(39) * 2)}']")
        self.connection.execute("SET enable_external_access = false")
        self.connection.execute("SET lock_configuration = true")
        return names

    def query(self, sql: str) -> pa.Table:
        """The result of one reading statement. Raises UsageError for anything else, and for errors in the SQL."""
        try:
            statements = self.connection.extract_statements(sql)
            if len(statements) != 1 or statements[0].type not in READ_ONLY:
                raise UsageError("SQL: give one SELECT (or EXPLAIN, DESCRIBE, SHOW); the lake is read only")
            return self.connection.sql(statements[0].query).to_arrow_table()
        except duckdb.Error as error:
            raise UsageError(f"SQL: {' '.join(str(error).split())}") from error
