"""The faults: each is done to a home again and again, and what was promised is looked at after each time.

Belongs here: causing faults and entering what was seen. Does not belong here: what is promised (`promises`), training
(`training`).
"""

import multiprocessing
import os
import resource
import secrets
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ml.errors import NewsrecError
from resources.lake import POINTER, Ref
from tests.faults.process import Child, fork
from tests.faults.promises import Reader, last_line, lost, mixed, named, not_repaired, open_runs, published, salt_of
from tests.faults.table import NEXT_RUN, NO_RUNNING, NOTHING_LOST, READERS, SAME_BYTES, SLOTS, Table
from tests.faults.world import Home, asset_home

Rng = np.random.Generator


def writer(home: Home, ref: Ref, salt: str, before: Callable[[], object] = lambda: None) -> Child:
    """A child that publishes; marks when the publication itself begins. An error of the project is one line."""

    def work(mark: Callable[[], None]) -> None:
        before()
        try:
            home.publish(home, ref, salt, mark)
        except NewsrecError as error:
            print(f"newsrec: {error}")
            raise SystemExit(1) from None
        except OSError as error:
            print(f"newsrec: {error.strerror} ({error.filename}): see to the disk, then run again")
            raise SystemExit(1) from None

    return fork(home.log, work)


def publish(home: Home, ref: Ref, salt: str) -> int:
    """An undisturbed publication; its exit code."""
    return writer(home, ref, salt).wait()


def look(table: Table, fault: str, home: Home, ref: Ref, before: list, old: str, new: str) -> None:  # type: ignore[type-arg]
    """After a fault: readers, the past, then the next run and what it leaves."""
    table.enter(fault, READERS, mixed(home, ref, {old, new}))
    table.enter(fault, NOTHING_LOST, lost(home, ref, before))
    code = publish(home, ref, new)
    table.enter(fault, NEXT_RUN, [*not_repaired(home, ref, new, code), *lost(home, ref, before)])
    table.enter(fault, NO_RUNNING, open_runs(home, ref))


def killed(table: Table, home: Home, kills: int, rng: Rng, name: str) -> None:
    """kill -9 at random moments, the partitions in turn; every other time aimed at the publication itself, else at any
    moment of the whole. A reader looks all the while."""
    spans: dict[Ref, tuple[float, float]] = {}
    done = attempt = 0
    while done < kills:
        ref = home.refs[attempt % len(home.refs)]
        fault = f"kill -9, {name}: {'/'.join(p for p in (ref.stage, ref.model) if p)}"
        if ref not in spans:
            spans[ref] = _spans(home, ref)
        whole, last = spans[ref]
        old, new = salt_of(home.lake.current(ref)), secrets.token_hex(6)
        before, reader = published(home, ref), Reader(home, ref, {old, new})
        child = writer(home, ref, new)
        aimed = attempt // len(home.refs) % 2 == 0
        attempt += 1
        begun = child.until_marked() if aimed else True
        end = time.monotonic() + float(rng.uniform(0, 1.1 * (last if aimed else whole)))
        while begun and time.monotonic() < end and child.poll() is None:
            reader.look()
            time.sleep(0.002)
        child.kill()
        if child.wait(reader.look) == -9:
            done += 1
            table.kills[f"of publications, {name}"] += 1
            seen = salt_of(home.lake.current(ref))
            table.notes[f"{fault}: {'new' if seen == new else 'old'} version"] += 1
        table.enter(fault, READERS, reader.breaches)
        look(table, fault, home, ref, before, old, new)


def _spans(home: Home, ref: Ref) -> tuple[float, float]:
    """Seconds of an undisturbed child, and of its part from the beginning of the publication on."""
    started = time.monotonic()
    child = writer(home, ref, secrets.token_hex(6))
    child.until_marked()
    begun = time.monotonic()
    if child.wait() != 0:
        raise RuntimeError(f"{ref}: an undisturbed publication failed: {home.log.read_text()[-2000:]}")
    ended = time.monotonic()
    return ended - started, ended - begun


def together(table: Table, home: Home, trials: int, rng: Rng) -> None:
    """Two processes publish the same partition at the same time."""
    fault = "two processes publish the same partition"
    for trial in range(trials):
        ref = home.refs[trial % len(home.refs)]
        old, one, two = salt_of(home.lake.current(ref)), secrets.token_hex(6), secrets.token_hex(6)
        before, reader = published(home, ref), Reader(home, ref, {old, one, two})
        children = [writer(home, ref, salt) for salt in (one, two)]
        codes = [child.wait(reader.look) for child in children]
        table.enter(fault, READERS, [*reader.breaches, *mixed(home, ref, {one, two})])
        after = published(home, ref)
        missing = len(after) != len(before) + 2 or codes != [0, 0]
        both = [f"{ref}: exit codes {codes}, {len(after) - len(before)} publications"] if missing else []
        table.enter(fault, NOTHING_LOST, [*both, *lost(home, ref, after)])
        table.enter(fault, NO_RUNNING, open_runs(home, ref))


