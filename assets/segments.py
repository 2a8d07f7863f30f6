"""`evaluation_segments`: every metric of the three questions by segment of the test lists.

Belongs here: which files say what the lists are. Does not belong here: segments and intervals (`ml.segments`).
"""

from typing import TYPE_CHECKING

from assets.stage import Need, Stage, Summary, Work, inview_label, no_recipe
from ml.synthetic import SYNTHETIC

if TYPE_CHECKING:
    from ml.segments import Sources

QUESTIONS = ("rq1", "rq2", "rq3")


def sources(work: Work) -> "Sources":
    """Files behind the labels, from the inputs of `LABEL_NEEDS`."""
    from ml.segments import Sources

    return Sources(
        interactions=work.one("interactions").file("interactions.parquet"),
        features=work.one("article_features").file("features.parquet"),
        clicks=[v.file("clicks.parquet") for v in work.inputs["clicks"]],
        impressions=[v.file("impressions.parquet") for v in work.inputs["impressions"]],
    )


def _compute(work: Work) -> Summary:
    from ml.segments import ALL, evaluate_segments

    per_case = {q: work.one(f"evaluation_{q}").file("per_case.parquet") for q in QUESTIONS}
    predictions = work.one("predictions").path
    found = evaluate_segments(predictions, per_case, sources(work), work.dataset.clock, work.out)
    thesis = found["protocols"][ALL]["rq1"].get("thesis", {})
    shown = {
        dimension: {name: entry.get("recall@20", {}).get("value") for name, entry in segments.items()}
        for dimension, segments in thesis.items()
    }
    return Summary(
        metadata={"recall@20, protocol thesis": shown, "left_out": found["left_out"]},
        labels=inview_label(found.get(SYNTHETIC)),
        artifacts=["metrics.json"],
    )


LABEL_NEEDS = (
    Need("interactions", "interactions", lambda s: (s.end_days, s.end_days)),
    Need("article_features", "article_features", lambda s: (s.end_days, s.end_days)),
    Need("clicks", "clicks", lambda s: (s.test_days[0], s.test_days[-1])),
    Need("impressions", "impressions", lambda s: (s.test_days[0], s.test_days[-1])),
)
EVALUATION_SEGMENTS = Stage(
    name="evaluation_segments",
    group="evaluation",
    description="Every metric by reader, subscriber, device, category, article age, hour and history length.",
    needs=(
        Need("predictions", "predictions", model="same"),
        *(Need(f"evaluation_{q}", f"evaluation_{q}", model="same") for q in QUESTIONS),
        *LABEL_NEEDS,
    ),
    modules=("assets.segments", "ml.segments"),
    recipe=no_recipe,
    compute=_compute,
    by_split="test",
    models="every",
)
