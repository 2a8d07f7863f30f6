"""Words of the simulated newspaper: topics with their vocabularies, and the texts drawn from them.

Belongs here: topics, categories, vocabularies, titles and bodies. Does not belong here: which article has
which topics (`world`).
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Topic:
    """A latent topic: its category, its share of the articles, the decay time of its news, its tone and its words."""

    name: str
    category: str
    weight: float
    tau_minutes: float
    tone: float
    words: tuple[str, ...]


CATEGORIES = {
    "nyheder": 118,
    "krimi": 140,
    "sport": 142,
    "underholdning": 414,
    "forbrug": 457,
    "musik": 498,
    "privatokonomi": 512,
    "bil": 565,
    "ferie": 572,
    "sex_og_samliv": 2975,
}
"""Category names and codes, in the manner of Ekstra Bladet."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _topic(name: str, category: str, weight: float, tau_minutes: float, tone: float, words: str) -> Topic:
    return Topic(name, category, weight, tau_minutes, tone, _words(words))


TOPICS = (
    _topic(
        "politics", "nyheder", 9, 104, -0.2,
        "minister parliament election government party vote coalition leader reform budget debate opposition "
        "policy law candidate campaign prime mayor senator poll democracy cabinet ballot lawmaker resignation speech",
    ),
    _topic(
        "world", "nyheder", 8, 104, -0.7,
        "war troops missile soldiers border ceasefire invasion army drone tanks general refugees sanctions "
        "attack defence conflict embassy weapons bomb frontline rebels hostages nato allies occupation shelling",
    ),
    _topic(
        "weather", "nyheder", 5, 88, -0.1,
        "storm rain forecast temperature snow wind sunshine flood thunder heatwave clouds degrees frost "
        "hurricane lightning meteorologist drought ice hail summer humidity warm cold breeze gale showers",
    ),
    _topic(
        "health", "nyheder", 5, 160, 0.0,
        "doctor hospital patients disease virus vaccine cancer treatment nurse symptoms medicine surgery "
        "infection diabetes heart pain sleep therapy clinic allergy pregnancy fever drug blood brain diagnosis",
    ),
    _topic(
        "violence", "krimi", 7, 96, -0.9,
        "police shooting murder knife suspect stabbed arrested gang gunman victim robbery killed officers "
        "weapon detective burglary assault witness masked patrol homicide thieves violence threat shots crime",
    ),
    _topic(
        "court", "krimi", 5, 120, -0.6,
        "judge trial prison sentenced lawyer prosecutor guilty jury appeal verdict charged defendant courtroom "
        "convicted fraud testimony indictment acquitted bail fine inmate plea hearing evidence custody punishment",
    ),
    _topic(
        "football", "sport", 10, 104, 0.2,
        "goal striker coach match league penalty midfielder stadium transfer club goalkeeper defender football "
        "champions derby referee offside derby squad tackle fans season final header captain scored",
    ),
    _topic(
        "tennis", "sport", 4, 112, 0.3,
        "tennis serve racket grand slam wimbledon set tiebreak backhand forehand court clay seeded ace "
        "quarterfinal doubles volley baseline tournament ranking opponent rally umpire qualifier grass deuce",
    ),
    _topic(
        "cycling", "sport", 4, 112, 0.2,
        "cyclist stage peloton climb sprint tour jersey breakaway mountain bike rider pedals podium "
        "team helmet crash yellow uphill descent cobbles wheel race kilometres finish timetrial saddle",
    ),
    _topic(
        "television", "underholdning", 6, 176, 0.3,
        "series television host episode reality viewers show channel contestant season drama streaming finale "
        "screen presenter quiz broadcast studio jury comedy sitcom premiere cast dancing ratings audience",
    ),
    _topic(
        "royals", "underholdning", 6, 160, 0.4,
        "queen prince princess king palace royal crown wedding castle throne duchess coronation gown "
        "celebrity couple engagement influencer gala heir monarchy ceremony carriage glamour birthday baby duke",
    ),
    _topic(
        "film", "underholdning", 5, 192, 0.4,
        "film actor actress director cinema hollywood movie oscar role trailer premiere scene blockbuster "
        "script award thriller star sequel producer camera festival villain superhero character stunt plot",
    ),
    _topic(
        "music", "musik", 5, 176, 0.5,
        "concert singer album band guitar song tour stage lyrics drummer melody festival rapper vinyl "
        "chart pop rock orchestra vocalist encore hit piano tickets choir bass recording",
    ),
    _topic(
        "finance", "privatokonomi", 6, 160, -0.1,
        "bank savings inflation interest loan pension tax stocks investors money income debt economy "
        "shares prices salary market currency wallet dividend profit wealth budget insurance fees recession",
    ),
    _topic(
        "housing", "privatokonomi", 4, 208, 0.0,
        "house apartment mortgage rent landlord tenant garden roof kitchen property estate villa renovation "
        "neighbourhood buyer broker bathroom cottage basement floor heating building bricks windows terrace lease",
    ),
    _topic(
        "food", "forbrug", 4, 256, 0.5,
        "recipe chef restaurant bread cheese chocolate dinner wine kitchen vegetables meat supermarket sauce "
        "baking taste salad coffee breakfast potatoes dessert butter beer menu spices soup cake",
    ),
    _topic(
        "technology", "forbrug", 4, 208, 0.1,
        "smartphone app computer software laptop hackers internet battery robot algorithm password gadget screen "
        "data chip privacy startup download network browser camera update website wireless keyboard device",
    ),
    _topic(
        "cars", "bil", 4, 240, 0.1,
        "car engine electric driver motorway petrol vehicle brakes hybrid tyres speed diesel charging "
        "garage wheels truck traffic sedan horsepower licence gearbox parking seatbelt dealer mileage motor",
    ),
    _topic(
        "travel", "ferie", 4, 256, 0.5,
        "holiday beach hotel airport flight island passengers luggage tourists vacation resort passport airline "
        "cruise destination suitcase sunbathing trip museum guide pool booking sightseeing village harbour map",
    ),
    _topic(
        "relationships", "sex_og_samliv", 4, 272, 0.2,
        "love dating marriage partner divorce jealous romance intimacy kiss boyfriend girlfriend husband wife "
        "affair flirting breakup passion desire bedroom cheating trust attraction single therapist couple feelings",
    ),
)  # fmt: skip
"""The latent topics; `tau_minutes` is the decay time of the attraction of their articles."""