def damaged(table: Table, home: Home, trials: int, rng: Rng) -> None:
    """Files of the current version, its manifest, its pointer or its ledger are cut, get one bit flipped, or vanish."""
    for trial in range(trials):
        ref = home.refs[trial % len(home.refs)]
        current, new = home.lake.require(ref), secrets.token_hex(6)
        data = [p for p in current.files() if p.stat().st_size]
        targets = {
            "a data file": data[int(rng.integers(len(data)))],
            "the manifest": current.path / "manifest.json",
            "the pointer": home.lake.folder(ref) / POINTER,
            "the ledger": home.lake.folder(ref) / "ledger.jsonl",
        }
        what = list(targets)[trial % len(targets)]
        how = ("cut", "one bit flipped", "vanished")[trial // len(targets) % 3]
        path, fault = targets[what], f"{what} {how}"
        good = path.read_bytes()
        _damage(path, how, rng)
        try:
            found = home.lake.current(ref)
            seen = home.lake.verify(found) if found is not None else [f"{ref} has no pointer"]
        except NewsrecError as error:
            seen = [str(error)]
        table.enter(fault, READERS, [] if seen else [f"{ref}: verify finds nothing wrong"])
        code = publish(home, ref, new)
        whole = not mixed(home, ref, {new}) if what != "the ledger" else False
        says = [] if code == 0 and whole else named(home, code)
        table.notes[f"{fault}: {'repaired by the next publication' if code == 0 and whole else 'named'}"] += 1
        if what == "the ledger" and code == 0:
            says = [] if seen else ["nobody noticed"]
        table.enter(fault, NEXT_RUN, says)
        path.parent.mkdir(parents=True, exist_ok=True)
        _put_back(path, good, home, ref, what)


def _damage(path: Path, how: str, rng: Rng) -> None:
    data = path.read_bytes()
    path.unlink()
    if how == "cut":
        path.write_bytes(data[: int(rng.integers(len(data)))])
    elif how == "one bit flipped":
        place = int(rng.integers(len(data)))
        path.write_bytes(data[:place] + bytes([data[place] ^ (1 << int(rng.integers(8)))]) + data[place + 1 :])


def _put_back(path: Path, good: bytes, home: Home, ref: Ref, what: str) -> None:
    """A backup is played back where only one helps; for the ledger, with the pointer of that time."""
    if what == "the ledger":
        path.write_bytes(good)
        (home.lake.folder(ref) / POINTER).unlink(missing_ok=True)
        publish(home, ref, secrets.token_hex(6))
    elif what in ("a data file", "the manifest"):
        path.unlink(missing_ok=True)
        path.write_bytes(good)


def full_disk(table: Table, home: Home, trials: int, rng: Rng) -> None:
    """The lake on a tmpfs that is full before, or in the midst of, the publication."""
    place = home.path.with_name(home.path.name + "-tmpfs")
    place.mkdir()
    size = 2 * sum(p.stat().st_size for p in home.path.rglob("*") if p.is_file()) + (48 << 20)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], capture_output=True).returncode:
        table.skipped["full disk (tmpfs)"] = "mounting is not allowed here; the limit of file sizes stands in"
        return
    fault = "full disk (tmpfs)"
    try:
        small = Home(place / "home", home.refs, home.publish)
        shutil.copytree(home.path, small.path, symlinks=True)
        for trial in range(trials):
            ref = home.refs[trial % len(home.refs)]
            old, new = salt_of(small.lake.current(ref)), secrets.token_hex(6)
            before = published(small, ref)
            free = os.statvfs(place)
            ballast = place / "ballast"
            leave = int(rng.integers(0, 2_000)) * 1024
            _fill(ballast, max(0, free.f_bavail * free.f_frsize - leave))
            code = writer(small, ref, new).wait()
            table.notes[f"{fault}: {'failed' if code else 'there was still room'}"] += 1
            table.enter(fault, NEXT_RUN, named(small, code) if code else [])
            ballast.unlink()
            look(table, fault, small, ref, before, old, new)
    finally:
        _unmount(place)
        place.rmdir()


