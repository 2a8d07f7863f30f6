"""Metrics of recommendation lists and of embeddings: one value per list, vectorised over ragged lists.

Belongs here: definitions, each with its convention for ties and empty truth. Does not belong here: means and
intervals over lists (`ml.bootstrap`), and which lists are measured (`ml.evaluate`).

Ragged lists are a flat array and `offsets` int64 [I + 1]: list i is `flat[offsets[i]:offsets[i + 1]]`. A list whose
truth is empty measures NaN, and a warning says how many there are; it never measures 0.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numba as nb
import numpy as np

from ml.errors import DataError

_LISTS_AT_ONCE = 8192


class UndefinedMetricWarning(UserWarning):
    """Some lists have no value of a metric; the message counts them."""


@dataclass(frozen=True, slots=True)
class RankedLists:
    """Labelled lists in order of falling score, equal scores gathered into tie groups, of which those with a click are
    kept: the others are what lies between.

    int64 [G], in order of list and rank: `owner` list of a group, `first` rank (from 1) of its best place, `size`
    items, `clicks` clicked items (1 or more). int64 [I]: `items` and `clicked` per list.
    """

    owner: np.ndarray
    first: np.ndarray
    size: np.ndarray
    clicks: np.ndarray
    items: np.ndarray
    clicked: np.ndarray

    @classmethod
    def rank(cls, labels: np.ndarray, scores: np.ndarray, offsets: np.ndarray) -> "RankedLists":
        """From `labels` bool [V], `scores` float [V] and `offsets` int64 [I + 1].

        Raises DataError when the shapes disagree or a score is NaN.
        """
        labels, scores = np.ascontiguousarray(labels, dtype=bool), np.ascontiguousarray(scores)
        lengths = _lengths(offsets, len(scores))
        if len(labels) != len(scores):
            raise DataError(f"{len(labels)} labels for {len(scores)} scores: every scored item needs one")
        if np.isnan(scores).any():
            raise DataError(f"{int(np.isnan(scores).sum())} of {len(scores)} scores are NaN: the model is broken")
        owner, first, size, clicks = _tie_groups(labels, scores, np.asarray(offsets, dtype=np.int64))
        clicked = np.bincount(owner, weights=clicks, minlength=len(lengths)).astype(np.int64)
        return cls(owner, first, size, clicks, lengths, clicked)

    def _sum(self, per_group: np.ndarray) -> np.ndarray:
        return np.bincount(self.owner, weights=per_group, minlength=len(self.items))

    def _tie_mean(self, cumulative: np.ndarray) -> np.ndarray:
        """Mean over each group's ranks of a function of rank, given as its cumulative sums from rank 0."""
        last = self.first + self.size - 1
        return (cumulative[last] - cumulative[self.first - 1]) / self.size

    def _ranks(self) -> np.ndarray:
        return np.arange(1, self.items.max(initial=0) + 1)


def auc(lists: RankedLists) -> np.ndarray:
    """Area under the ROC curve of each list, ties counted half; float64 [I], NaN where only one class is present."""
    clicked, unclicked = lists.clicked, lists.items - lists.clicked
    earlier_lists = np.concatenate([[0], np.cumsum(clicked)])[lists.owner]
    missed = lists.size - lists.clicks
    missed_so_far = lists.first + lists.size - 1 - (np.cumsum(lists.clicks) - earlier_lists)
    below = unclicked[lists.owner] - missed_so_far
    twice = lists._sum(lists.clicks * (2 * below + missed))
    return _ratio(twice, 2.0 * clicked * unclicked, "AUC", "contain one class only")


def mrr(lists: RankedLists) -> np.ndarray:
    """Reciprocal rank of each list's first click, its expectation over the orders of tied items; float64 [I].

    In a tie group of n items, c of them clicked, the first click takes the group's place j with probability
    C(n - j, c - 1) / C(n, c). NaN where nothing was clicked.
    """
    owner, group = np.unique(lists.owner, return_index=True)
    size, clicks, above = lists.size[group], lists.clicks[group], lists.first[group] - 1
    expected, chance = np.zeros(len(group)), clicks / size
    active, place = np.arange(len(group)), 1
    while len(active):
        expected[active] += chance[active] / (above[active] + place)
        active = active[place <= size[active] - clicks[active]]
        left = size[active] - place
        chance[active] *= (left - clicks[active] + 1) / left
        place += 1
    out = np.zeros(len(lists.items))
    out[owner] = expected
    return _ratio(out, np.minimum(lists.clicked, 1), "MRR", "contain no click")


def mrr_mind(lists: RankedLists) -> np.ndarray:
    """Mean of 1/rank over *all* clicks of each list, ties averaged; float64 [I], NaN where nothing was clicked.

    What the code of MIND, EB-NeRD and Vespa calls MRR: a perfect ranking of two clicks in four measures 0.75.
    """
    reciprocal = np.concatenate([[0.0], np.cumsum(1.0 / lists._ranks())])
    return _ratio(lists._sum(lists.clicks * lists._tie_mean(reciprocal)), lists.clicked, "MRR", "contain no click")


