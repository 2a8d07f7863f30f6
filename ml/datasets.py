"""The datasets that the system knows: their names, clocks and spans.

Belongs here: facts about a dataset that hold before any file is read, and the registry of the logs that bring theirs
along. Does not belong here: reading (`ml.readers`), what a log declares (`ml.own_log`) and where the files are
(`resources.source`).
"""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ml.clock import DayClock
from ml.errors import UsageError


class SyntheticInView(BaseModel):
    """In-view lists for a log that has none: `length` articles, the clicked one among others drawn from those clicked
    in the last `window_minutes` completed minutes, in proportion to their clicks or uniformly (`ml.inview`)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    synthesise: Literal["popularity", "uniform"]
    length: int = Field(default=10, ge=2, le=500)
    window_minutes: int = Field(default=60, ge=1, le=1440)
    seed: int = Field(default=1, ge=0, lt=2**31)

    def __str__(self) -> str:
        """How the lists were made, in a few words: what stands beside every figure that rests on them."""
        return (
            f"synthetic: {self.synthesise} among clicks of the last {self.window_minutes} min, {self.length} long, "
            f"seed {self.seed}"
        )


@dataclass(frozen=True, slots=True)
class Dataset:
    """A click log: `first_day`..`last_day` are the days its partitions cover (as-of days go one further). A day closes
    `watermark_hours` after its end: rows that arrive later are late. `text`: the text families that are encoded unless
    a run asks for others. `declared`: the facts come from the log's own `log.toml`; `naive_zone` is then the zone of
    its times without one (empty: such times are refused), `inview` the lists that it wants synthesised."""

    name: str
    reader: str
    clock: DayClock
    first_day: date
    last_day: date
    has_impressions: bool
    has_text: bool
    synthetic: bool
    note: str = ""
    watermark_hours: float = 6.0
    text: tuple[str, ...] = ("body",)
    declared: bool = False
    naive_zone: str = ""
    inview: SyntheticInView | None = None

    @property
    def days(self) -> list[date]:
        """All days that can hold data, in order."""
        return [self.first_day + timedelta(days=i) for i in range((self.last_day - self.first_day).days + 1)]

    @property
    def facts(self) -> dict[str, Any]:
        """What of a declared log's facts enters every recipe; nothing for logs whose facts are code."""
        clock = {"timezone": self.clock.timezone, "offset_hours": self.clock.offset_hours}
        return {"log": clock | {"naive_zone": self.naive_zone, "text": list(self.text)}} if self.declared else {}


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


OWN = "own"
"""Stands for the log at the data root, whatever name its `log.toml` gives it."""

_DECLARED: dict[str, Dataset] = {}


def register(declared: Dataset) -> Dataset:
    """Makes a log that declares itself known to this process, in place of one with its name. Raises UsageError for the
    name of a dataset that the system brings along."""
    if declared.name in DATASETS or declared.name == OWN:
        raise UsageError(f"a log cannot be called {declared.name!r}, which has a meaning here: choose another name")
    _DECLARED[declared.name] = declared
    return declared


def known_names() -> list[str]:
    """Names of all datasets of this process, those that declare themselves last."""
    return [*DATASETS, *_DECLARED]


def dataset(name: str) -> Dataset:
    """The dataset called `name`; raises UsageError naming the known ones."""
    found = DATASETS.get(name) or _DECLARED.get(name)
    if found is None:
        raise UsageError(
            f"unknown dataset {name!r}: choose one of {', '.join(sorted(known_names()))}, or point --data-root at a "
            "log with a log.toml"
        )
    return found
