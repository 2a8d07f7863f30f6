"""SQL views over the lake's current versions of one dataset.

Belongs here: which views there are and what they read. Does not belong here: the engine (`resources.engine`).
"""

from collections.abc import Callable
from pathlib import Path

import duckdb

from ml.datasets import dataset as known_dataset
from ml.errors import UsageError
from ml.parquet import check
from resources.lake import Lake
from resources.ref import Ref
from resources.version import Version

DAILY = ("articles", "clicks", "impressions")
PREDICTIONS = ("cases", "top", "inview")
DAY = r"regexp_extract(filename, '/([0-9-]{10})[^/]*/[0-9a-f]{16}/[^/]+$', 1)::DATE"
MODEL = r"regexp_extract(filename, '/([^/]+)/[^/]+/[0-9a-f]{16}/[^/]+$', 1)"
SPLIT = r"regexp_extract(filename, '/[0-9-]{10}\.?([^/]*)/[0-9a-f]{16}/[^/]+$', 1)"

# One list per reader, of which each session is a slice: a fourth of the time of a join over row ranges.
SESSIONS = """
CREATE VIEW sessions AS
WITH readers AS (
    SELECT user_id, min(row) AS base, list(article_id ORDER BY row) AS articles, list(time ORDER BY row) AS times
    FROM session_interactions GROUP BY user_id
)
SELECT r.user_id,
       list_filter(r.articles[s.first - r.base + 1 : s.target - r.base],
                   lambda _, i: r.times[s.first - r.base + i] < t.time) AS history,
       list_filter(r.times[s.first - r.base + 1 : s.target - r.base], lambda x: x < t.time) AS history_times,
       t.article_id AS target, t.time AS target_time, s.split
FROM session_ranges s JOIN session_interactions t ON t.row = s.target JOIN readers r ON r.user_id = t.user_id
ORDER BY s.target
"""


def create_views(con: duckdb.DuckDBPyConnection, lake: Lake, dataset: str, as_of: str | None = None) -> list[str]:
    """Create every view that the lake has data for and return their names.

    `articles`, `clicks`, `impressions` and `quarantine` unite the days (column `day`); `interactions` (column `row`) is
    the last partition or `as_of`; `sessions` and `session_ranges` are the newest (of `as_of`), with the
    `session_interactions` that they point into; `cases`, `top` and `inview` unite the predictions (columns `model`,
    `as_of`, `split`). Raises UsageError when the lake holds nothing of the dataset
    or `as_of` has no interactions.
    """
    name = known_dataset(dataset).name
    made: list[str] = []

    def make(view: str, select: Callable[[str], str], files: list[Path]) -> None:
        if files:
            con.execute(f"CREATE VIEW {view} AS {select(_sql_list(files))}")
            made.append(view)

    for stage in DAILY:
        make(stage, _with_day, _daily(lake, name, stage, f"{stage}.parquet"))
    held_back = [f for stage in ("raw_parquet", *DAILY) for f in _daily(lake, name, stage, "quarantine.parquet")]
    make("quarantine", _with_day, held_back)
    made += _session_views(con, lake, name, as_of)
    for kind in PREDICTIONS:
        make(kind, _with_model, _predictions(lake, name, f"{kind}.parquet"))
    if not made:
        raise UsageError(f"the lake {lake.root} holds nothing of {name}: run: newsrec run --dataset {name}")
    return made


def _session_views(con: duckdb.DuckDBPyConnection, lake: Lake, dataset: str, as_of: str | None) -> list[str]:
    partitions = lake.partitions(dataset, "interactions")
    if as_of is not None and as_of not in partitions:
        raise UsageError(f"no interactions of {dataset} as of {as_of}: choose one of {', '.join(partitions) or 'none'}")
    if not partitions:
        return []
    _interactions_view(con, "interactions", lake.require(Ref(dataset, "interactions", as_of or partitions[-1])))
    known = {lake.require(Ref(dataset, "interactions", p)).manifest_digest: p for p in partitions}
    for partition in reversed(lake.partitions(dataset, "session_splits")):
        sessions = lake.require(Ref(dataset, "session_splits", partition))
        found = [known[d] for d in sessions.manifest["inputs"].values() if d in known]
        if found and as_of in (None, found[0]):
            _interactions_view(con, "session_interactions", lake.require(Ref(dataset, "interactions", found[0])))
            files = _sql_list([sessions.file("sessions.parquet")])
            con.execute(f"CREATE VIEW session_ranges AS SELECT * FROM read_parquet({files})")
            con.execute(SESSIONS)
            return ["interactions", "session_interactions", "session_ranges", "sessions"]
    return ["interactions"]


def _interactions_view(con: duckdb.DuckDBPyConnection, view: str, version: Version) -> None:
    con.execute(
        f"CREATE VIEW {view} AS SELECT file_row_number AS row, * EXCLUDE (file_row_number) "
        f"FROM read_parquet({_sql_list([version.file('interactions.parquet')])}, file_row_number = true)"
    )


def _with_day(files: str) -> str:
    return f"SELECT * EXCLUDE (filename), {DAY} AS day FROM read_parquet({files}, filename = true)"


def _with_model(files: str) -> str:
    return (
        f"SELECT {MODEL} AS model, {DAY} AS as_of, {SPLIT} AS split, * EXCLUDE (filename) "
        f"FROM read_parquet({files}, filename = true)"
    )


def _daily(lake: Lake, dataset: str, stage: str, file: str) -> list[Path]:
    versions = (lake.require(Ref(dataset, stage, p)) for p in lake.partitions(dataset, stage))
    return [path for version in versions for path in version.files(file)]


def _predictions(lake: Lake, dataset: str, file: str) -> list[Path]:
    refs = [
        Ref(dataset, "predictions", p, m)
        for m in lake.models(dataset, "predictions")
        for p in lake.partitions(dataset, "predictions", m)
    ]
    return [path for ref in refs for path in lake.require(ref).files(file)]


def _sql_list(files: list[Path]) -> str:
    """Files for DuckDB, which opens them itself: each is checked before."""
    for file in files:
        check(file)
    quoted = ("'" + str(f).replace("'", "''") + "'" for f in files)
    return f"[{', '.join(quoted)}]"
