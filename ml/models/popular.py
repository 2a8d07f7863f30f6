"""Most Popular: the clicks of an article in the last minutes (document 1, Sec. 5.2.3 baselines; Eq. A.5 windows).

Belongs here: ranking by recent popularity alone. Does not belong here: how clicks are counted (`ml.popularity`).
"""

import numpy as np

from ml.asof import AsOf
from ml.log import Cases
from ml.models.base import Model, case_of
from ml.popularity import WINDOWS


class Popular(Model):
    """Counts clicks in the `minutes` completed minutes before t; `paper_window` counts the current minute too, and
    with it the target click (the paper's definition, a leak that its name says)."""

    def __init__(self, minutes: int, paper_window: bool = False) -> None:
        self.name = f"popular_{minutes}" + ("_paper_window" if paper_window else "")
        self.column = WINDOWS.index(minutes)
        self.paper_window = paper_window

    def catalogue_scores(self, asof: AsOf, time_ms: int, cases: Cases) -> np.ndarray:
        """The same counts for every case of the minute."""
        n_rows = int(asof.available(np.array([time_ms]))[0])
        counts = asof.catalogue_counts(time_ms, n_rows, paper_window=self.paper_window)[:, self.column]
        return np.broadcast_to(counts.astype(np.float32), (len(cases), n_rows))

    def candidate_scores(self, asof: AsOf, cases: Cases, offsets: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Counts of each candidate as of its case."""
        time = cases.time[case_of(offsets)]
        counts = asof.counts(time, rows[:, None], paper_window=self.paper_window)
        return counts[:, 0, self.column].astype(np.float32)
