"""Sessions, compiled: what one reader sees, clicks and reads within a block of minutes.

Belongs here: the draws of a session (docs/simulator.md, sections 3 to 5). Does not belong here: the front page
(`page`), which sessions there are (`play`).

Every random number is a function of (seed, session, impression, place in the sequence) alone, and a reader has one
session at a time (`play` sees to it). So sessions may be played in any order, by any number of threads, with the same
outcome.
"""

from typing import NamedTuple

import numba as nb
import numpy as np

from ml.hashing import mix
from ml.simulator.config import MAX_INVIEW, REMEMBERED
from ml.simulator.page import Page

ROUND = 4
"""Impressions of a session that one call plays at most."""
DRAWS = 256
"""Random numbers set apart for each impression."""

EVENT = np.dtype(
    [
        ("time", np.int64),
        ("start", np.int64),
        ("session", np.int64),
        ("user", np.int32),
        ("page", np.int32),
        ("step", np.int32),
        ("read", np.float32),
        ("scroll", np.float32),
        ("mood", np.int8),
        ("device", np.int8),
    ],
    align=True,
)
"""An impression to come: `time` and `start` of its session in seconds, reader row, the article page that it appears on
(`page` -1: the front page) with that page's reading time and scroll depth; `step` counts the session's impressions."""


class Library(NamedTuple):
    """All articles as the kernel needs them; `of_topic` int32 [A]: rows by main topic, each topic's in order of
    publication; those of topic k that are published begin at `topic_first[k]` and are `topic_known[k]` many."""

    published: np.ndarray
    quality: np.ndarray
    tau: np.ndarray
    premium: np.ndarray
    topics: np.ndarray
    topic: np.ndarray
    place: np.ndarray
    of_topic: np.ndarray
    topic_first: np.ndarray
    topic_known: np.ndarray


class Audience(NamedTuple):
    """The readers: interests float32 [N, K]; the REMEMBERED articles that they read last, int32 [N, REMEMBERED], and
    how many they have read in all, `reads` int32 [N]."""

    interests: np.ndarray
    subscriber: np.ndarray
    home: np.ndarray
    read: np.ndarray
    reads: np.ndarray


class Law(NamedTuple):
    """Constants of `config.Behaviour` that the kernel uses, by the same names."""

    session_mood: float
    exposure_match: float
    exposure_local: float
    inview_median: float
    related: int
    click_quality: float
    click_life: float
    click_match: float
    click_local: float
    life_floor: float
    premium_locked: float
    premium_open: float
    read_before: float
    second_click: float
    next_click: float
    below_article: float
    session_seconds: int


class Played(NamedTuple):
    """Room for what is played, ROUND places a session, `used` int32 [S] of them; the other columns as in
    `play.DayLog`, [S * ROUND] or [S * ROUND, width]; `alive` bool [S]: the session goes on."""

    used: np.ndarray
    alive: np.ndarray
    event: np.ndarray
    rows: np.ndarray
    probability: np.ndarray
    clicked: np.ndarray
    read: np.ndarray
    scroll: np.ndarray
    browse: np.ndarray


