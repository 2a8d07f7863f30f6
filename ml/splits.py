"""Splits: which target times train, validate and test a model as of a day.

Belongs here: named spans of days relative to an as-of day. Does not belong here: enumeration of targets
(`ml.sessions`) and what may be known at a time (`ml.asof`).
"""

import re
from dataclasses import dataclass
from datetime import date, timedelta

from ml.clock import MS_PER_DAY, MS_PER_HOUR, DayClock
from ml.errors import UsageError

TRAIN_DAYS = 7
HISTORY_DAYS = 21
Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Split:
    """Spans relative to the start of the as-of day d, in hours: targets in [train, …) fit the weights, those of
    `validation` stop the training early, those of `test` are scored.

    `fit_days`: whole days from d on that fitting may read (0: nothing from d's start on). `fit`: the split whose
    fitted model is tested (empty: its own).
    """

    name: str
    train: Span
    validation: Span
    test: Span
    fit_days: int = 0
    fit: str = ""

    @property
    def fit_name(self) -> str:
        """Name of the split that fits the model."""
        return self.fit or self.name

    @property
    def test_days(self) -> list[int]:
        """Day offsets, relative to d, that hold test targets."""
        return list(range(self.test[0] // 24, -(-self.test[1] // 24)))

    @property
    def end_days(self) -> int:
        """Offset of the first day after the last test target."""
        return self.test_days[-1] + 1

    def spans(self, clock: DayClock, day: date) -> dict[str, Span]:
        """`train`, `validation` and `test` as [start, end) in ms for the as-of day."""
        start = clock.start(day)
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: (start + a * MS_PER_HOUR, start + b * MS_PER_HOUR) for name, (a, b) in named.items()}

    def fit_end(self, clock: DayClock, day: date) -> int:
        """First millisecond that fitting must not see."""
        return clock.start(day) + self.fit_days * MS_PER_DAY

    def last_day_with_full_test(self, days: list[date]) -> date:
        """The last as-of day that leaves a full test span in `days` (sorted). Raises UsageError when there is none."""
        candidates = [
            d for d in days if all(d + timedelta(days=k) in set(days) for k in self.test_days) and d > days[0]
        ]
        if not candidates:
            raise UsageError(f"the log's {len(days)} days leave no full test span for split {self.name!r}")
        return candidates[-1]


VALIDATION_HOURS = 6
_WEEK = TRAIN_DAYS * 24
ROLLING = Split("rolling", (-_WEEK, -VALIDATION_HOURS), (-VALIDATION_HOURS, 0), (0, 24))
THESIS = Split("thesis", (-_WEEK, 0), (0, 24), (24, _WEEK), fit_days=1)


def split(name: str) -> Split:
    """The split called `name`: `rolling`, `thesis` (Sec. 5.1) or `lag_K` (rolling, tested on the K-th day after d).

    Raises UsageError for other names.
    """
    if name in ("rolling", "thesis"):
        return ROLLING if name == "rolling" else THESIS
    lag = re.fullmatch(r"lag_([1-9][0-9]?)", name)
    if not lag:
        raise UsageError(f"unknown split {name!r}: use rolling, thesis or lag_K with K from 1 to 99")
    day = int(lag[1]) * 24
    return Split(name, ROLLING.train, ROLLING.validation, (day, day + 24), fit=ROLLING.name)
