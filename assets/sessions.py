"""`session_splits`: session-target pairs as ranges into `interactions`, with their split.

Belongs here: the spans of the split applied to one interactions version. Does not belong here: enumeration of
ranges (`ml.sessions`). Test targets are enumerated where they are scored (`assets.predictions`), so that nothing
a checkpoint reads holds rows of the test span.
"""

from collections import Counter

from assets.stage import Need, Stage, Summary, Work, no_recipe
from ml.errors import DataError


def _compute(work: Work) -> Summary:
    from ml.sessions import reader_times, session_ranges, write_sessions

    interactions = work.one("interactions")
    spans = work.split.spans(work.dataset.clock, work.day)
    ranges = session_ranges(
        *reader_times(interactions.file("interactions.parquet")),
        {name: spans[name] for name in ("train", "validation")},
    )
    counts = Counter(ranges.column("split").to_pylist())
    if not counts["train"]:
        raise DataError(
            f"{work.dataset.name}: no training targets as of {work.day}: the seven days before it hold no click with a "
            "history; choose a later --as-of"
        )
    write_sessions(ranges, work.out / "sessions.parquet", interactions.content)
    return Summary(
        rows={"sessions.parquet": len(ranges)},
        metrics={f"{name}_targets": counts[name] for name in ("train", "validation")},
    )


SESSION_SPLITS = Stage(
    name="session_splits",
    group="features",
    description="Training and validation targets with the range of interactions that is their history (Sec. 3.4).",
    needs=(Need("interactions", "interactions", lambda s: (s.fit_days, s.fit_days)),),
    modules=("assets.sessions", "ml.sessions", "ml.splits"),
    recipe=no_recipe,
    compute=_compute,
    by_split="fit",
    table="session_splits",
    kinds=("parquet",),
)
