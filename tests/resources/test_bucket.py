"""The lake in a bucket, against a real S3 server: old or new and never a mixture, whatever dies in between."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ml.errors import LakeError, TransientError, UsageError
from resources.bucket import store as stores
from resources.bucket.store import BucketAway, BucketError, Overtaken, Store
from resources.lake import Lake, Ref
from resources.lineage.archive import read_partition
from resources.transient import is_transient
from tests.resources.lake_help import publish_text
from tests.resources.s3_help import ADDRESS, Server, fail_fast, first_command, forget_clients, machine, serving

REF = Ref("simulated", "clicks", "2023-05-18")
OTHER = Ref("simulated", "checkpoint", "2023-05-18.rolling", "snert")


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def s3(running: Server) -> Server:
    running.empty()
    return running


def text_of(lake: Lake, ref: Ref = REF) -> str:
    return lake.require(ref).file("a.txt").read_text()


def tree(lake: Lake) -> dict[str, bytes]:
    """All that another machine should have, by path."""
    found = {p.relative_to(lake.root).as_posix(): p for p in lake.root.rglob("*") if p.is_file()}
    hidden = (".bucket/", ".locks/", ".staging/")
    return {name: p.read_bytes() for name, p in found.items() if not name.startswith(hidden)}


def assert_sound(lake: Lake) -> None:
    for ref in (REF, OTHER):
        partition = read_partition(lake.root, ref)
        assert partition.findings == []
        assert lake.current(ref) is None or lake.verify(lake.require(ref)) == []


def bucket_is_tidy(s3: Server) -> None:
    """Every object is named by a head, and every head's objects are there with its sha256."""
    import hashlib

    objects = {key.removeprefix("lake/"): data for key, data in s3.objects().items()}
    named = {}
    for key, data in objects.items():
        if key.startswith("heads/"):
            named |= {e["key"]: e["sha256"] for e in json.loads(data)["files"].values()}
    stored = {k: hashlib.sha256(v).hexdigest() for k, v in objects.items() if k.startswith("objects/")}
    assert stored == named


def test_a_fresh_machine_gets_what_another_has_published(tmp_path: Path, s3: Server) -> None:
    one = machine(tmp_path / "one")
    publish_text(one, REF, "a")
    publish_text(one, OTHER, "model", inputs=[one.require(REF)])
    two = machine(tmp_path / "two")
    assert text_of(two) == "a"
    assert tree(two) == tree(one)
    assert_sound(two)
    publish_text(two, REF, "b")
    assert text_of(one) == "a"
    one.catch_up()
    assert text_of(one) == "b"
    assert tree(two) == tree(one)
    bucket_is_tidy(s3)
    assert two.require(OTHER).file("a.txt").stat().st_mode & 0o222 == 0


def test_a_lake_that_has_been_used_is_given_to_an_empty_bucket(tmp_path: Path, s3: Server) -> None:
    lake = Lake(tmp_path / "one")
    publish_text(lake, REF, "a")
    publish_text(lake, REF, "b")
    first_command(tmp_path / "one")
    assert tree(machine(tmp_path / "two")) == tree(lake)


def test_two_lakes_that_were_never_one_are_not_mixed(tmp_path: Path, s3: Server) -> None:
    publish_text(first_command(tmp_path / "one"), REF, "a")
    assert text_of(first_command(tmp_path / "three")) == "a"
    publish_text(Lake(tmp_path / "two"), REF, "b")
    with pytest.raises(UsageError, match=r"both hold a lake and were never one"):
        first_command(tmp_path / "two")
    assert text_of(Lake(tmp_path / "two")) == "b"


def test_the_note_in_the_lake_counts_without_the_environment(tmp_path: Path, s3: Server, monkeypatch) -> None:
    first_command(tmp_path / "one")
    publish_text(Lake(tmp_path / "one"), REF, "a")
    assert text_of(machine(tmp_path / "two")) == "a"
    monkeypatch.setenv("NEWSREC_LAKE", str(tmp_path / "one"))
    monkeypatch.setenv("NEWSREC_BUCKET", "s3://news/other")
    with pytest.raises(UsageError, match="belongs to s3://news/lake"):
        Lake(tmp_path / "one").catch_up()
    monkeypatch.setenv("NEWSREC_BUCKET", "bucket")
    with pytest.raises(UsageError, match="write s3://BUCKET"):
        Lake(tmp_path / "one").catch_up()