def _unmount(place: Path) -> None:
    subprocess.run(["umount", "--lazy", place], check=True)


def _fill(path: Path, size: int) -> None:
    try:
        with path.open("wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, max(size, 1))
    except OSError:
        pass


def size_limit(table: Table, home: Home, trials: int, rng: Rng) -> None:
    """No file may grow beyond a random size (RLIMIT_FSIZE): the write fails in mid-file, as on a full disk."""
    fault = "a write fails in mid-file (RLIMIT_FSIZE)"
    for trial in range(trials):
        ref = home.refs[trial % len(home.refs)]
        old, new = salt_of(home.lake.current(ref)), secrets.token_hex(6)
        before, limit = published(home, ref), int(2 ** rng.uniform(6, 18))
        child = writer(home, ref, new, lambda n=limit: resource.setrlimit(resource.RLIMIT_FSIZE, (n, n)))
        code = child.wait()
        table.notes[f"{fault}: {'failed' if code else 'went through'}"] += 1
        look(table, fault, home, ref, before, old, new)


def read_only(table: Table, home: Home, trials: int, rng: Rng) -> None:
    """The lake's file system turns read-only."""
    fault = "a lake that turns read-only"
    lake = home.lake.root
    for trial in range(trials):
        ref = home.refs[trial % len(home.refs)]
        old, new = salt_of(home.lake.current(ref)), secrets.token_hex(6)
        before = published(home, ref)
        for options in (("--bind", lake), ("-o", "remount,ro,bind")):
            mounted = subprocess.run(["mount", *options, lake], capture_output=True).returncode == 0
            if not mounted:
                table.skipped[fault] = "mounting is not allowed here"
                return
        try:
            code = writer(home, ref, new).wait()
            table.enter(fault, NEXT_RUN, named(home, code))
            table.enter(fault, READERS, mixed(home, ref, {old}))
        finally:
            _unmount(lake)
        look(table, fault, home, ref, before, old, new)


def store_away(table: Table, home: Home, trials: int, rng: Rng) -> None:
    """The MLflow store is gone or locked from before the run, or from the moment of publication on."""
    for trial in range(trials):
        ref = home.refs[trial // 4 % len(home.refs)]
        how, late = ("damaged", "locked")[trial % 2], trial // 2 % 2 == 1
        fault = f"MLflow store {how} {'from the publication on' if late else 'from the start'}"
        old, new = salt_of(home.lake.current(ref)), secrets.token_hex(6)
        before, store = published(home, ref), home.path / "mlflow.db"
        lock: list[sqlite3.Connection] = []
        good = store.with_name("good.db")

        def disturb(
            how: str = how, store: Path = store, good: Path = good, lock: list[sqlite3.Connection] = lock
        ) -> None:
            if how == "damaged":
                shutil.copyfile(store, good)
                store.write_bytes(b"no database " * 4096)
            elif not lock:  # a second try finds it locked still
                lock.append(sqlite3.connect(store, isolation_level=None))
                lock[0].execute("BEGIN EXCLUSIVE")

        if late:
            child = _publishing_with(home, ref, new, disturb)
        else:
            disturb()
            child = writer(home, ref, new)
        code = child.wait()
        # a lock may pass: the step tries again, finds what it has published, and the next run tells the store
        tried_again = how == "locked" and late and code == 0 and not mixed(home, ref, {new})
        table.enter(fault, NEXT_RUN, [] if tried_again else named(home, code))
        for connection in lock:
            connection.close()
        if how == "damaged":
            good.replace(store)  # the store is back, as it was before it went
        look(table, fault, home, ref, before, old, new)


def _publishing_with(home: Home, ref: Ref, salt: str, disturb: Callable[[], None]) -> Child:
    """A child that disturbs the store itself as its publication begins."""
    return fork(home.log, lambda _: _one_line(lambda: home.publish(home, ref, salt, disturb)))


def _one_line(call: Callable[[], object]) -> None:
    try:
        call()
    except NewsrecError as error:
        print(f"newsrec: {error}")
        raise SystemExit(1) from None


def clock_back(table: Table, home: Home, trials: int, rng: Rng) -> None:
    """The clock steps back by up to a year between two publications, and in the midst of one."""
    fault = "the clock steps back"
    for trial in range(trials):
        ref = home.refs[trial % len(home.refs)]
        old, new = salt_of(home.lake.current(ref)), secrets.token_hex(6)
        before, seconds = published(home, ref), float(rng.uniform(1, 365 * 86400))
        reader = Reader(home, ref, {old, new})
        code = writer(home, ref, new, lambda s=seconds: _step_back(s)).wait(reader.look)
        table.enter(fault, READERS, [*reader.breaches, *mixed(home, ref, {new})])
        after = published(home, ref)
        earlier = after[-1].record["publication"]["at"] < before[-1].record["publication"]["at"] if before else True
        table.enter(fault, NOTHING_LOST, lost(home, ref, after) + ([] if earlier else ["the clock did not step"]))
        table.enter(fault, NEXT_RUN, not_repaired(home, ref, new, code))
        look(table, fault, home, ref, after, new, secrets.token_hex(6))


def _step_back(seconds: float) -> None:
    """From now on this process's clock is `seconds` behind."""
    import datetime as dt

    import resources.lake as module

    class Earlier(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:  # type: ignore[override]
            return dt.datetime.now(tz) - dt.timedelta(seconds=seconds)

    original = time.time
    time.time = lambda: original() - seconds
    module.datetime = Earlier  # type: ignore[misc]


def killed_runs(table: Table, base: Path, folder: Path, kills: int, rng: Rng) -> None:
    """`newsrec run` in a process of its own, killed again and again at random moments, then left to end. Its lake must
    hold the bytes of the run that was left alone."""
    fault = "kill -9, newsrec run over all assets of the baseline"
    (folder / "dagster").mkdir(parents=True)
    home = Home(folder, (), lambda *_: None)
    for _ in range(kills):
        command = _newsrec_run(base, home)
        time.sleep(float(rng.uniform(3, 25)))
        command.kill()
        if command.wait() == -9:
            table.kills["of newsrec run"] += 1
    code = _newsrec_run(base, home).wait()
    expected, differ, seen = asset_home(base / "home", base / "log").lake, [], 0
    for stage in home.lake.stages("simulated"):
        for model in home.lake.models("simulated", stage) or [None]:
            for partition in home.lake.partitions("simulated", stage, model):
                ref = Ref("simulated", stage, partition, model)
                ours, alone = home.lake.require(ref), expected.current(ref)
                seen += 1
                table.enter(fault, NOTHING_LOST, lost(home, ref, published(home, ref)))
                table.enter(fault, READERS, home.lake.verify(ours))
                table.enter(fault, NO_RUNNING, open_runs(home, ref))
                if stage != "evaluation_report" and alone is not None and alone.content != ours.content:
                    differ.append(f"{ref}: {ours.content[:12]}, undisturbed {alone.content[:12]}")
    table.enter(fault, SAME_BYTES, differ)
    table.enter(fault, NEXT_RUN, [] if code == 0 and seen else [f"exit code {code}: {last_line(home)}"])


def _newsrec_run(base: Path, home: Home) -> "subprocess.Popen[bytes]":
    arguments = ("run", "--dataset", "simulated", "--data-root", str(base / "log"), "--models", "popular_15")
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(home.path / "dagster"),
        "NEWSREC_LAKE": str(home.lake.root),
        "MLFLOW_TRACKING_URI": home.uri,
    }
    with home.log.open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli", *arguments], env=environment, stdout=log, stderr=log
        )


def killed_trainers(table: Table, folder: Path, trials: int, rng: Rng) -> None:
    """Trainers beyond the slots wait; one that holds a slot is killed, or the run that started it."""
    from resources.gpu import Device

    fault = "kill -9, a trainer that holds a slot"
    lake = folder / "slots"
    lake.mkdir()
    for trial in range(trials):

        def train(mark: Callable[[], None]) -> None:
            with Device("cpu").lease(lake):
                mark()
                time.sleep(60)

        def run(mark: Callable[[], None]) -> None:
            worker = multiprocessing.get_context("fork").Process(target=train, args=(mark,))
            worker.start()
            worker.join()

        holder = fork(folder / "holder.log", run if trial % 2 else train)
        holder.until_marked()
        waiting = fork(folder / "waiting.log", train)
        time.sleep(float(rng.uniform(0, 0.5)))
        early = [] if not _readable(waiting.pipe) else ["two trainers at once in one slot"]
        holder.kill()
        killed_at = time.monotonic()
        holder.wait()
        table.kills["of trainers that hold a slot, or of their runs"] += 1
        waiting.until_marked()
        took = time.monotonic() - killed_at
        waiting.kill()
        waiting.wait()
        table.enter(fault, SLOTS, early + ([f"the slot was free after {took:.1f} s"] if took > 5 else []))


def _readable(pipe: int) -> bool:
    import select

    return bool(select.select([pipe], [], [], 0)[0])
