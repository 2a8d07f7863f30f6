"""Dagster's event log in sqlite files, with connections that stay open.

Belongs here: how this process connects to that log. Does not belong here: what is written there, and other stores.

Dagster opens an engine and a connection for each event, three to a dozen a step and check, and closes both:
statements are compiled anew, the last connection to close writes the log back, and every commit waits for the disk.
That was more than half of the time of a run on a small log (docs/performance.md).
"""

import functools
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

KEPT = 4
"""Runs whose file stays open, beside the index: the last ones that were written or read."""


@functools.cache
def keep_connections() -> None:
    """From now on this process keeps its connections to Dagster's sqlite event logs. Once in a process counts.

    A commit no longer waits for the disk (WAL with `synchronous=NORMAL`): what a process wrote survives its death, a
    power cut may take the last events of Dagster with it. The lake does not depend on them.
    """
    from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage

    SqliteEventLogStorage._connect = _connect  # type: ignore[method-assign,assignment]


@contextmanager
def _connect(storage: Any, shard: str) -> Iterator[Any]:
    """In place of the storage's own method: a connection to a file of the log, within a transaction."""
    with storage._db_lock:
        engine = _engine(storage, shard)
        if shard not in storage._initialized_dbs:
            storage._initdb(engine)
            storage._initialized_dbs.add(shard)
        with engine.connect() as connection, connection.begin():
            yield connection


def _engine(storage: Any, shard: str) -> Any:
    """The engine of a file, made anew where there is none, where the file has gone, and after a fork."""
    from sqlalchemy import create_engine, event
    from sqlalchemy.pool import QueuePool

    engines: dict[tuple[int, str], Any] = storage.__dict__.setdefault("_kept_engines", {})
    key = (os.getpid(), shard)
    engine = engines.pop(key, None)
    if engine is not None and not Path(storage.path_for_shard(shard)).exists():
        engine.dispose()
        storage._initialized_dbs.discard(shard)
        engine = None
    if engine is None:
        waiting = {"timeout": 30, "check_same_thread": False}
        where = storage.conn_string_for_shard(shard)
        engine = create_engine(where, poolclass=QueuePool, pool_size=1, connect_args=waiting)
        event.listen(engine, "connect", _do_not_wait_for_the_disk)
    engines[key] = engine
    for old in [k for k in engines if k[1] != "index"][:-KEPT]:
        engines.pop(old).dispose(close=old[0] == os.getpid())
    return engine


def _do_not_wait_for_the_disk(connection: sqlite3.Connection, _: Any) -> None:
    connection.execute("PRAGMA synchronous=NORMAL")