def test_two_writers_of_one_partition_both_end_well(tmp_path: Path, s3: Server, monkeypatch) -> None:
    """The other machine publishes after this one has looked and before it puts its head, twice."""
    one, two = machine(tmp_path / "one"), machine(tmp_path / "two")
    publish_text(one, REF, "first")
    two.catch_up()
    rivals = iter(["rival 1", "rival 2"])
    original = Store.put_whole

    def overtaken(self: Store, key: str, data: bytes, etag: str) -> str:
        text = next(rivals, None)
        if text is not None:
            with monkeypatch.context() as patch:
                patch.setattr(Store, "put_whole", original)
                publish_text(two, REF, text)
        return original(self, key, data, etag)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "put_whole", overtaken)
        publish_text(one, REF, "mine")
    two.catch_up()
    for lake in (one, two, machine(tmp_path / "three")):
        assert text_of(lake) == "mine"
        said = [e.record["run"]["run"] for e in lake.history(REF)]
        assert said == ["first", "rival 1", "rival 2", "mine"]
        assert_sound(lake)
    bucket_is_tidy(s3)


def test_who_is_overtaken_all_the_time_gives_up_in_one_line(tmp_path: Path, s3: Server, monkeypatch) -> None:
    lake = machine(tmp_path / "one")

    def always(*_: object) -> str:
        raise Overtaken("heads/x.json: another machine has written it")

    monkeypatch.setattr(Store, "put_whole", always)
    with pytest.raises(TransientError, match="another machine"):
        publish_text(lake, REF, "a")


CALLS = ("get", "put_whole", "upload", "delete", "list")


def publish_and_die(root: Path, stop: int, after: bool) -> bool:
    """Publish in a child that is killed before or after its `stop`-th request; whether it was killed."""
    pid = os.fork()
    if pid == 0:
        with suppress(BaseException):
            forget_clients()
            calls = 0

            def counted(original):
                def call(*given, **keywords):
                    nonlocal calls
                    calls += 1
                    mine = calls == stop
                    if mine and not after:
                        os.kill(os.getpid(), signal.SIGKILL)
                    answer = original(*given, **keywords)
                    if mine:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return answer

                return call

            for name in CALLS:
                setattr(Store, name, counted(getattr(Store, name)))
            publish_text(Lake(root), REF, "new")
            os._exit(0)
        os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) in (0, -signal.SIGKILL)
    return os.waitstatus_to_exitcode(status) != 0


