"""Publishing: all or nothing, equal content is the same version, whatever dies in between."""

import json
import multiprocessing
import os
import sys
import threading
import time
from pathlib import Path

import pytest

from ml.errors import LakeError
from resources import ledger
from resources.lake import POINTER, Lake, Ref, recipe_key
from tests.resources.kill_help import dies_before
from tests.resources.lake_help import publish_text

REF = Ref("simulated", "clicks", "2023-05-18")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


CHECKS = [{"name": "n", "passed": True, "blocking": True, "count_bad": 0, "examples": [], "description": "d"}]


def test_what_was_published_is_current(lake: Lake) -> None:
    assert lake.current(REF) is None
    with lake.staging(REF) as staged:
        (staged.path / "b").mkdir()
        (staged.path / "b" / "two.txt").write_text("2")
        (staged.path / "one.txt").write_text("1")
        made = lake.publish(staged, {}, "key", {"x": 1}, {"ml": "c"}, {"one.txt": 1}, CHECKS, {"device": "cpu"})
    found = lake.require(REF)
    assert found == made
    assert found.path == lake.root / "simulated/clicks/2023-05-18" / found.content[:16]
    assert found.file("one.txt").read_text() == "1"
    assert [p.name for p in found.files()] == ["two.txt", "one.txt"]
    assert [p.name for p in found.files("one*")] == ["one.txt"]
    assert found.rows == {"one.txt": 1}
    assert found.manifest["checks"] == CHECKS
    assert lake.verify(found) == []
    assert lake.partitions("simulated", "clicks") == ["2023-05-18"]
    with pytest.raises(LakeError, match=r"no file 'three\.txt'"):
        found.file("three.txt")
    with pytest.raises(LakeError):
        found.file("../current.json")


def test_what_is_missing_is_named_with_the_command(lake: Lake) -> None:
    with pytest.raises(LakeError, match=r"^simulated/clicks/2023-05-18 .* newsrec run --dataset simulated$"):
        lake.require(REF)


def test_no_bit_of_the_pointer_can_flip_unseen(lake: Lake) -> None:
    publish_text(lake, REF, "a")
    path = lake.folder(REF) / POINTER
    good = path.read_bytes()
    for place in range(len(good)):
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        try:
            found = lake.require(REF)
        except LakeError:
            continue
        assert lake.verify(found), good[max(place - 20, 0) : place + 1]


def test_what_a_process_left_that_died_after_its_publication_is_removed_by_the_next_step(lake: Lake) -> None:
    publish_text(lake, REF, "a")
    left = lake.root / ".staging" / "0123456789abcdef.lock"
    left.touch()
    lake.catch_up()
    assert not left.exists()


def test_listing(lake: Lake) -> None:
    publish_text(lake, REF, "a")
    publish_text(lake, Ref("simulated", "clicks", "2023-05-17"), "a")
    publish_text(lake, Ref("simulated", "predictions", "2023-05-18.rolling", "snert"), "a")
    with lake.staging(Ref("globo", "clicks", "2017-10-01")):
        pass
    assert lake.datasets() == ["simulated"]
    assert lake.stages("simulated") == ["clicks", "predictions"]
    assert lake.partitions("simulated", "clicks") == ["2023-05-17", "2023-05-18"]
    assert lake.partitions("simulated", "predictions") == []
    assert lake.models("simulated", "predictions") == ["snert"]
    assert lake.partitions("simulated", "predictions", "snert") == ["2023-05-18.rolling"]
    assert lake.models("simulated", "clicks") == []


def test_equal_content_keeps_version_and_manifest(lake: Lake) -> None:
    first_input = publish_text(lake, Ref("simulated", "raw", "2023-05-18"), "1")
    second_input = publish_text(lake, Ref("simulated", "raw", "2023-05-18"), "2")
    first = publish_text(lake, REF, "same", "one", [first_input])
    again = publish_text(lake, REF, "same", "two", [second_input])
    assert (again.path, again.manifest_digest, again.manifest) == (first.path, first.manifest_digest, first.manifest)
    assert lake.require(REF).recipe_key == "two"
    history = [e.record["publication"] for e in lake.history(REF)]
    assert [h["recipe_key"] for h in history] == ["one", "two"]
    assert [h["inputs"] for h in history] == [
        {"simulated/raw/2023-05-18": v.manifest_digest} for v in (first_input, second_input)
    ]
    assert lake.require(REF).ledger_head == again.ledger_head == lake.history(REF)[-1].digest


