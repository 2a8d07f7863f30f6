"""What removes things reaches the bucket too: erasing a reader, gc. What lies beside the versions comes along."""

import io
import re
import secrets
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ml.errors import LakeError
from resources.bucket.care import sweep
from resources.bucket.store import BucketAway, BucketError, Store
from resources.champion import Champions, Title
from resources.disk.collect import Policy, collect, sweep_bucket
from resources.disk.reach import keep
from resources.erasure.book import Book
from resources.erasure.erase import resume
from resources.lake import Lake, Ref
from resources.lineage.archive import read_partition
from tests.resources.deliveries import EBNERD, drop, impressions, log, mark
from tests.resources.lake_help import publish_text
from tests.resources.s3_help import Server, fail_fast, machine, serving
from tests.resources.test_bucket import REF, bucket_is_tidy, text_of, tree
from tests.resources.test_erasure import NOW, OTHER, READER, assert_gone, broken, do, world
from tests.resources.test_erasure_deliveries import BOTH
from tests.resources.test_erasure_deliveries import do as erase_delivered


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def s3(running: Server) -> Server:
    running.empty()
    return running


def readers_in_bucket(s3: Server) -> set[object]:
    """Every reader in any object, read without the code under test; text as a whole."""
    found: set[object] = set()
    for key, data in s3.objects().items():
        if key.endswith(".parquet"):
            for name, values in pq.read_table(io.BytesIO(data)).to_pydict().items():
                if name in ("user_id", "row"):
                    found |= {READER if f'"user_id": {READER}' in str(v) or "torn" in str(v) else v for v in values}
        elif re.search(rb"(?<![0-9a-f])%d(?![0-9a-f])" % READER, data):
            found.add(READER)
    return found


def bound_world(root: Path) -> Lake:
    machine(root)
    return world(root)


def test_an_erased_reader_is_gone_from_the_bucket_and_from_other_machines(tmp_path: Path, s3: Server) -> None:
    lake = bound_world(tmp_path / "one")
    other = machine(tmp_path / "two")
    assert {READER, OTHER} <= readers_in_bucket(s3)
    answer = do(lake)
    assert answer["rows"]["raw_parquet"] == 3 + 4
    assert READER not in readers_in_bucket(s3) and OTHER in readers_in_bucket(s3)
    other.catch_up()
    for made in (lake, other, machine(tmp_path / "three")):
        assert_gone(made.root)
        assert broken(made) == []
    assert tree(other).keys() == tree(lake).keys() - {".erasures/key", ".erasures/lock"}
    bucket_is_tidy(s3)


@pytest.mark.slow
def test_the_key_stays_and_a_machine_without_it_refuses(tmp_path: Path, s3: Server) -> None:
    lake = bound_world(tmp_path / "one")
    do(lake)
    key = (lake.root / ".erasures/key").read_bytes()
    assert not any(key in data or k.endswith("/key") for k, data in s3.objects().items())
    other = machine(tmp_path / "two")
    assert [r.done for r in Book(other.root, "simulated").requests()] == [True]
    for dataset in ("simulated", "globo"):
        with pytest.raises(LakeError, match="key is missing: restore it from a backup"):
            Book(other.root, dataset).ask(1, "", "me", NOW)


@pytest.mark.slow
def test_killed_uploads_of_a_machine_that_never_came_back_hold_no_reader_after_an_erasure(
    tmp_path: Path, s3: Server
) -> None:
    lake = bound_world(tmp_path / "one")
    left = f"lake/objects/simulated/clicks/2023-05-17/{secrets.token_hex(8)}/x/clicks.parquet"
    other_dataset = f"lake/objects/globo/clicks/2017-10-01/{secrets.token_hex(8)}/x/clicks.parquet"
    rows = next(d for k, d in s3.objects().items() if k.endswith("clicks.parquet") and "raw_parquet" in k)
    for key in (left, other_dataset):
        s3.client.put_object(Bucket="news", Key=key, Body=rows)
    part = s3.client.create_multipart_upload(Bucket="news", Key=left + "2")
    s3.client.upload_part(Bucket="news", Key=left + "2", PartNumber=1, UploadId=part["UploadId"], Body=rows)
    do(lake)
    assert left not in s3.objects() and other_dataset in s3.objects()
    assert not s3.client.list_multipart_uploads(Bucket="news").get("Uploads")


@pytest.mark.slow
def test_an_erasure_that_the_bucket_interrupts_is_not_done_and_goes_on(tmp_path: Path, s3: Server, monkeypatch) -> None:
    lake = bound_world(tmp_path / "one")
    fail_fast(monkeypatch)
    original, left = Store.delete, [2]

    def away(self: Store, keys: object) -> None:
        keys = set(keys)
        left[0] -= bool(keys)
        if left[0] < 0:
            raise BucketAway("s3://news/lake: the bucket is away: run again later")
        original(self, keys)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "delete", away)
        with pytest.raises(BucketAway):
            do(lake)
    assert READER in readers_in_bucket(s3)
    assert [r.done for r in Book(lake.root, "simulated").requests()] == [False]
    resume(lake, "simulated", "me", NOW, lambda _: None)
    assert READER not in readers_in_bucket(s3)
    assert [r.done for r in Book(lake.root, "simulated").requests()] == [True]
    bucket_is_tidy(s3)