FILLER = _words(
    "the a of in for after with on now new says why how this they his her over before about more big "
    "today people will has been year first two from another many"
)
PLACES = _words("Alding Bromstad Corvik Dalum Elverup Fossby Gravne Holtmark Isager Jernved Kelstrup Lindvang")
"""Invented places of a regional newspaper."""
SENTIMENTS = ("Negative", "Neutral", "Positive")


def vocabulary() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All words; offsets int64 [K + 2] of each topic's words in them, the filler last; lengths int64 [K + 1]."""
    groups = [*(topic.words for topic in TOPICS), FILLER]
    lengths = np.array([len(group) for group in groups], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return np.array([word for group in groups for word in group]), offsets, lengths


def draw_words(topics: np.ndarray, length: np.ndarray, filler: float, rng: np.random.Generator) -> list[list[str]]:
    """`length[i]` (int [A]) words for article i: with probability `filler` a common word, otherwise a word of a topic
    drawn from the mixture `topics` (float [A, K])."""
    words, offsets, lengths = vocabulary()
    owner = np.repeat(np.arange(len(topics)), length)
    cumulative = np.cumsum(topics, axis=1)
    at = rng.random(len(owner)) * cumulative[owner, -1]
    group = np.minimum((cumulative[owner] < at[:, None]).sum(axis=1), len(TOPICS) - 1)
    group = np.where(rng.random(len(owner)) < filler, len(TOPICS), group)
    flat = words[offsets[group] + (rng.random(len(owner)) * lengths[group]).astype(np.int64)].tolist()
    ends = np.cumsum(length).tolist()
    return [flat[end - n : end] for end, n in zip(ends, length.tolist(), strict=True)]


def sentence(words: list[str], end: str) -> str:
    """Words as one sentence, capitalised, closed with `end`."""
    joined = " ".join(words)
    return joined[:1].upper() + joined[1:] + end


def paragraph(words: list[str], breaks: np.ndarray, ends: np.ndarray) -> str:
    """Words as sentences of `breaks` words (int [S], the last one takes the rest), closed with `ends` (str [S]); a
    sentence of more than seven words gets a comma."""
    parts = []
    first = 0
    for size, end in zip(breaks.tolist(), ends.tolist(), strict=True):
        piece = list(words[first : first + size])
        if not piece:
            break
        if len(piece) > 7:
            piece[3] += ","
        parts.append(sentence(piece, end))
        first += size
    return " ".join(parts)


@dataclass(frozen=True, slots=True)
class Texts:
    """Title, subtitle and body of each article, in the order of the mixtures they were drawn from."""

    title: list[str]
    subtitle: list[str]
    body: list[str]

    @classmethod
    def joined(cls, parts: "list[Texts]") -> "Texts":
        """All parts one after the other."""
        lists = ([text for part in parts for text in getattr(part, name)] for name in cls.__slots__)
        return cls(*lists)


def draw_texts(topics: np.ndarray, place: np.ndarray, rng: np.random.Generator) -> Texts:
    """Texts for the mixtures `topics` (float [A, K]): titles of 4-9 words, subtitles of 8-14, bodies of about 40. Where
    `place` (int [A], row of PLACES, -1 none) is known, subtitle and body begin with its name."""
    count = len(topics)
    titles = draw_words(topics, rng.integers(4, 10, count), 0.25, rng)
    subtitles = draw_words(topics, rng.integers(8, 15, count), 0.4, rng)
    bodies = draw_words(topics, rng.integers(30, 51, count), 0.45, rng)
    for words in (subtitles, bodies):
        for i in np.flatnonzero(place >= 0):
            words[i][0] = PLACES[place[i]]
    breaks = rng.integers(6, 13, (count, 9))
    ends = np.array([".", ".", ".", ".", ".", ".", "!", "?"])[rng.integers(0, 8, (count, 9))]
    return Texts(
        [sentence(words, "") for words in titles],
        [sentence(words, ".") for words in subtitles],
        [paragraph(words, breaks[i], ends[i]) for i, words in enumerate(bodies)],
    )
