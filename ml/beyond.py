"""What lists are held against beyond accuracy (document 1, App. A.2.2): vectors, clicks, categories, histories.

Belongs here: gathering these from the as-of view and handing them to `ml.metrics`. Does not belong here: means and
intervals (`ml.evaluate`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from ml import metrics, schema
from ml.asof import AsOf
from ml.errors import DataError
from ml.stored import TopLists, read_columns

CATEGORIES = 20


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The same for all models of a test span: `version` int64 [A], the row of each article's vector at its end in
    `vectors` float32 [V, D] (-1 none); `clicks` int64 [A] in the span; `size`, the number of articles available in it;
    `code` int64 [A] into the names `category`; and why metrics are `left_out`."""

    asof: AsOf
    vectors: np.ndarray
    version: np.ndarray
    clicks: np.ndarray
    size: int
    code: np.ndarray
    category: list[str]
    left_out: dict[str, str]

    @classmethod
    def of(cls, asof: AsOf, span: dict[str, Any], family: str | None, features: Path | None) -> "Surroundings":
        """For a test `span` (`ml.stored.read_span`); `family` and `features` as in `ml.evaluate.evaluate_rq3`."""
        log, n = asof.clicks, len(asof.catalogue)
        inside = (log.time >= span["start_ms"]) & (log.time < span["end_ms"])
        if not inside.any():
            raise DataError("the interactions hold no click of the test span: give those of a day that covers it")
        clicks = np.bincount(log.article[inside], minlength=n)
        left_out: dict[str, str] = {}
        vectors, version = np.zeros((0, 0), dtype=np.float32), np.full(n, -1)
        if family is not None and asof.content(family).dim:
            content = asof.content(family)
            vectors, version = content.vectors, content.index(np.array([span["end_ms"]]), np.arange(n)[None])[0]
            version = np.where(np.any(vectors, axis=1)[version], version, -1)  # zeros point nowhere: as good as none
        if not (version >= 0).any():
            why = (
                f"no {family} vectors at the end of the test span" if family else "this dataset has no content vectors"
            )
            left_out |= {"ild": why, "serendipity": why}
        code, category = categories_of(asof.catalogue.category, clicks, features)
        if not category:
            left_out["categories"] = "the articles have no category"
        return cls(asof, vectors, version, clicks, span["catalogue_available"], code, category, left_out)

    def measure(self, lists: TopLists) -> dict[str, np.ndarray]:
        """Novelty of each list and, where there are vectors, its ILD and serendipity; float64 [N] each."""
        rows = self._rows(lists)
        share = (self.clicks + 1) / (self.clicks.sum() + self.size)
        values = {"novelty": metrics.novelty(share, rows, lists.offsets)}
        if "ild" not in self.left_out:
            recommended, (read, read_offsets) = self.version[rows], self._history(lists)
            values["ild"] = metrics.ild(self.vectors, recommended, lists.offsets)
            values["serendipity"] = metrics.serendipity(
                self.vectors, recommended, lists.offsets, self.version[read], read_offsets
            )
        return values

    def category_shares(self, lists: TopLists) -> dict[str, np.ndarray]:
        """Share of each list's places by category, float64 [N] each, NaN for an empty list; none without categories."""
        if not self.category:
            return {}
        lengths, width = np.diff(lists.offsets), len(self.category)
        cell = np.repeat(np.arange(len(lengths)), lengths) * width + self.code[self._rows(lists)]
        counts = np.bincount(cell, minlength=len(lengths) * width).reshape(len(lengths), width)
        shares = counts / np.where(lengths > 0, lengths, np.nan)[:, None]
        return dict(zip(self.category, shares.T, strict=True))

    def clicks_by_category(self) -> dict[str, float]:
        """Share of the span's clicks by category: what readers chose, beside what was recommended."""
        if not self.category:
            return {}
        share = np.bincount(self.code, weights=self.clicks, minlength=len(self.category)) / self.clicks.sum()
        return {name: round(float(x), 12) for name, x in zip(self.category, share, strict=True)}

    def vectors_note(self, lists: TopLists) -> dict[str, int]:
        """The vectors' dimension, the recommended places, and how many of these hold an article with a vector."""
        known = int(np.sum(self.version[self._rows(lists)] >= 0))
        return {"dimension": self.vectors.shape[1], "places": len(lists.articles), "places_with_vector": known}

    def _rows(self, lists: TopLists) -> np.ndarray:
        rows = self.asof.catalogue.rows(lists.articles)
        if (rows < 0).any():
            raise DataError(f"{int(np.sum(rows < 0))} recommended articles are not in the catalogue: predict anew")
        return rows

    def _history(self, lists: TopLists) -> tuple[np.ndarray, np.ndarray]:
        """Catalogue rows of the reader's earlier clicks, ragged over the lists: int32 [H], int64 [N + 1]."""
        cases = self.asof.cases(lists.reader, lists.keys[schema.CLICK_TIME])
        lengths = cases.stop - cases.first
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        position = np.arange(offsets[-1]) + np.repeat(cases.first - offsets[:-1], lengths)
        return self.asof.clicks.article[position], offsets


def categories_of(category: np.ndarray, clicks: np.ndarray, features: Path | None) -> tuple[np.ndarray, list[str]]:
    """Category code int64 [A] and names: the most clicked, then `other`; `unknown` for articles without one.

    No names at all when no article has a category.
    """
    ids = np.unique(category[category >= 0])
    if not len(ids):
        return np.zeros(len(category), dtype=np.int64), []
    total = np.bincount(np.searchsorted(ids, category[category >= 0]), clicks[category >= 0], len(ids))
    kept = ids[np.lexsort((ids, -total))][:CATEGORIES]
    code = np.full(len(category), len(kept))
    for number, category_id in enumerate(kept):
        code[category == category_id] = number
    code[category < 0] = len(kept) + 1
    known, names = _category_names(features), ["other", "unknown"]
    for category_id in kept.tolist():
        name = known.get(category_id, f"category {category_id}")
        names.insert(-2, f"{name} ({category_id})" if name in names else name)
    return code, names


def _category_names(features: Path | None) -> dict[int, str]:
    if features is None:
        return {}
    table = read_columns(features, schema.some(schema.ARTICLES, "category_id", "category"))
    named = table.filter(pc.and_(pc.is_valid(table["category_id"]), pc.is_valid(table["category"])))
    return dict(zip(named["category_id"].to_pylist(), named["category"].to_pylist(), strict=True))
