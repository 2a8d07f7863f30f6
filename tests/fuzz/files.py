"""Damage to whole files: their bytes and their places.

Belongs here: one function a kind. Does not belong here: damage that respects a format (`tables`, `lines`, `lies`).
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

Rng = np.random.Generator
BytesDamage = Callable[[bytes, Rng], bytes]
PlaceDamage = Callable[[Path, Path], None]
"""Takes the data root and the file's path, both existing."""


def truncated(data: bytes, rng: Rng) -> bytes:
    return data[: int(rng.integers(1, max(2, len(data))))]


def empty(data: bytes, rng: Rng) -> bytes:
    return b""


def flipped(data: bytes, rng: Rng) -> bytes:
    changed = bytearray(data)
    for at in rng.integers(0, len(data), int(rng.integers(1, 6))) if data else ():
        changed[int(at)] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def zeroed(data: bytes, rng: Rng) -> bytes:
    at = int(rng.integers(max(1, len(data))))
    length = min(int(rng.integers(1, 200)), len(data) - at)
    return data[:at] + b"\0" * length + data[at + length :]


def followed_by_noise(data: bytes, rng: Rng) -> bytes:
    return data + rng.bytes(int(rng.integers(1, 100)))


def other_format(data: bytes, rng: Rng) -> bytes:
    return (b"PAR1", b"\x1f\x8b", b"PK\x03\x04", b"<html></html>\n", b"PAR1\0\0\0\0PAR1")[int(rng.integers(5))]


def outward_link(root: Path, path: Path) -> None:
    outside = root.parent / f"outside-{path.name}"
    path.rename(outside)
    path.symlink_to(outside)


def outward_relative_link(root: Path, path: Path) -> None:
    outside = root.parent / f"outside-{path.name}"
    path.rename(outside)
    path.symlink_to(os.path.relpath(outside, path.parent))


def outward_folder(root: Path, path: Path) -> None:
    if path.parent == root:
        return outward_link(root, path)
    outside = root.parent / f"outside-{path.parent.name}"
    path.parent.rename(outside)
    return path.parent.symlink_to(outside, target_is_directory=True)


def inward_link(root: Path, path: Path) -> None:
    inside = root / f"elsewhere-{path.name}"
    path.rename(inside)
    path.symlink_to(inside)


def dangling_link(root: Path, path: Path) -> None:
    path.unlink()
    path.symlink_to(root / "nothing")


def circular_link(root: Path, path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def folder_instead(root: Path, path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe_instead(root: Path, path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def device_instead(root: Path, path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def missing(root: Path, path: Path) -> None:
    path.unlink()


BYTES: dict[str, BytesDamage] = {
    "truncated": truncated,
    "empty": empty,
    "bits flipped": flipped,
    "bytes zeroed": zeroed,
    "bytes added": followed_by_noise,
    "another format": other_format,
}
PLACES: dict[str, PlaceDamage] = {
    "link out of the root": outward_link,
    "relative link out of the root": outward_relative_link,
    "linked folder": outward_folder,
    "link within the root": inward_link,
    "dangling link": dangling_link,
    "circular link": circular_link,
    "folder for a file": folder_instead,
    "pipe for a file": pipe_instead,
    "link to a device": device_instead,
    "file missing": missing,
}
