"""The datasets that the system knows: their names, clocks and spans.

Belongs here: facts about a dataset that hold before any file is read. Does not belong here: reading
(`ml.readers`) and where the files are (`resources.source`).
"""

from dataclasses import dataclass
from datetime import date, timedelta

from ml.clock import DayClock
from ml.errors import UsageError


@dataclass(frozen=True, slots=True)
class Dataset:
    """A click log: `first_day`..`last_day` are the days its partitions cover (as-of days go one further). `text`: the
    text families that are encoded unless a run asks for others."""

    name: str
    reader: str
    clock: DayClock
    first_day: date
    last_day: date
    has_impressions: bool
    has_text: bool
    synthetic: bool
    note: str = ""
    text: tuple[str, ...] = ("body",)

    @property
    def days(self) -> list[date]:
        """All days that can hold data, in order."""
        return [self.first_day + timedelta(days=i) for i in range((self.last_day - self.first_day).days + 1)]


_COPENHAGEN = DayClock(offset_hours=7, timezone="Europe/Copenhagen")

DATASETS = {
    d.name: d
    for d in (
        Dataset(
            "simulated", "ebnerd", _COPENHAGEN, date(2023, 4, 27), date(2023, 6, 8), True, True, True,
            "Simulated readers: wins here are plumbing checks, not claims.",
        ),
        Dataset("ebnerd", "ebnerd", _COPENHAGEN, date(2023, 2, 2), date(2023, 6, 8), True, True, False),
        Dataset(
            "globo", "globo", DayClock(offset_hours=3, timezone="America/Sao_Paulo"),
            date(2017, 10, 1), date(2017, 10, 17), False, False, False,
            "The last click of most sessions carries an invented time, exactly 30 s after the click before it: "
            "time since the last click is no feature here.",
        ),
        Dataset(
            "mind", "mind", DayClock(offset_hours=0, timezone="UTC"),
            date(2019, 11, 9), date(2019, 11, 22), True, True, False,
            "Histories of this log have no times and are not used as clicks: what is known of a reader is what was "
            "clicked in the log's own days. Times are kept as they stand in the files.",
            text=("title",),
        ),
    )
}  # fmt: skip


def dataset(name: str) -> Dataset:
    """The dataset called `name`; raises UsageError naming the known ones."""
    if name not in DATASETS:
        raise UsageError(f"unknown dataset {name!r}: choose one of {', '.join(sorted(DATASETS))}")
    return DATASETS[name]