def ndcg(lists: RankedLists, k: int) -> np.ndarray:
    """nDCG@k of each list, discount log2(rank + 1), ties averaged as scikit-learn does; float64 [I].

    Labels are binary, so that the gain 2^rel - 1 is the label. NaN where nothing was clicked.
    """
    ranks = lists._ranks()
    discount = np.concatenate([[0.0], np.cumsum(np.where(ranks <= k, 1.0 / np.log2(ranks + 1), 0.0))])
    gained = lists._sum(lists.clicks * lists._tie_mean(discount))
    return _ratio(gained, discount[lists.clicked], "nDCG", "contain no click")


def target_rank(targets: np.ndarray, articles: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Rank (from 1) of `targets` int64 [I] in ragged lists of `articles`; int64 [I], 0 where it is absent."""
    lengths = _lengths(offsets, len(articles))
    lists = np.repeat(np.arange(len(lengths)), lengths)
    found = np.flatnonzero(np.asarray(articles) == np.asarray(targets)[lists])[::-1]
    rank = np.zeros(len(lengths), dtype=np.int64)
    rank[lists[found]] = found - np.asarray(offsets)[lists[found]] + 1
    return rank


def recall_at(rank: np.ndarray, k: int) -> np.ndarray:
    """1 where the only relevant article has a rank in 1..k, else 0 (document 1, Sec. 5.2.1); float64 [I]."""
    return ((rank >= 1) & (rank <= k)).astype(np.float64)


def ndcg_at(rank: np.ndarray, k: int) -> np.ndarray:
    """nDCG@k with one relevant article at `rank` (0: absent): 1 / log2(rank + 1) within k, else 0; float64 [I]."""
    return recall_at(rank, k) / np.log2(np.maximum(rank, 1) + 1)


def mrr_at(rank: np.ndarray, k: int) -> np.ndarray:
    """1 / `rank` of the only relevant article within k, else 0; float64 [I]."""
    return recall_at(rank, k) / np.maximum(rank, 1)


def ild(vectors: np.ndarray, rows: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Intra-list diversity: mean cosine distance of a list's pairs (document 1, Eq. A.6); float64 [I].

    `vectors` float [R, D]; `rows` int [V] index them, -1 where an article has no vector: such articles are left out.
    NaN where fewer than two articles remain. O(items x D) by |sum of v|^2 = K + 2 x sum over pairs of cos.
    """
    out = [np.zeros((0, 2))]
    for count, total in _unit_sums(vectors, rows, offsets):
        out.append(np.stack([count * count - np.einsum("bd,bd->b", total, total), count * (count - 1.0)], axis=1))
    distance, pairs = np.concatenate(out).T
    return _ratio(np.maximum(distance, 0.0), pairs, "ILD", "hold fewer than two articles with a vector")


def serendipity(
    vectors: np.ndarray, rows: np.ndarray, offsets: np.ndarray, history: np.ndarray, history_offsets: np.ndarray
) -> np.ndarray:
    """Mean cosine distance of recommended and read articles (document 1, Eq. A.7); float64 [I].

    `rows` and `history` int [V], [H] index `vectors`, -1 (no vector) is left out. NaN where either side is empty.
    """
    out = [np.zeros((0, 2))]
    both = zip(_unit_sums(vectors, rows, offsets), _unit_sums(vectors, history, history_offsets), strict=True)
    for (count, total), (read, total_read) in both:
        pairs = count * read
        out.append(np.stack([pairs - np.einsum("bd,bd->b", total, total_read), pairs], axis=1))
    distance, pairs = np.concatenate(out).T
    return _ratio(np.maximum(distance, 0.0), pairs, "serendipity", "lack a vector in the list or in the history")


def novelty(probability: np.ndarray, rows: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Mean of -log2 p over a list's articles (document 1, Eq. A.8); float64 [I], NaN for an empty list.

    `probability` float [A] must be positive wherever `rows` int [V] point: smooth it first. DataError otherwise.
    """
    share = np.asarray(probability, dtype=np.float64)[rows]
    if not np.all(share > 0):
        raise DataError(f"{int(np.sum(~(share > 0)))} recommended articles have no positive click share: smooth it")
    lengths = _lengths(offsets, len(share))
    lists = np.repeat(np.arange(len(lengths)), lengths)
    surprise = np.bincount(lists, weights=-np.log2(share), minlength=len(lengths))
    return _ratio(surprise, lengths, "novelty", "are empty")


def coverage(articles: np.ndarray, catalogue_size: int) -> float:
    """Distinct recommended articles over the size of the catalogue (document 1, Eq. A.9)."""
    return len(np.unique(articles)) / catalogue_size if catalogue_size else float("nan")


def average_cosine(matrix: np.ndarray) -> float:
    """Mean cosine over pairs of different rows of `matrix` float [n, d] (document 1, Eq. 2.8); NaN for n < 2."""
    n = len(matrix)
    total = _unit(matrix).sum(axis=0)
    return float((total @ total - n) / (n * (n - 1))) if n > 1 else float("nan")


def effective_rank(matrix: np.ndarray) -> float:
    """exp of the entropy of the normalised singular values of the uncentred `matrix` [n, d] (document 1, Eq. 2.9).

    NaN for a matrix of zeros.
    """
    values = np.linalg.svd(np.asarray(matrix, dtype=np.float64), compute_uv=False)
    if not values.sum() > 0:
        return float("nan")
    share = values[values > 0] / values.sum()
    return float(np.exp(-np.sum(share * np.log(share))))


def relative_effective_rank(matrix: np.ndarray) -> float:
    """Effective rank over the dimension d, in [0, 1] (document 1, Eq. A.10)."""
    return effective_rank(matrix) / np.asarray(matrix).shape[1]


def labels_from_lists(
    shown: np.ndarray, offsets: np.ndarray, clicked: np.ndarray, clicked_offsets: np.ndarray
) -> np.ndarray:
    """Whether each shown article is among its own impression's clicked ones; bool [V].

    `shown` and `clicked` int64 are ragged over the same impressions; a click on what was not shown counts nowhere.
    """
    lengths, clicks = _lengths(offsets, len(shown)), _lengths(clicked_offsets, len(clicked))
    ids, codes = np.unique(np.concatenate([shown, clicked]), return_inverse=True)
    key = np.repeat(np.arange(len(lengths)), lengths) * len(ids) + codes[: len(shown)]
    return np.isin(key, np.repeat(np.arange(len(clicks)), clicks) * len(ids) + codes[len(shown) :])


def submission_ranks(scores: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Rank (from 1, best first) of each item within its own list, equal scores in the order given; int64 [V]."""
    lengths = _lengths(offsets, len(scores))
    lists = np.repeat(np.arange(len(lengths)), lengths)
    order = np.lexsort((-np.asarray(scores), lists))
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(len(order)) - np.asarray(offsets)[lists] + 1
    return ranks


@nb.njit(cache=True, nogil=True)
def _tie_groups(labels: np.ndarray, scores: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Owner, first rank, size and clicks of every tie group with a click; int64 [4, G]."""
    groups = np.empty((4, labels.sum()), np.int64)
    n = 0
    for i in range(len(offsets) - 1):
        label, score = labels[offsets[i] : offsets[i + 1]], scores[offsets[i] : offsets[i + 1]]
        if not label.any():
            continue
        order = np.argsort(-score)
        end = 0
        while end < len(order):
            begin, clicks = end, 0
            while end < len(order) and score[order[end]] == score[order[begin]]:
                clicks += label[order[end]]
                end += 1
            if clicks:
                groups[0, n], groups[1, n], groups[2, n], groups[3, n] = i, begin + 1, end - begin, clicks
                n += 1
    return groups[:, :n]


def _lengths(offsets: np.ndarray, total: int) -> np.ndarray:
    """Lengths of ragged lists, int64 [I]; DataError when the offsets do not span the flat array."""
    offsets = np.asarray(offsets, dtype=np.int64)
    lengths = np.diff(offsets)
    if len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != total or np.any(lengths < 0):
        raise DataError(f"the offsets of ragged lists must rise from 0 to the {total} items that they divide")
    return lengths


def _ratio(above: np.ndarray, below: np.ndarray, name: str, why: str) -> np.ndarray:
    """above / below, NaN where `below` is 0; warns with the count of those lists."""
    undefined = int(np.sum(below == 0))
    if undefined:
        message = f"{name}: {undefined} of {len(below)} lists {why}, their value is NaN"
        warnings.warn(message, UndefinedMetricWarning, stacklevel=3)
    return np.divide(above, below, out=np.full(len(below), np.nan), where=below != 0)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1, float64; DataError for a row of zeros, whose direction is undefined."""
    vectors = np.asarray(vectors, dtype=np.float64)
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.all(norm > 0):
        raise DataError(f"{int(np.sum(~(norm > 0)))} of {len(vectors)} vectors have no direction (zero or NaN)")
    return vectors / norm


def _unit_sums(vectors: np.ndarray, rows: np.ndarray, offsets: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For blocks of lists: number of articles with a vector float64 [b], sum of their unit vectors float64 [b, D]."""
    from scipy.sparse import csr_matrix

    rows, offsets = np.asarray(rows), np.asarray(offsets, dtype=np.int64)
    _lengths(offsets, len(rows))
    known = np.concatenate([[0], np.cumsum(rows >= 0)])
    used, columns = np.unique(rows[rows >= 0], return_inverse=True)
    unit, bounds = _unit(np.asarray(vectors)[used]), known[offsets]
    for begin in range(0, len(offsets) - 1, _LISTS_AT_ONCE):
        part = bounds[begin : begin + _LISTS_AT_ONCE + 1]
        column = columns[part[0] : part[-1]]
        shape = (len(part) - 1, len(used))
        incidence = csr_matrix((np.ones(len(column)), column, part - part[0]), shape=shape)
        yield np.diff(part).astype(np.float64), incidence @ unit