def test_going_back_to_earlier_content_is_the_earlier_version(lake: Lake) -> None:
    first, second, third = (publish_text(lake, REF, text) for text in ("a", "b", "a"))
    assert first.manifest_digest == third.manifest_digest != second.manifest_digest
    assert lake.require(REF).content == first.content
    assert second.path.is_dir()


def test_the_manifest_digest_covers_the_inputs(lake: Lake) -> None:
    one = publish_text(lake, Ref("simulated", "raw", "2023-05-18"), "1")
    two = publish_text(lake, Ref("simulated", "raw", "2023-05-18"), "2")
    other = Lake(lake.root.with_name("other"))
    a, b = publish_text(lake, REF, "x", inputs=[one]), publish_text(other, REF, "x", inputs=[two])
    assert a.content == b.content
    assert a.manifest_digest != b.manifest_digest


def test_two_lakes_give_equal_bytes(lake: Lake) -> None:
    other = Lake(lake.root.with_name("other"))
    a, b = publish_text(lake, REF, "x"), publish_text(other, REF, "x")
    assert (a.path / "manifest.json").read_bytes() == (b.path / "manifest.json").read_bytes()


def test_the_record_is_in_no_digest(lake: Lake) -> None:
    digests = set()
    for run in ("one", "two"):
        with lake.staging(REF) as staged:
            (staged.path / "a.txt").write_text("a")
            version = lake.publish(staged, {}, "k", {}, {}, None, [], {"dagster_run": run})
        digests.add((version.manifest_digest, version.content))
    assert len(digests) == 1
    assert [e.record["run"]["dagster_run"] for e in lake.history(REF)] == ["one", "two"]
    assert {"git_commit", "git_dirty", "libraries"} <= set(lake.history(REF)[0].record["environment"])


def test_an_error_leaves_neither_version_nor_staging(lake: Lake) -> None:
    first = publish_text(lake, REF, "a")
    with pytest.raises(ZeroDivisionError), lake.staging(REF) as staged:
        (staged.path / "a.txt").write_text("b")
        _ = 1 / 0
    assert lake.require(REF) == first
    assert [p.name for p in (lake.root / ".staging").iterdir()] == ["sweep"]


def test_links_are_refused(lake: Lake, tmp_path: Path) -> None:
    with lake.staging(REF) as staged:
        (staged.path / "a.txt").symlink_to(tmp_path)
        with pytest.raises(LakeError, match="neither a file nor a folder"):
            lake.publish(staged, {}, "k", {}, {}, None, [], {})
    assert lake.current(REF) is None


def test_a_recipe_that_json_cannot_hold_is_refused(lake: Lake) -> None:
    with lake.staging(REF) as staged, pytest.raises(LakeError, match="JSON"):
        lake.publish(staged, {}, "k", {"x": float("nan")}, {}, None, [], {})


def test_verify_names_the_damage(lake: Lake) -> None:
    version = publish_text(lake, REF, "abc")
    path = version.file("a.txt")
    path.chmod(0o644)
    path.write_text("abd")
    (version.path / "extra.txt").write_text("")
    assert lake.verify(version) == [
        f"{REF}: extra.txt is not in the manifest",
        f"{REF}: the bytes of a.txt differ from its manifest",
    ]
    path.unlink()
    assert f"{REF}: a.txt is missing" in lake.verify(version)


def test_publishing_again_heals_damage(lake: Lake) -> None:
    version = publish_text(lake, REF, "abc")
    version.file("a.txt").unlink()
    (version.path / "manifest.json").unlink()
    with pytest.raises(LakeError, match="materialise"):
        lake.current(REF)
    healed = publish_text(lake, REF, "abc")
    assert lake.verify(healed) == []
    assert healed.manifest_digest == version.manifest_digest


