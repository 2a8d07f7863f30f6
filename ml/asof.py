"""The as-of door: the only way from a model, a feature or a sampler to anything that depends on time.

Belongs here: what was known at t, for many t at once. Does not belong here: how it is counted (`ml.popularity`,
`ml.coclicks`), stored (`ml.log`, `ml.content`) or scaled (`ml.features`).

Counts over all readers, the catalogue, co-clicks and sampler pools at t rest on events before the minute of t began; a
reader's own history on clicks strictly before t; a click's read time is known once click time + read time <= t.
"""

from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numba as nb
import numpy as np
from pydantic import BaseModel, ConfigDict

from ml.articles import ArticleTable
from ml.clock import MS_PER_MINUTE, DayClock, minute_start
from ml.coclicks import CoClicks
from ml.content import Content
from ml.datasets import Dataset, dataset
from ml.errors import DataError
from ml.log import Cases, Catalogue, Clicks, Impressions
from ml.popularity import Popularity
from ml.schema import CONTEXT

SESSION_GAP_MS = 30 * MS_PER_MINUTE
"""A session ends when its reader does nothing for this long."""


class AsOfPaths(BaseModel):
    """Files behind the door: `content` lists the vector files of each family, `impressions` those of the days."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str
    features: Path
    interactions: Path
    popularity: Path
    content: dict[str, list[Path]]
    impressions: list[Path]
    declared: Dataset | None = None
    """The dataset itself where the log declares it, so that these paths say all that another process needs."""


class AsOf:
    """What was known at any time of one log.

    `catalogue`, `clicks`, `impressions` and `articles` are the log itself, for looking up rows that the methods named;
    whatever depends on a time is asked through a method.

    Stability: the methods are what models may rely on; constructor arguments may grow.
    """

    def __init__(
        self,
        dataset: Dataset,
        catalogue: Catalogue,
        clicks: Clicks,
        impressions: Impressions,
        popularity: Popularity,
        content: dict[str, Content],
        articles: ArticleTable,
    ) -> None:
        """Raises DataError when the parts are not of one log: different catalogues, or clicks out of order."""
        sizes = {"popularity_tensor": popularity.n_articles, "article_features": len(articles)}
        sizes |= {f"article_embeddings ({family})": len(c.offsets) - 1 for family, c in content.items()}
        for stage, size in sizes.items():
            if size != len(catalogue):
                raise DataError(f"{stage} holds {size} articles, the catalogue {len(catalogue)}: rebuild {stage}")
        ordered = (clicks.user[1:] > clicks.user[:-1]) | (
            (clicks.user[1:] == clicks.user[:-1]) & (clicks.time[1:] >= clicks.time[:-1])
        )
        if not ordered.all():
            row = int(np.argmin(ordered)) + 1
            raise DataError(f"interactions are not sorted by (user_id, time) at row {row}: rebuild interactions")
        self.dataset, self.catalogue, self.clicks, self.impressions = dataset, catalogue, clicks, impressions
        self.articles = articles
        self._popularity, self._content = popularity, content

    @classmethod
    def open(cls, paths: AsOfPaths) -> "AsOf":
        """From the files of the stages. Raises DataError where they do not fit together."""
        catalogue = Catalogue.load(paths.features)
        return cls(
            paths.declared or dataset(paths.dataset),
            catalogue,
            Clicks.load(paths.interactions, catalogue),
            Impressions.load(paths.impressions, catalogue),
            Popularity.load(paths.popularity),
            {family: Content.load(files, catalogue) for family, files in paths.content.items()},
            ArticleTable.load(paths.features),
        )

    @property
    def clock(self) -> DayClock:
        """Days and local time of the dataset."""
        return self.dataset.clock

    @property
    def families(self) -> tuple[str, ...]:
        """Content families that the dataset has, by name."""
        return tuple(sorted(family for family, content in self._content.items() if content.dim))

    def available(self, time_ms: np.ndarray) -> np.ndarray:
        """Number of articles published before the minute of each time began, int64 [B]: the prefix 𝒜_t of the rows."""
        return self.catalogue.available(time_ms)

    def age_minutes(self, time_ms: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Minutes from publication of `rows[b, k]` to the start of the minute of `time_ms[b]`; float32 [B, K], 0 if
        published later or unknown (row < 0)."""
        if not len(self.catalogue):
            return np.zeros(np.shape(rows), dtype=np.float32)
        age = minute_start(time_ms)[:, None] - self.catalogue.published[np.maximum(rows, 0)]
        return np.where(rows >= 0, np.maximum(age, 0) / MS_PER_MINUTE, 0).astype(np.float32)

    def counts(self, time_ms: np.ndarray, rows: np.ndarray, paper_window: bool = False) -> np.ndarray:
        """Clicks of `rows[b, k]` in the windows before `time_ms[b]`, int32 [B, K, 7]; see `Popularity.counts`."""
        return self._popularity.counts(time_ms, rows, paper_window)

    def catalogue_counts(self, time_ms: int, n_rows: int, paper_window: bool = False) -> np.ndarray:
        """Clicks of the first `n_rows` articles in the windows before one time, int32 [n_rows, 7]."""
        return self._popularity.catalogue_counts(time_ms, n_rows, paper_window)

    def totals(self, time_ms: np.ndarray, paper_window: bool = False) -> np.ndarray:
        """Clicks of all articles in the windows before each time, int64 [B, 7]."""
        return self._popularity.totals(time_ms, paper_window)

    def content(self, family: str) -> Content:
        """Vectors of a family, to be asked with times; with dimension 0 where the dataset has none."""
        return self._content.get(family) or Content.empty(len(self.catalogue))

    def read_time(self, click: np.ndarray, time_ms: np.ndarray) -> np.ndarray:
        """Seconds read of the clicks at rows `click` (int64, any shape) as far as known at `time_ms` (broadcast against
        it); float32, NaN where unknown or not yet known."""
        seconds = self.clicks.read_time[click]
        with np.errstate(invalid="ignore"):
            known = self.clicks.time[click] + seconds.astype(np.float64) * 1000 <= time_ms
        return np.where(known, seconds, np.float32(np.nan))

    def recent_clicks(self, time_ms: np.ndarray, minutes: int) -> tuple[np.ndarray, np.ndarray]:
        """Ranges [lo, hi) int64 [B] into `time_sorted_articles`: the clicks of the last `minutes` completed minutes. A
        uniform draw from one is a draw in proportion to popularity."""
        end = minute_start(time_ms)
        times = self._time_sorted[0]
        return np.searchsorted(times, end - minutes * MS_PER_MINUTE), np.searchsorted(times, end)

    @property
    def time_sorted_articles(self) -> np.ndarray:
        """Catalogue rows of all clicks in order of (time, click row), int32 [N]."""
        return self._time_sorted[1]

    @cached_property
    def _time_sorted(self) -> tuple[np.ndarray, np.ndarray]:
        order = np.argsort(self.clicks.time, kind="stable")
        return self.clicks.time[order], self.clicks.article[order]

    def impression_of(self, click: np.ndarray) -> np.ndarray:
        """Impression (position in `impressions`) in which each click (row, int64 [B]) was made: that of its id and
        reader, the earliest of several; int64 [B], -1 without one."""
        user, impression = self.clicks.user[click], self.clicks.impression[click]
        order, users, ids = self._impression_keys
        place = _find_pair(ids, users, impression, user)
        return np.where(place >= 0, order[place] if len(order) else -1, -1)

    @cached_property
    def _impression_keys(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        shown = self.impressions
        order = np.lexsort((shown.time, shown.user, shown.impression))
        return order, shown.user[order], shown.impression[order]

    def cases(
        self,
        user: np.ndarray,
        time_ms: np.ndarray,
        session: np.ndarray | None = None,
        context: np.ndarray | None = None,
    ) -> Cases:
        """Requests of readers `user` at `time_ms` (int64 [B]): their clicks strictly before, and where the running
        session begins among them.

        The running session is the trailing clicks that share the last click's session, if that click is less than 30
        minutes old. Where the request's own `session` is known (int64 [B], -1 unknown), it is the trailing clicks of
        that one.
        `context`: int32 [B, 4] circumstances of the request, unknown (-1) by default.
        """
        user, time_ms = np.asarray(user, dtype=np.int64), np.asarray(time_ms, dtype=np.int64)
        log = self.clicks
        first, stop = _history(log.user, log.time, user, time_ms)
        session = np.full(len(user), -1, dtype=np.int64) if session is None else np.array(session, dtype=np.int64)
        known = session >= 0
        goes_on = ~known & (stop > first)
        goes_on[goes_on] = time_ms[goes_on] - log.time[stop[goes_on] - 1] < SESSION_GAP_MS
        session[goes_on] = log.session[stop[goes_on] - 1]
        start = _session_start(log.session, first, stop, session, known | goes_on)
        if context is None:
            context = np.full((len(user), len(CONTEXT)), -1, dtype=np.int32)
        return Cases(user, time_ms, first, stop, start, context)

    @cached_property
    def coclicks(self) -> CoClicks:
        """Known pairs of articles clicked in one session; its `window` takes the time before which they were known."""
        return CoClicks.build(self.clicks, len(self.catalogue))

    def truncated(self, time_ms: int) -> "AsOf":
        """The same log as it was at `time_ms`: nothing in it happened later. Row numbers of articles stay.

        An article published later is kept only if something before refers to it.
        """
        clicks = self.clicks.take(self.clicks.time < time_ms)
        with np.errstate(invalid="ignore"):
            read = clicks.time + clicks.read_time.astype(np.float64) * 1000 <= time_ms
        clicks = replace(clicks, read_time=np.where(read, clicks.read_time, np.float32(np.nan)))
        later = self.clicks.take(self.clicks.time >= time_ms)
        impressions = _impressions_before(self.impressions, time_ms, later)
        published = int(np.searchsorted(self.catalogue.published, time_ms))
        n = 1 + int(max(published - 1, clicks.article.max(initial=-1), impressions.article.max(initial=-1)))
        return AsOf(
            self.dataset,
            Catalogue(self.catalogue.article_id[:n], self.catalogue.published[:n], self.catalogue.category[:n]),
            clicks,
            impressions,
            Popularity.build(clicks.article, clicks.time, n),
            {family: content.before(time_ms, n) for family, content in self._content.items()},
            ArticleTable(*(getattr(self.articles, name)[:n] for name in ArticleTable.__slots__)),
        )


def _impressions_before(shown: Impressions, time_ms: int, later: Clicks) -> Impressions:
    """The impressions before a time, by which they are sorted, without the marks of the `later` clicks."""
    n = int(np.searchsorted(shown.time, time_ms))
    stop = int(shown.offsets[n])
    clicked = shown.clicked[:stop].copy()
    marked = np.flatnonzero(clicked)
    named = shown.impression[np.searchsorted(shown.offsets[: n + 1], marked, side="right") - 1]
    unknown = set(zip(later.impression.tolist(), later.article.tolist(), strict=True))
    at = zip(named.tolist(), shown.article[marked].tolist(), strict=True)
    clicked[marked] = [pair not in unknown for pair in at]
    return Impressions(
        shown.impression[:n],
        shown.user[:n],
        shown.time[:n],
        shown.session[:n],
        shown.context[:n],
        shown.offsets[: n + 1],
        shown.article[:stop],
        clicked,
        shown.synthetic,
    )


@nb.njit(cache=True, nogil=True)
def _history(
    log_user: np.ndarray, log_time: np.ndarray, user: np.ndarray, time: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rows [first, stop) of each reader's clicks strictly before a time, in a log sorted by (reader, time)."""
    first, stop = np.empty(len(user), np.int64), np.empty(len(user), np.int64)
    for b in range(len(user)):
        first[b] = np.searchsorted(log_user, user[b])
        lo, hi = first[b], len(log_user)
        while lo < hi:
            middle = (lo + hi) >> 1
            if log_user[middle] == user[b] and log_time[middle] < time[b]:
                lo = middle + 1
            else:
                hi = middle
        stop[b] = lo
    return first, stop


@nb.njit(cache=True, nogil=True)
def _session_start(
    log_session: np.ndarray, first: np.ndarray, stop: np.ndarray, session: np.ndarray, running: np.ndarray
) -> np.ndarray:
    """First row of the trailing rows of [first, stop) with the given session; stop where there are none."""
    start = stop.copy()
    for b in range(len(stop)):
        if running[b]:
            while start[b] > first[b] and log_session[start[b] - 1] == session[b]:
                start[b] -= 1
    return start


@nb.njit(cache=True, nogil=True)
def _find_pair(major: np.ndarray, minor: np.ndarray, wanted: np.ndarray, beside: np.ndarray) -> np.ndarray:
    """First place of each pair (wanted, beside) in pairs sorted by (major, minor); -1 where absent or wanted < 0."""
    out = np.full(len(wanted), -1, np.int64)
    for b in range(len(wanted)):
        lo, hi = 0, len(major)
        while lo < hi:
            middle = (lo + hi) >> 1
            if major[middle] < wanted[b] or (major[middle] == wanted[b] and minor[middle] < beside[b]):
                lo = middle + 1
            else:
                hi = middle
        if wanted[b] >= 0 and lo < len(major) and major[lo] == wanted[b] and minor[lo] == beside[b]:
            out[b] = lo
    return out