@pytest.mark.parametrize("after", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_killed_at_any_request_readers_see_the_old_or_the_new_version(tmp_path: Path, s3: Server, after: bool) -> None:
    seen = set()
    for stop in range(1, 40):
        s3.empty()
        home = tmp_path / str(stop)
        writer = machine(home / "writer")
        publish_text(writer, REF, "old")
        killed = publish_and_die(writer.root, stop, after)
        reader = machine(home / "reader")
        seen.add(text_of(reader))
        assert_sound(reader)
        publish_text(writer, REF, "new")
        reader.catch_up()
        assert text_of(reader) == "new"
        assert_sound(reader)
        assert tree(reader) == tree(writer)
        bucket_is_tidy(s3)
        if not killed:
            break
    assert seen == {"old", "new"}
    assert 5 < stop < 39


def test_killed_while_another_machine_publishes_the_other_counts(tmp_path: Path, s3: Server, monkeypatch) -> None:
    one, two = machine(tmp_path / "one"), machine(tmp_path / "two")
    publish_text(one, REF, "old")
    with monkeypatch.context() as patch:
        patch.setattr(Store, "put_whole", lambda *_: os.abort_now())  # type: ignore[attr-defined]
        with pytest.raises(AttributeError):
            publish_text(one, REF, "lost")
    assert text_of(one) == "lost"
    publish_text(two, REF, "theirs")
    one.catch_up()
    assert text_of(one) == "theirs"
    assert [e.record["run"]["run"] for e in one.history(REF)] == ["old", "theirs"]
    publish_text(one, REF, "lost")
    two.catch_up()
    assert text_of(two) == "lost"
    assert_sound(two)


def test_a_server_that_is_away_is_transient_and_the_next_try_gives_what_was_made(
    tmp_path: Path, s3: Server, monkeypatch
) -> None:
    lake = machine(tmp_path / "one")
    publish_text(lake, REF, "old")
    fail_fast(monkeypatch)
    s3.stop()
    try:
        with pytest.raises(
            BucketAway, match=r"^s3://news/lake/heads/: the bucket is away \(.*\): run again later$"
        ) as e:
            publish_text(lake, REF, "new")
    finally:
        s3.start()
    assert is_transient(e.value)
    assert text_of(lake) == "old"

    def dies(*_: object) -> None:
        s3.stop()

    original = Store.upload
    with monkeypatch.context() as patch:
        patch.setattr(Store, "upload", lambda *given: (dies(), original(*given))[1])
        with pytest.raises(BucketAway):
            publish_text(lake, REF, "new")
    s3.start()
    assert text_of(machine(tmp_path / "two")) == "old"
    lake.catch_up()
    assert text_of(machine(tmp_path / "three")) == "new"
    bucket_is_tidy(s3)


def test_one_failure_of_the_server_is_tried_again_by_itself(tmp_path: Path, s3: Server) -> None:
    """The client asks again after a refused answer: no error at all."""
    lake = machine(tmp_path / "one")
    from moto.s3.responses import S3Response

    original, refused = S3Response.put_object, []

    def once(self: S3Response):
        if not refused:
            refused.append(self)
            return 503, {}, "<Error><Code>SlowDown</Code></Error>"
        return original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(S3Response, "put_object", once)
        publish_text(lake, REF, "a")
    assert refused
    assert text_of(machine(tmp_path / "two")) == "a"


def test_changed_bytes_in_the_bucket_are_refused_and_repaired(tmp_path: Path, s3: Server) -> None:
    from resources.bucket.care import repair

    one = machine(tmp_path / "one")
    version = publish_text(one, REF, "abc")
    client = s3.client
    (key,) = [k for k in s3.objects() if k.endswith(f"{version.path.name}/a.txt")]
    client.put_object(Bucket="news", Key=key, Body=b"abd")
    with pytest.raises(BucketError, match=r"a\.txt: its bytes differ from what was published"):
        machine(tmp_path / "two")
    assert Lake(tmp_path / "two").current(REF) is None
    with one.publishing():
        assert repair(one.mirror) == ([f"{REF}/{version.path.name}/a.txt: given to the bucket again"], [])
    two = machine(tmp_path / "two")
    assert text_of(two) == "abc"
    path = two.require(REF).file("a.txt")
    path.chmod(0o644)
    path.write_text("abe")
    with two.publishing():
        assert repair(two.mirror) == ([f"{REF}/{version.path.name}/a.txt: taken from the bucket"], [])
        assert repair(two.mirror) == ([], [])
    assert text_of(two) == "abc"
    bucket_is_tidy(s3)


def test_damage_here_is_never_carried_into_the_bucket(tmp_path: Path, s3: Server) -> None:
    one = machine(tmp_path / "one")
    old = publish_text(one, REF, "a")
    (old.path / "a.txt").chmod(0o644)
    (old.path / "a.txt").write_text("damaged")
    (old.path / "manifest.json").chmod(0o644)
    (old.path / "manifest.json").write_text("{")
    publish_text(one, REF, "b")
    two = machine(tmp_path / "two")
    assert (two.folder(REF) / old.path.name / "a.txt").read_text() == "a"
    assert_sound(two)


def test_a_reader_whose_objects_go_while_it_fetches_takes_the_new_head(tmp_path: Path, s3: Server, monkeypatch) -> None:
    one = machine(tmp_path / "one")
    publish_text(one, REF, "a")
    original, rivals = Store.download, iter(["b", "c"])

    def slow(self: Store, key: str, path: Path) -> None:
        text = next(rivals, None)
        if text is not None:
            publish_text(one, REF, text)
        original(self, key, path)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "download", slow)
        patch.setattr("resources.bucket.mirror.AT_ONCE", 1)
        two = machine(tmp_path / "two")
    assert text_of(two) == "c"
    assert_sound(two)
    assert tree(two) == tree(one)