def test_a_changed_manifest_is_not_read(lake: Lake) -> None:
    version = publish_text(lake, REF, "abc")
    path = version.path / "manifest.json"
    manifest = json.loads(path.read_bytes())
    manifest["recipe"] = {"k": "another"}
    path.chmod(0o644)
    path.write_bytes(json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode())
    with pytest.raises(LakeError, match="another manifest"):
        lake.current(REF)


def test_a_changed_ledger_shows(lake: Lake) -> None:
    publish_text(lake, REF, "a")
    version = publish_text(lake, REF, "b")
    path = lake.folder(REF) / ledger.LEDGER
    first, second = path.read_text().splitlines()
    path.write_text(second + "\n")
    assert any("removed or changed" in p for p in lake.verify(version))
    path.write_text(first.replace('"run":"a"', '"run":"x"') + "\n" + second + "\n")
    assert any("line 1 was changed" in p for p in lake.verify(version))
    path.write_text(first + "\n")
    assert any("no longer holds" in p for p in lake.verify(version))


def test_files_are_read_only(lake: Lake) -> None:
    version = publish_text(lake, REF, "a")
    assert version.file("a.txt").stat().st_mode & 0o222 == 0


def test_recipe_key(lake: Lake) -> None:
    a, b = publish_text(lake, REF, "a"), publish_text(lake, REF, "b")
    base = recipe_key({"x": a, "y": b}, "code", {"p": 1, "q": 2}, 3)
    assert base == recipe_key({"y": b, "x": a}, "code", {"q": 2, "p": 1}, 3)
    others = [
        recipe_key({"x": b, "y": a}, "code", {"p": 1, "q": 2}, 3),
        recipe_key({"x": a}, "code", {"p": 1, "q": 2}, 3),
        recipe_key({"x": a, "y": b}, "other", {"p": 1, "q": 2}, 3),
        recipe_key({"x": a, "y": b}, "code", {"p": 1, "q": 3}, 3),
        recipe_key({"x": a, "y": b}, "code", {"p": 1, "q": 2}, 4),
    ]
    assert len({base, *others}) == 6


def _publish(root: Path, text: str) -> None:
    publish_text(Lake(root), REF, text, text)


@pytest.mark.parametrize("text", ["new", "old"])
def test_killed_at_every_step(lake: Lake, text: str) -> None:
    """Kill a publishing process before each of its file system calls; the partition is always whole."""
    first = publish_text(lake, REF, "old", "old")
    seen = set()
    for stop in range(1, 100):
        died = dies_before(stop, _publish, lake.root, text)
        current = lake.require(REF)
        seen.add(current.file("a.txt").read_text())
        assert lake.verify(current) == []
        if not died:
            break
    assert not died and stop > 20
    assert lake.require(REF).file("a.txt").read_text() == text
    assert seen == {"old", text}
    assert text == "new" or lake.require(REF).manifest_digest == first.manifest_digest
    with lake.staging(REF):
        assert len(list((lake.root / ".staging").iterdir())) == 3, "what the dead left behind was swept"


def test_a_torn_ledger_line_is_cut_off(lake: Lake) -> None:
    publish_text(lake, REF, "a")
    path = lake.folder(REF) / ledger.LEDGER
    with path.open("ab") as stream:
        stream.write(b'{"digest":"12')
    assert len(lake.history(REF)) == 1
    version = publish_text(lake, REF, "b")
    assert len(lake.history(REF)) == 2
    assert lake.verify(version) == []


def _publish_many(root: Path, name: str) -> None:
    for number in range(5):
        publish_text(Lake(root), REF, f"{name}{number % 2}")


def test_four_processes_publish_the_same_partition(lake: Lake) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_publish_many, args=(lake.root, name)) for name in "abcd"]
    for worker in workers:
        worker.start()
    while any(w.is_alive() for w in workers):
        current = lake.current(REF)
        assert current is None or current.file("a.txt").is_file()
        time.sleep(0.001)
    assert [w.exitcode for w in workers] == [0, 0, 0, 0]
    assert len(lake.history(REF)) == 20
    assert lake.verify(lake.require(REF)) == []
    assert len([p for p in lake.folder(REF).iterdir() if p.is_dir()]) == 8