@nb.njit(cache=True)
def _uniform(key: np.uint64, n: int) -> float:
    """Draw `n` of the sequence `key`, in (0, 1)."""
    bits = mix(key + np.uint64(n) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(12)
    return (np.float64(bits) + 0.5) * 2.0**-52


@nb.njit(cache=True)
def _normal(key: np.uint64, n: int) -> float:
    """A standard normal draw from draws `n` and `n + 1` (Box and Muller)."""
    return np.sqrt(-2.0 * np.log(_uniform(key, n))) * np.cos(6.283185307179586 * _uniform(key, n + 1))


@nb.njit(cache=True)
def _find(cumulative: np.ndarray, size: int, value: float) -> int:
    """First place below `size` whose cumulative weight exceeds `value`."""
    low, high = 0, size - 1
    while low < high:
        middle = (low + high) >> 1
        if cumulative[middle] > value:
            high = middle
        else:
            low = middle + 1
    return low


@nb.njit(cache=True)
def _fill(chosen: np.ndarray, wanted: int, cumulative: np.ndarray, size: int, key: np.uint64) -> int:
    """Draws up to `wanted` places without replacement by weight: one after the other, each anew until it is new. Uses
    draws 16 to 143. Returns how many were found: fewer where the weights are almost all on what is chosen."""
    found, tries, total = 0, 0, cumulative[size - 1]
    while found < wanted and tries < 128:
        at = _find(cumulative, size, total * _uniform(key, 16 + tries))
        tries += 1
        new = True
        for j in range(found):
            if chosen[j] == at:
                new = False
                break
        if new:
            chosen[found] = at
            found += 1
    return found


@nb.njit(cache=True)
def _related(rows: np.ndarray, found: int, wanted: int, page: int, library: Library, key: np.uint64) -> int:
    """Adds up to `wanted` articles of the main topic of article `page` to the `found` ones of `rows`; draws 144 on."""
    topic = library.topic[page]
    known, tries, end = library.topic_known[topic], 0, found + wanted
    while found < end and tries < 2 * wanted and known > 0:
        row = library.of_topic[library.topic_first[topic] + int(known * _uniform(key, 144 + tries))]
        tries += 1
        new = row != page
        for j in range(found):
            if rows[j] == row:
                new = False
        if new:
            rows[found] = row
            found += 1
    return found


@nb.njit(cache=True)
def _match(wanted: np.ndarray, library: Library, row: int) -> float:
    """How well article `row` fits what is wanted."""
    total = np.float32(0)
    for k in range(len(wanted)):
        total += wanted[k] * library.topics[row, k]
    return float(total)


@nb.njit(cache=True)
def _old(wanted: np.ndarray, library: Library, row: int, home: int, time: int, law: Law) -> float:
    """Utility of an article that is not on the page, without price and memory."""
    life = max(-law.click_life * (time - library.published[row]) / 60.0 / library.tau[row], law.life_floor)
    local = law.click_local if library.place[row] == home else 0.0
    return law.click_quality * library.quality[row] + life + law.click_match * _match(wanted, library, row) + local


@nb.njit(cache=True)
def _reading(match: float, quality: float, key: np.uint64) -> tuple[float, float]:
    """Reading time (whole seconds) and scroll depth (percent, NaN where not measured); draws 200 to 204."""
    read = min(max(np.rint(np.exp(np.log(16.0) + 1.6 * match + 0.25 * quality + 0.9 * _normal(key, 200))), 1.0), 900.0)
    if _uniform(key, 204) < 0.15:
        return read, np.nan
    depth = 100.0 * -np.expm1(-read / 30.0) + 18.0 * _normal(key, 202)
    return read, min(max(np.rint(depth), 0.0), 100.0)


@nb.njit(cache=True)
def _pick(weight: np.ndarray, size: int, total: float, skip: int, u: float) -> int:
    """One of `size` places other than `skip`, by weight; `total` is the weight of all others."""
    left, last = u * total, 0
    for j in range(size):
        if j != skip:
            last = j
            left -= weight[j]
            if left < 0:
                break
    return last


@nb.njit(cache=True)
def _remember(audience: Audience, user: int, row: int) -> None:
    audience.read[user, audience.reads[user] % REMEMBERED] = row
    audience.reads[user] += 1


@nb.njit(cache=True)
def _has_read(audience: Audience, user: int, row: int) -> bool:
    known, j = min(audience.reads[user], REMEMBERED), 0
    while j < known and audience.read[user, j] != row:
        j += 1
    return j < known


@nb.njit(nogil=True, cache=True)
def play(
    first: int,
    last: int,
    state: np.ndarray,
    begin: int,
    end: int,
    seed: np.uint64,
    page: Page,
    library: Library,
    audience: Audience,
    law: Law,
    out: Played,
) -> None:
    """Plays sessions `first`..`last` of `state` (EVENT [S], left at their next impressions) up to second `end` of the
    block that starts at `begin`, ROUND impressions at most."""
    size, topics = len(page.rows), page.topics.shape[0]
    wanted = np.empty(topics, np.float32)
    match, taste, cumulative = np.empty(size, np.float32), np.empty(size, np.float32), np.empty(size, np.float64)
    chosen, rows = np.empty(MAX_INVIEW, np.int64), np.empty(MAX_INVIEW, np.int32)
    utility, liking = np.empty(MAX_INVIEW, np.float64), np.empty(MAX_INVIEW, np.float64)
    for s in range(first, last):
        event = state[s]
        out.used[s], out.alive[s] = 0, True
        user = event.user
        home = audience.home[user]
        price = law.premium_open if audience.subscriber[user] else law.premium_locked
        _taste(event.mood, user, home, page, audience, law, wanted, match, taste)
        while out.alive[s] and event.time < end and out.used[s] < ROUND:
            key = mix(seed ^ mix(np.uint64(event.session) * np.uint64(1024) + np.uint64(event.step)))
            minute = (event.time - begin) // 60
            total = 0.0
            for p in range(size):
                total += page.exposure[minute, p] * taste[p]
                cumulative[p] = total
            length = int(np.rint(np.exp(np.log(law.inview_median) + 0.4 * _normal(key, 0))))
            length = min(max(length, 5), MAX_INVIEW)
            beside = min(law.related, length // 2) if event.page >= 0 else 0
            shown = _fill(chosen, min(length - beside, size), cumulative, size, key)
            for j in range(shown):
                p = chosen[j]
                rows[j] = page.rows[p]
                liking[j] = match[p]
                local = law.click_local if page.place[p] == home else 0.0
                utility[j] = page.utility[minute, p] + law.click_match * match[p] + local
            length = _related(rows, shown, beside, event.page, library, key) if beside > 0 else shown
            for j in range(shown, length):
                liking[j] = _match(wanted, library, rows[j])
                utility[j] = _old(wanted, library, rows[j], home, event.time, law)
            for j in range(length):
                utility[j] += price * library.premium[rows[j]]
                if _has_read(audience, user, rows[j]):
                    utility[j] += law.read_before
            for j in range(length - 1, 0, -1):
                other = int((j + 1) * _uniform(key, 210 + j))
                rows[j], rows[other] = rows[other], rows[j]
                utility[j], utility[other] = utility[other], utility[j]
                liking[j], liking[other] = liking[other], liking[j]
            _impression(s, event, user, rows, utility, liking, length, library, audience, law, key, out)


@nb.njit(cache=True)
def _taste(
    mood: int,
    user: int,
    home: int,
    page: Page,
    audience: Audience,
    law: Law,
    wanted: np.ndarray,
    match: np.ndarray,
    taste: np.ndarray,
) -> None:
    """Fills what the session's reader wants [K], how well the page's articles match [P], and the weight with which the
    reader comes upon them [P]."""
    for k in range(len(wanted)):
        wanted[k] = np.float32(1 - law.session_mood) * audience.interests[user, k]
    wanted[mood] += np.float32(law.session_mood)
    match[:] = 0
    for k in range(len(wanted)):
        weight = wanted[k]
        if weight > 1e-4:
            for p in range(len(match)):
                match[p] += weight * page.topics[k, p]
    steep = np.float32(law.exposure_match)
    for p in range(len(match)):
        taste[p] = np.exp(steep * match[p])
    if law.exposure_local != 0:
        near = np.float32(np.exp(law.exposure_local))
        for p in range(len(match)):
            if page.place[p] == home:
                taste[p] *= near


@nb.njit(cache=True)
def _impression(
    s: int,
    event: np.record,
    user: int,
    rows: np.ndarray,
    utility: np.ndarray,
    liking: np.ndarray,
    length: int,
    library: Library,
    audience: Audience,
    law: Law,
    key: np.uint64,
    out: Played,
) -> None:
    """Draws the click of a list and its reading, writes both, and moves `event` to the session's next impression."""
    at = s * ROUND + out.used[s]
    best, total = utility[:length].max(), 0.0
    for j in range(length):
        utility[j] = np.exp(utility[j] - best)
        total += utility[j]
    for j in range(MAX_INVIEW):
        out.rows[at, j] = rows[j] if j < length else -1
        out.probability[at, j] = utility[j] / total if j < length else 0.0
    place = _pick(utility, length, total, -1, _uniform(key, 2))
    row = rows[place]
    out.clicked[at, 0], out.clicked[at, 1] = row, -1
    _remember(audience, user, row)
    if length > 1 and _uniform(key, 3) < law.second_click:
        second = rows[_pick(utility, length, total - utility[place], place, _uniform(key, 4))]
        out.clicked[at, 1] = second
        _remember(audience, user, second)
    read, scroll = _reading(liking[place], library.quality[row], key)
    browse = min(max(np.rint(np.exp(2.6 + 0.7 * _normal(key, 5))), 1.0), 300.0)
    out.event[at] = event
    out.read[at], out.scroll[at], out.browse[at] = read, scroll, browse
    out.used[s] += 1
    event.time += int(browse + read) + 1 + int(9 * _uniform(key, 7))
    event.page = row if _uniform(key, 8) < law.below_article else -1
    event.read, event.scroll = read, scroll
    event.step += 1
    out.alive[s] = _uniform(key, 9) < law.next_click and event.time - event.start < law.session_seconds
