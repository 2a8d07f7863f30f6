"""What is simulated: the sizes of a bundle and the constants of the generative model.

Belongs here: numbers, frozen under `VERSION`. Does not belong here: what is drawn from them (`world`, `page`,
`kernel`, `play`), what the sizes are expected to show (`expected`).
"""

from dataclasses import dataclass
from datetime import timedelta

from ml.datasets import dataset
from ml.errors import UsageError

VERSION = 3
"""Raised when the same preset, size and seed would give other bytes."""

DATASET = dataset("simulated")
MAX_INVIEW = 20
REMEMBERED = 32
"""Articles a reader remembers having read."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much is simulated. Days follow each other: history only, train, validation. `archive` articles are older than
    the first day: two days of warm-up, the rest spread over the `archive_days` before."""

    name: str
    readers: int
    clicks_per_day: int
    articles_per_day: int
    archive: int
    history_days: int
    train_days: int
    validation_days: int
    block_minutes: int
    archive_days: int = 60

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
        Size("tiny_weeks", 1_000, 2_500, 32, 112, 1, 39, 3, 60),
        Size("demo", 20_000, 30_000, 165, 535, 7, 7, 7, 10),
        Size("small", 80_000, 90_000, 200, 3_000, 21, 7, 7, 10),
        Size("week", 1_000_000, 1_550_000, 250, 100_000, 2, 2, 3, 10, 730),
        Size("large", 1_000_000, 1_550_000, 250, 100_000, 28, 7, 7, 10, 730),
    )
}
"""`tiny_weeks` has the rates of `tiny`, for six weeks after a day of history; `week` has those of `large`, for
calibration."""


def size_named(name: str) -> Size:
    """The size called `name`; raises UsageError naming the known ones."""
    if name not in SIZES:
        raise UsageError(f"unknown size {name!r}: choose one of {', '.join(SIZES)}")
    return SIZES[name]


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Constants of the generative model; the symbols are those of docs/simulator.md. The defaults are `tabloid`."""

    # articles
    main_topic: float = 0.8
    quality_scale: float = 0.9
    life_scale: float = 1.1
    life_spread: float = 1.1
    breaking_share: float = 0.02
    rise_minutes: float = 1.2
    breaking_minutes: float = 90.0
    local_share: float = 0.0
    # readers
    interest_concentration: float = 0.8
    activity_sigma: float = 1.1
    interest_drift: float = 0.03
    session_mood: float = 0.25
    subscribers: float = 0.15
    # front page
    front_page: int = 120
    strength_quality: float = 0.7
    strength_life: float = 0.6
    strength_feedback: float = 0.15
    strength_breaking: float = 1.5
    slot_offset: float = 14.0
    slot_power: float = 1.9
    exposure_match: float = 2.5
    exposure_local: float = 0.0
    feedback_half_life: float = 20.0
    inview_median: float = 9.5
    related: int = 5
    # clicks
    click_quality: float = 1.7
    click_life: float = 0.6
    click_match: float = 4.3
    click_local: float = 0.0
    click_breaking: float = 0.5
    life_floor: float = -2.5
    premium_locked: float = -1.0
    premium_open: float = 0.3
    read_before: float = -4.0
    second_click: float = 0.004
    # sessions, in seconds where they are times
    next_click: float = 0.65
    below_article: float = 0.46
    mean_clicks: float = 2.6
    session_seconds: int = 2_400
    between_sessions: int = 2_700

    def __post_init__(self) -> None:
        shares = ("main_topic", "breaking_share", "local_share", "session_mood", "subscribers")
        for share in (*shares, "second_click", "next_click", "below_article", "interest_drift"):
            if not 0 <= getattr(self, share) < 1:
                raise UsageError(f"{share} must lie in [0, 1): {getattr(self, share)}")


PRESETS = {
    "tabloid": Behaviour(),
    "regional": Behaviour(
        life_scale=1.6,
        breaking_share=0.01,
        local_share=0.5,
        slot_power=0.6,
        exposure_match=3.5,
        exposure_local=0.8,
        click_match=7.0,
        click_local=1.2,
    ),
}
"""`tabloid` is calibrated to Ekstra Bladet (document 1, Sec. 3.2). `regional` is what document 1, Sec. 6.2 expects of a
local newspaper, in words: less concentrated clicks, content and place matter more. No figure is published for it."""

TABLOID = PRESETS["tabloid"]


def preset_named(name: str) -> Behaviour:
    """The constants of the preset `name`; raises UsageError naming the known ones."""
    if name not in PRESETS:
        raise UsageError(f"unknown preset {name!r}: choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
