"""The front page: which articles editors show in a block of minutes, in which slots, and how attractive they are.

Belongs here: what all readers of a block have in common (docs/simulator.md, sections 1 and 4). Does not belong here:
what one reader sees and clicks (`kernel`).
"""

from typing import NamedTuple

import numpy as np

from ml.simulator.config import Behaviour
from ml.simulator.world import SECONDS_PER_DAY, Articles

RECENT_DAYS = 4


class Page(NamedTuple):
    """The articles of a block of M minutes: `rows` int32 [P] ascending; `topics` float32 [K, P]; `place` int8 [P];
    `exposure` float32 [M, P] the slot's weight in each minute, 0 before publication; `utility` float32 [M, P] the part
    of a click's utility that is the same for all readers; `premium` float32 [P], 1 behind the paywall."""

    rows: np.ndarray
    topics: np.ndarray
    place: np.ndarray
    exposure: np.ndarray
    utility: np.ndarray
    premium: np.ndarray


def log_life(age_minutes: np.ndarray, tau: np.ndarray, rise_minutes: float) -> np.ndarray:
    """Log attraction of an article of some age: a rise within minutes, then exponential decay; -inf before age 0."""
    age = np.maximum(age_minutes, 0)
    with np.errstate(divide="ignore"):
        return np.log(-np.expm1(-age / rise_minutes)) - age / tau


def front_page(articles: Articles, feedback: np.ndarray, begin: int, end: int, law: Behaviour) -> Page:
    """The page of [begin, end) seconds: the strongest of recent days by clicks so far (`feedback` float64 [A], recent
    clicks), quality and age, and what appears in the block. Slots are filled anew every minute, by strength."""
    first, now, last = np.searchsorted(articles.published, [begin - RECENT_DAYS * SECONDS_PER_DAY, begin, end])
    recent = np.arange(first, now)
    steady = law.strength_feedback * np.log1p(200 * feedback / max(feedback.sum(), 1.0))
    steady += law.strength_quality * articles.quality
    at = (begin + end) / 2
    strength = (
        steady[recent] + _aging(articles, recent, np.array([at]), law.strength_life, law.strength_breaking, law)[0]
    )
    front = recent[np.argsort(-strength, kind="stable")[: law.front_page]]
    rows = np.concatenate([np.sort(front), np.arange(now, last)])
    minutes = np.arange(begin, end, 60)
    strength = steady[rows] + _aging(articles, rows, minutes, law.strength_life, law.strength_breaking, law)
    slot = np.argsort(np.argsort(-strength, axis=1, kind="stable"), axis=1)
    exposure = (slot + 1 + law.slot_offset) ** -law.slot_power
    exposure[articles.published[rows] >= minutes[:, None]] = 0
    utility = _aging(articles, rows, minutes, law.click_life, law.click_breaking, law)
    utility = np.maximum(utility, law.life_floor) + law.click_quality * articles.quality[rows]
    return Page(
        rows.astype(np.int32),
        np.ascontiguousarray(articles.topics[rows].T),
        articles.place[rows],
        exposure.astype(np.float32),
        utility.astype(np.float32),
        articles.premium[rows].astype(np.float32),
    )


def _aging(
    articles: Articles, rows: np.ndarray, seconds: np.ndarray, life: float, breaking: float, law: Behaviour
) -> np.ndarray:
    """The part of strength or utility that changes with age, at `seconds` [M] for `rows` [P]; float64 [M, P]."""
    age = (seconds[:, None] - articles.published[rows]) / 60
    fresh = np.exp(-np.maximum(age, 0) / law.breaking_minutes)
    return life * log_life(age, articles.tau[rows], law.rise_minutes) + breaking * articles.breaking[rows] * fresh
