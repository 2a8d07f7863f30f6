"""The parts of the month that its own run would not betray: the scheduler's clock, and what follows from what."""

from datetime import UTC, date, datetime
from types import SimpleNamespace

import dagster._daemon.daemon  # noqa: F401 the scheduler cannot be imported before it
import pytest
from dagster._scheduler import scheduler

from ml.datasets import dataset
from resources.ref import Ref
from tests.month.calendar import Calendar
from tests.month.daemon import give_calendar
from tests.month.lake import Snapshot
from tests.month.page import BACKFILL, write_backfill, write_month
from tests.resources.lineage_help import DATASET, DAY, PARTITION, publish, small_lake

NAMES = ("get_current_datetime", "get_current_timestamp", "_get_next_scheduler_iteration_time")
MORNING = datetime(2023, 5, 5, 7, 30, tzinfo=UTC)


def test_dagsters_scheduler_reads_the_calendar_and_refuses_another_dagster(tmp_path):
    calendar = Calendar(tmp_path / "calendar", dataset("simulated").clock)
    calendar.move(MORNING)
    standing = SimpleNamespace(**{name: getattr(scheduler, name) for name in NAMES})
    give_calendar(standing, calendar.file)
    assert standing.get_current_datetime() == MORNING and standing.get_current_timestamp() == MORNING.timestamp()
    calendar.move(calendar.night(date(2023, 5, 4)))
    assert standing.get_current_datetime() == datetime(2023, 5, 6, 1, 0, tzinfo=UTC), "03:00 in Copenhagen"
    assert standing._get_next_scheduler_iteration_time(5.0) == 6.0
    with pytest.raises(SystemExit, match="must be looked at"):
        give_calendar(SimpleNamespace(), calendar.file)


def test_the_calendar_goes_forward_only_and_drops_come_before_their_night(tmp_path):
    calendar = Calendar(tmp_path / "calendar", dataset("simulated").clock)
    day = date(2023, 5, 4)
    assert calendar.clock.end(day) < calendar.arrival(day).timestamp() * 1000
    assert calendar.arrival(day) < calendar.night(day)
    calendar.move(calendar.night(day))
    with pytest.raises(ValueError, match="cannot go back"):
        calendar.move(calendar.arrival(day))


def test_downstream_is_what_was_made_from_a_partition_and_no_more(tmp_path):
    lake = small_lake(tmp_path / "lake")
    before = Snapshot.of(lake.root)
    found = {str(r).removeprefix(f"{DATASET}/") for r in before.downstream(Ref(DATASET, "raw_parquet", "2023-05-16"))}
    models = ("popular_15", "snert")
    assert found == {
        *(f"{stage}/2023-05-16" for stage in ("raw_parquet", "clicks")),
        f"interactions/{DAY}",
        f"checkpoint/snert/{PARTITION}",
        *(f"{s}/{m}/{PARTITION}" for m in models for s in ("predictions", "evaluation_rq1", "evaluation_rq2")),
        f"evaluation_report/{PARTITION}",
    }
    ref = Ref(DATASET, "clicks", "2023-05-17")
    assert Snapshot.of(lake.root).published_since(before) == set()
    publish(lake, ref, {"clicks.bin": "other"}, [], record={"asked_by": "nightly 1"})
    after = Snapshot.of(lake.root)
    assert after.published_since(before) == {ref} and after.made_by("nightly 1") == 1
    assert {r for r, c in after.contents().items() if c != before.contents()[r]} == {str(ref)}


def test_month_and_backfill_write_their_own_part_of_the_page(tmp_path):
    page = tmp_path / "month.md"
    write_backfill(page, "old weeks\n")
    write_month(page, "nights\n")
    write_backfill(page, "new weeks\n")
    text = page.read_text()
    assert text.startswith("# A month of operation") and "nights" in text
    assert text.endswith(f"{BACKFILL}\n\nnew weeks\n") and "old weeks" not in text