def test_a_bucket_that_keeps_old_versions_stops_an_erasure_before_it_begins(tmp_path: Path, s3: Server) -> None:
    lake = bound_world(tmp_path / "one")
    s3.client.put_bucket_versioning(Bucket="news", VersioningConfiguration={"Status": "Enabled"})
    try:
        with pytest.raises(BucketError, match="nothing could be erased"):
            do(lake)
    finally:
        s3.client.delete_object(Bucket="news", Key="lake/probe")
        for item in s3.client.list_object_versions(Bucket="news").get("Versions", []):
            s3.client.delete_object(Bucket="news", Key=item["Key"], VersionId=item["VersionId"])
        for item in s3.client.list_object_versions(Bucket="news").get("DeleteMarkers", []):
            s3.client.delete_object(Bucket="news", Key=item["Key"], VersionId=item["VersionId"])
        s3.client.delete_bucket(Bucket="news")
        s3.client.create_bucket(Bucket="news")
    assert Book(lake.root, "simulated").requests() == []


@pytest.mark.slow
def test_kept_drops_come_along_and_are_rewritten(tmp_path: Path, s3: Server) -> None:
    machine(tmp_path / "lake")
    source = log(tmp_path)
    mark(drop(tmp_path, "2023-05-21", BOTH))
    source.take(EBNERD, "me")
    assert any(".landing" in key for key in s3.objects())
    erase_delivered(tmp_path / "lake")
    found = [pq.read_table(io.BytesIO(d)) for k, d in s3.objects().items() if k.endswith("behaviors.parquet")]
    assert found and all(3 not in t.column("user_id").to_pylist() for t in found)
    other = machine(tmp_path / "elsewhere/lake")
    (tmp_path / "elsewhere/log").symlink_to(tmp_path / "log")
    with pytest.raises(LakeError, match="key is missing"):
        log(tmp_path / "elsewhere").days(EBNERD)
    shutil.copyfile(tmp_path / "lake/.erasures/key", other.root / ".erasures/key")
    assert impressions(log(tmp_path / "elsewhere"), "2023-05-21") == [12]
    assert (other.root / ".landing/ebnerd").is_dir()


def test_what_gc_removes_goes_from_the_bucket_and_from_other_machines(tmp_path: Path, s3: Server) -> None:
    one, two = machine(tmp_path / "one"), machine(tmp_path / "two")
    marked, old, _ = (publish_text(one, REF, text) for text in ("kept", "old", "new"))
    keep(one.root, REF, marked.path.name, "for the record", "me", "now")
    two.catch_up()
    assert (two.folder(REF) / old.path.name).is_dir()
    made = collect(one, Policy(days=0, versions=0), datetime.now(UTC) + timedelta(seconds=1), "me")
    assert [v.name for v in made.victims] == [old.path.name]
    assert not any(old.path.name in key for key in s3.objects())
    two.catch_up()
    assert not (two.folder(REF) / old.path.name).exists()
    assert (two.folder(REF) / marked.path.name).is_dir() and text_of(two) == "new"
    assert tree(one) == tree(two)
    assert read_partition(two.root, REF).findings == []
    bucket_is_tidy(s3)


def test_leftovers_are_swept_when_they_are_old(tmp_path: Path, s3: Server) -> None:
    lake = machine(tmp_path / "one")
    publish_text(lake, REF, "a")
    left = f"lake/objects/{REF}/{secrets.token_hex(8)}/x"
    s3.client.put_object(Bucket="news", Key=left, Body=b"x")
    assert sweep_bucket(lake) == 0 and left in s3.objects(), "an upload may be under way"
    with lake.publishing():
        assert sweep(lake.mirror, age=-timedelta(days=1)) == 1
    bucket_is_tidy(s3)
    assert sweep_bucket(Lake(tmp_path / "plain")) == 0


def test_champions_are_known_everywhere_and_two_acts_at_once_are_refused(
    tmp_path: Path, s3: Server, monkeypatch
) -> None:
    model = Ref("simulated", "checkpoint", "2023-05-18.rolling", "snert")
    one = machine(tmp_path / "one")
    title = Title.of(publish_text(one, model, "weights"))
    two = machine(tmp_path / "two")
    Champions(one, "simulated", "snert", "rolling").promote(title, "me", "first")
    two.catch_up()
    theirs = Champions(two, "simulated", "snert", "rolling")
    assert theirs.current() == title
    original = Store.put_whole

    def overtaken(self: Store, key: str, data: bytes, etag: str) -> str:
        if "champion" in key:
            monkeypatch.setattr(Store, "put_whole", original)
            Champions(one, "simulated", "snert", "rolling").settle(
                title, title, False, "me", "at the same moment", "d" * 64
            )
        return original(self, key, data, etag)

    monkeypatch.setattr(Store, "put_whole", overtaken)
    with pytest.raises(BucketError, match=r"another machine has written it at the same moment: run the same command"):
        theirs.settle(title, title, False, "you", "why", "e" * 64)
    two.catch_up()
    assert [a.why for a in theirs.acts()] == ["first", "at the same moment"]
    theirs.settle(title, title, False, "you", "why", "e" * 64)
    one.catch_up()
    assert len(Champions(one, "simulated", "snert", "rolling").acts()) == 3