def test_a_head_from_a_stranger_leads_nowhere(tmp_path: Path, s3: Server) -> None:
    publish_text(machine(tmp_path / "one"), REF, "a")
    client, key = s3.client, f"lake/heads/{REF}.json"
    head = json.loads(s3.objects()[key])
    entry = next(iter(head["files"].values()))
    for changed in (
        {"../../outside": entry},
        {"/etc/passwd": entry},
        {"a.txt": {**entry, "key": "objects/../heads/x"}},
        {"a.txt": {**entry, "sha256": "x"}},
        {".hidden": entry},
        [],
    ):
        client.put_object(Bucket="news", Key=key, Body=json.dumps({**head, "files": changed}).encode())
        with pytest.raises(BucketError, match="is damaged"):
            machine(tmp_path / "two")
    client.delete_object(Bucket="news", Key=key)
    for unit in (".locks", ".bucket/open", "simulated/.champion/x", "simulated/clicks"):
        key = f"lake/heads/{unit}.json"
        changed = {**head, "unit": unit, "files": {"a.txt": {**entry, "key": f"objects/{unit}/a.txt"}}}
        client.put_object(Bucket="news", Key=key, Body=json.dumps(changed).encode())
        with pytest.raises(BucketError, match="is damaged"):
            machine(tmp_path / "two")
        client.delete_object(Bucket="news", Key=key)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one", "two"]


def test_a_bucket_that_was_emptied_is_named(tmp_path: Path, s3: Server) -> None:
    lake = machine(tmp_path / "one")
    publish_text(lake, REF, "a")
    s3.empty()
    with pytest.raises(BucketError, match=f"holds nothing of {REF} any more"):
        lake.catch_up()
    assert text_of(lake) == "a"


def test_a_bucket_that_keeps_old_versions_is_refused(tmp_path: Path, s3: Server) -> None:
    client = s3.client
    client.create_bucket(Bucket="kept")
    client.put_bucket_versioning(Bucket="kept", VersioningConfiguration={"Status": "Enabled"})
    with pytest.raises(BucketError, match="nothing could be erased"):
        Store("s3://kept/lake").require_fit()


def test_a_server_without_conditional_writes_is_refused(tmp_path: Path, s3: Server, monkeypatch) -> None:
    def unconditional(self: Store, key: str, data: bytes, etag: str) -> str:
        return str(self._client.put_object(**self._at(key), Body=data)["ETag"])

    monkeypatch.setattr(Store, "put_whole", unconditional)
    with pytest.raises(BucketError, match="ignores conditional writes"):
        first_command(tmp_path / "one")


def test_wrong_settings_are_named(tmp_path: Path, s3: Server, monkeypatch) -> None:
    with pytest.raises(BucketError, match=r"NoSuchBucket"):
        Store("s3://nothing").list("")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(UsageError, match="AWS_ACCESS_KEY_ID"):
        Store(ADDRESS).list("")
    with pytest.raises(UsageError, match="write s3://BUCKET"):
        Store("s3://UPPER")


def test_a_large_file_goes_in_parts(tmp_path: Path, s3: Server) -> None:
    lake = machine(tmp_path / "one")
    with lake.staging(REF) as staged:
        (staged.path / "big.bin").write_bytes(os.urandom(20 << 20))
        lake.publish(staged, {}, "k", {}, {}, None, [], {})
    two = machine(tmp_path / "two")
    assert two.verify(two.require(REF)) == []


def test_without_boto3_one_line_says_what_to_install(monkeypatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(UsageError, match=r"newsrec\[server\]"):
        Store(ADDRESS).list("")


def test_a_lake_without_a_bucket_asks_nobody(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("NEWSREC_BUCKET", raising=False)
    monkeypatch.setattr(stores, "Store", None)
    lake = Lake(tmp_path)
    publish_text(lake, REF, "a")
    lake.catch_up()
    assert not (tmp_path / ".bucket").exists()
    with pytest.raises(LakeError):
        lake.require(OTHER)
