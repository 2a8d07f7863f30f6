"""The publisher's side: one simulated bundle, of which the first days are published and each later one is dropped.

Belongs here: drops, whole and damaged, a corrected day, and who reads when. Does not belong here: what the deployment
makes of them.
"""

import hashlib
import json
import shutil
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from ml.datasets import dataset
from ml.simulator import simulate
from tests.ml.cuts import cut
from tests.month.deployment import DATASET, Missed

BUNDLE = "tiny_weeks"
PUBLISHED_DAYS = 8
"""Days of the bundle that are there at the beginning: a day of history and a week to train on."""
SIMULATED = dataset(DATASET)
SHOWN, ARTICLES = "behaviors.parquet", "articles.parquet"
MARKER = "_COMPLETE"


def day_number(number: int) -> date:
    """The log's day `number`, from 0."""
    return SIMULATED.first_day + timedelta(days=number)


@dataclass(frozen=True, slots=True)
class Publisher:
    """`kept`: the files of each later day. `log`: the data root, with the folder where they are dropped."""

    log: Path
    kept: dict[date, Path]

    @classmethod
    def begin(cls, folder: Path, log: Path, days: int, seed: int) -> "Publisher":
        """Simulate, publish the first days to `log`, and keep the next `days` back. Frozen histories of later weeks,
        which would tell of days to come, are left out."""
        simulate(folder / "bundle", BUNDLE, seed)
        whole = folder / "whole"
        shutil.copytree(folder / "bundle" / "train", whole / "train")
        shutil.copyfile(folder / "bundle" / ARTICLES, whole / ARTICLES)
        later = [day_number(PUBLISHED_DAYS + i) for i in range(days)]
        kept = cut(whole, log, SIMULATED, later, folder / "kept")
        shutil.copytree(folder / "bundle" / "oracle", log / "oracle")
        return cls(log, kept)

    @property
    def landing(self) -> Path:
        """Where drops go."""
        return self.log / "landing"

    def drop(self, day: date, arrived: datetime) -> Path:
        """The day's files, whole under their name at once, with a marker that says what they are."""
        return self._put(day, arrived, cut_to=None)

    def drop_damaged(self, day: date, arrived: datetime) -> Path:
        """The same, but the events were cut off on their way: the marker vouches for other bytes."""
        return self._put(day, arrived, cut_to=1000)

    def withdraw(self, day: date) -> None:
        """Take a drop out of the landing folder, to deliver it again."""
        shutil.rmtree(self.landing / str(day))

    def _put(self, day: date, arrived: datetime, cut_to: int | None) -> Path:
        staged, target = self.landing / f".{day}", self.landing / str(day)
        staged.mkdir(parents=True)
        said = {}
        for path in sorted(self.kept[day].iterdir()):
            data = path.read_bytes()
            said[path.name] = {"sha256": hashlib.sha256(data).hexdigest(), "rows": pq.read_metadata(path).num_rows}
            (staged / path.name).write_bytes(data[:cut_to] if path.name == SHOWN else data)
        (staged / MARKER).write_text(json.dumps({"files": said, "arrived": arrived.isoformat()}))
        staged.rename(target)
        return target

    def corrected(self, day: date, out: Path) -> tuple[Path, int]:
        """The day without the events of its busiest reader, "a robot"; the folder and how many rows went."""
        rows = pl.read_parquet(self.kept[day] / SHOWN)
        robot = rows["user_id"].value_counts(sort=True)["user_id"][0]
        out.mkdir(parents=True)
        left = rows.filter(pl.col("user_id") != robot)
        left.write_parquet(out / SHOWN)
        return out, len(rows) - len(left)

    def newcomer(self, days: list[date]) -> tuple[date, int]:
        """Of the readers first seen on one of `days` who come back later, the one with most rows: that day, and the id.
        Raises Missed where nobody did: another seed may have one."""
        known = set(pl.read_parquet(self.log / "train" / "history.parquet")["user_id"])
        known |= set(pl.read_parquet(self.log / "train" / SHOWN)["user_id"])
        rows = pl.concat(
            [pl.read_parquet(f / SHOWN).select("user_id", pl.lit(d).alias("day")) for d, f in self.kept.items()]
        )
        seen = rows.group_by("user_id").agg(
            pl.col("day").min().alias("first"), pl.col("day").max().alias("last"), pl.len()
        )
        new = seen.filter(~pl.col("user_id").is_in(list(known)) & pl.col("first").is_in(days))
        found = new.filter(pl.col("last") > pl.col("first")).sort("len", "user_id", descending=True)
        if found.is_empty():
            raise Missed(f"no reader was first seen from {days[0]} to {days[-1]} and came back: choose another --seed")
        return found["first"][0], int(found["user_id"][0])
