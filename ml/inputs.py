"""What the SNeRT network reads, as arrays: articles as of a time, and readers' recent clicks.

Belongs here: turning (article, time) pairs and cases into index and value arrays, the same for training and for
prediction. Does not belong here: the transformations (`ml.features`), the network (`ml.snert`), choosing negatives
(`ml.sampling`). No torch.
"""

from dataclasses import dataclass

import numpy as np

from ml.asof import AsOf
from ml.features import FittedFeatures, gap_bucket, read_bucket
from ml.log import Cases


@dataclass(frozen=True, slots=True)
class ArticleInputs:
    """n articles, each as of its own time: `row` int64 [n] catalogue rows; `version` int64 [n] for each content family,
    row of its vectors or -1; `dynamic` float32 [n, width]."""

    row: np.ndarray
    version: dict[str, np.ndarray]
    dynamic: np.ndarray

    def __len__(self) -> int:
        return len(self.row)

    @classmethod
    def concat(cls, parts: list["ArticleInputs"]) -> "ArticleInputs":
        """The articles of all parts, in order."""
        families = parts[0].version
        return cls(
            np.concatenate([p.row for p in parts]),
            {f: np.concatenate([p.version[f] for p in parts]) for f in families},
            np.concatenate([p.dynamic for p in parts]),
        )


@dataclass(frozen=True, slots=True)
class HistoryInputs:
    """The recent clicks of `size` readers, n in all, without padding.

    `articles`: the clicked articles as of their own clicks; `owner` int64 [n] the reader's position in the batch;
    `slot` int64 [n] how many later clicks follow (0 = most recent); `gap`, `read` int64 [n] buckets; `running` int64
    [n] 1 where the click belongs to the running session.
    """

    articles: ArticleInputs
    owner: np.ndarray
    slot: np.ndarray
    gap: np.ndarray
    read: np.ndarray
    running: np.ndarray
    size: int


def article_inputs(asof: AsOf, fitted: FittedFeatures, time_ms: np.ndarray, rows: np.ndarray) -> ArticleInputs:
    """Articles `rows[b, k]` (int [B, K], all >= 0) as of `time_ms[b]`, flattened to n = B * K in row order."""
    version = {f: asof.content(f).index(time_ms, rows).reshape(-1).astype(np.int64) for f in fitted.spec.content_dims}
    dynamic = fitted.dynamic(asof, time_ms, rows).reshape(-1, fitted.spec.width)
    return ArticleInputs(rows.reshape(-1).astype(np.int64), version, dynamic)


def history_inputs(asof: AsOf, fitted: FittedFeatures, cases: Cases, length: int) -> HistoryInputs:
    """The last `length` clicks of each case's history.

    The gap of a click is the time to the next click, for the last one the time to the prediction; bucket 0 where the
    dataset's times do not allow it. A read time counts only if it was known by the prediction.
    """
    size = np.minimum(cases.stop - cases.first, length)
    owner = np.repeat(np.arange(len(cases)), size)
    slot = np.repeat(np.cumsum(size), size) - 1 - np.arange(len(owner))
    click = cases.stop[owner] - 1 - slot
    clicks = asof.clicks
    time = clicks.time[click]
    articles = article_inputs(asof, fitted, time, clicks.article[click][:, None])
    gap = read = np.zeros(len(click), dtype=np.int64)
    if "interaction" in fitted.spec.families:
        read = read_bucket(asof.read_time(click, cases.time[owner]))
        if fitted.spec.gap and len(click):
            following = np.where(slot == 0, cases.time[owner], clicks.time[np.minimum(click + 1, len(clicks) - 1)])
            gap = gap_bucket((following - time) / 1000)
    running = (click >= cases.session_start[owner]).astype(np.int64)
    return HistoryInputs(articles, owner, slot, gap, read, running, len(cases))
