"""What is simulated: the sizes of a bundle and the constants of the generative model.

Belongs here: numbers. Does not belong here: what is drawn from them (`world`, `play`).
"""

from dataclasses import dataclass
from datetime import timedelta

from ml.datasets import dataset
from ml.errors import UsageError

VERSION = 1
"""Raised when the same size and seed would give other bytes."""

DATASET = dataset("simulated")
MAX_INVIEW = 20
REMEMBERED = 32
"""Articles a reader remembers having read."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much is simulated. Days follow each other: history only, train, validation."""

    name: str
    readers: int
    clicks_per_day: int
    articles_per_day: int
    archive: int
    history_days: int
    train_days: int
    validation_days: int
    block_minutes: int

    @property
    def days(self) -> int:
        """Days in the log."""
        return self.history_days + self.train_days + self.validation_days

    def day_start(self, index: int) -> int:
        """First second of the log's day `index`, since the epoch."""
        return DATASET.clock.start(DATASET.first_day + timedelta(days=index)) // 1000


SIZES = {
    size.name: size
    for size in (
        Size("tiny", 1_000, 2_500, 32, 112, 3, 3, 3, 60),
        Size("demo", 20_000, 30_000, 165, 535, 7, 7, 7, 10),
        Size("small", 80_000, 90_000, 250, 3_000, 21, 7, 7, 10),
        Size("large", 800_000, 900_000, 400, 6_000, 21, 7, 7, 10),
    )
}


def size_named(name: str) -> Size:
    """The size called `name`; raises UsageError naming the known ones."""
    if name not in SIZES:
        raise UsageError(f"unknown size {name!r}: choose one of {', '.join(SIZES)}")
    return SIZES[name]


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Constants of the generative model; the symbols are those of docs/simulator.md."""

    # articles
    main_topic: float = 0.8
    quality_scale: float = 0.7
    breaking_share: float = 0.02
    rise_minutes: float = 2.0
    breaking_minutes: float = 90.0
    # readers
    interest_concentration: float = 0.8
    activity_sigma: float = 1.1
    interest_drift: float = 0.02
    session_mood: float = 0.25
    subscribers: float = 0.15
    # front page
    front_page: int = 90
    tail: int = 25
    tail_floor: float = -5.0
    exposure_quality: float = 0.25
    exposure_life: float = 0.35
    exposure_feedback: float = 0.2
    exposure_match: float = 3.0
    exposure_breaking: float = 1.0
    feedback_half_life: float = 20.0
    # clicks
    click_quality: float = 0.9
    click_life: float = 0.6
    click_match: float = 6.0
    click_breaking: float = 0.5
    life_floor: float = -6.0
    premium_locked: float = -1.0
    premium_open: float = 0.3
    read_before: float = -4.0
    second_click: float = 0.004
    # sessions, in seconds where they are times
    next_click: float = 0.65
    mean_clicks: float = 2.75
    session_seconds: int = 2_400
    between_sessions: int = 2_700

    def __post_init__(self) -> None:
        for share in ("main_topic", "breaking_share", "session_mood", "subscribers", "second_click", "next_click"):
            if not 0 <= getattr(self, share) < 1:
                raise UsageError(f"{share} must lie in [0, 1): {getattr(self, share)}")


BEHAVIOUR = Behaviour()