def test_the_staging_folder_of_a_living_process_stays(lake: Lake) -> None:
    with lake.staging(REF) as mine:
        (mine.path / "a.txt").write_text("a")
        process = multiprocessing.get_context("fork").Process(target=_publish_many, args=(lake.root, "x"))
        process.start()
        process.join()
        assert process.exitcode == 0
        assert mine.path.is_dir()


def test_the_lock_is_exclusive_and_may_be_nested(lake: Lake) -> None:
    reader, writer = os.pipe()

    def other() -> None:
        with lake.lock(REF):
            os.write(writer, b"in")

    with lake.lock(REF), lake.lock(REF):
        publish_text(lake, REF, "a")
        process = multiprocessing.get_context("spawn" if sys.platform == "win32" else "fork").Process(target=other)
        process.start()
        process.join(timeout=0.3)
        assert process.is_alive()
    process.join(timeout=5)
    assert os.read(reader, 2) == b"in"


def test_the_publication_is_that_of_the_pointer_also_after_a_crash_before_it_moved(tmp_path):
    lake = Lake(tmp_path)
    publish_text(lake, REF, "old", key="k1")
    pointer = lake.folder(REF) / POINTER
    before = pointer.read_bytes()
    publish_text(lake, REF, "new", key="k2")
    assert lake.publication(REF)["recipe_key"] == "k2"
    pointer.write_bytes(before)  # the process died between ledger and pointer
    assert lake.publication(REF)["recipe_key"] == "k1"


def test_a_second_run_over_a_dataset_waits_for_the_first(tmp_path):
    lake, other = Lake(tmp_path), Lake(tmp_path)
    order: list[str] = []
    entered, leave = threading.Event(), threading.Event()

    def first() -> None:
        with lake.alone("globo", lambda: order.append("first waits")):
            entered.set()
            leave.wait(10)
            order.append("first ends")

    thread = threading.Thread(target=first)
    thread.start()
    entered.wait(10)
    with other.alone("mind", lambda: order.append("mind waits")):
        pass

    def told() -> None:
        order.append("second waits")
        leave.set()

    with other.alone("globo", told):
        order.append("second runs")
    thread.join()
    assert order == ["second waits", "first ends", "second runs"]


def test_no_step_begins_before_a_planned_run_that_waits(tmp_path):
    """Steps that overlap would never leave it a moment."""

    class Busy(Exception):
        """The step was kept out."""

    def busy() -> None:
        raise Busy

    lake, waits, runs = Lake(tmp_path), threading.Event(), threading.Event()

    def planned() -> None:
        with lake.alone("globo", waits.set):
            runs.set()

    thread = threading.Thread(target=planned)
    with lake.beside("globo", busy):
        with lake.beside("globo", busy):
            thread.start()
            waits.wait(60)
        with pytest.raises(Busy), lake.beside("globo", busy):
            pass
        with lake.beside("mind", busy):
            assert not runs.is_set()
    thread.join(60)
    assert runs.is_set()
    with lake.beside("globo", busy):
        pass


def test_a_planned_run_keeps_others_waiting_and_tells_each_once(tmp_path):
    lake, waits, told, ran, threads = Lake(tmp_path), threading.Semaphore(0), [], [], []

    def planned(name: str) -> None:
        def waiting() -> None:
            told.append(name)
            waits.release()

        with Lake(tmp_path).alone("globo", waiting):
            ran.append(name)

    with lake.alone("globo", lambda: pytest.fail("nobody is there yet")):
        for name in ("a", "b"):
            threads.append(threading.Thread(target=planned, args=(name,)))
            threads[-1].start()
        assert waits.acquire(timeout=60) and waits.acquire(timeout=60)
        assert ran == []
    for thread in threads:
        thread.join(60)
    assert sorted(told) == sorted(ran) == ["a", "b"]


def test_what_is_unfinished_stays_until_it_is_published(tmp_path):
    lake = Lake(tmp_path)
    with pytest.raises(ZeroDivisionError), lake.unfinished("k1") as folder:
        folder.mkdir(parents=True)
        (folder / "state").write_text("half")
        _ = 1 / 0
    with lake.unfinished("k2") as other:
        assert not other.exists()
    with lake.unfinished("k1") as again:
        assert (again / "state").read_text() == "half"
    assert not folder.exists()
