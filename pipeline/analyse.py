"""Which spans of days `newsrec analyse` asks for.

Belongs here: from days given on the command line to goals of a plan. Does not belong here: running (`pipeline.run`) and
what is measured (`ml.analysis`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from assets.graph import BY_NAME
from ml.datasets import Dataset
from ml.errors import UsageError
from pipeline.run import Goal

WEEK = 7


@dataclass(frozen=True, slots=True)
class Span:
    """Days `first` to `last`, both included; `whole` means from the log's first day on."""

    first: date
    last: date
    whole: bool

    @property
    def days(self) -> int:
        """The setting `span_days` of the span: 0 for all days."""
        return 0 if self.whole else (self.last - self.first).days + 1

    @property
    def goal(self) -> Goal:
        """The partition that holds the span: the day after it, from which on nothing was read."""
        return [(BY_NAME["dataset_analysis"], self.last + timedelta(days=1), None)]


def span(dataset: Dataset, days: Sequence[date], first: date | None, last: date | None) -> Span:
    """The span from `first` to `last`, by default the days with data from end to end. Raises UsageError for days that
    the log does not cover."""
    start, end = first or days[0], last or days[-1]
    if not days[0] <= start <= end <= days[-1]:
        raise UsageError(
            f"no days {start} to {end} of {dataset.name}: its data runs from {days[0]} to {days[-1]}; "
            "choose --from and --to in that order within it"
        )
    return Span(start, end, whole=start == days[0])


def weeks(whole: Span) -> list[Span]:
    """The whole weeks of a span, counted back from its last day, oldest first. Raises UsageError when it has none."""
    number = ((whole.last - whole.first).days + 1) // WEEK
    if not number:
        raise UsageError(f"{whole.first} to {whole.last} is no whole week: give more days, or leave out --weeks")
    ends = [whole.last - timedelta(days=WEEK * i) for i in reversed(range(number))]
    return [Span(end - timedelta(days=WEEK - 1), end, whole=False) for end in ends]
