"""Records that agree with a damaged file: a stranger writes manifest, pointer and ledger too.

Belongs here: rewriting them, and lies that only they can tell (names that lead elsewhere). Does not belong here: damage
to the files themselves (`strange`)."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from resources.ledger import GENESIS
from resources.manifest import MANIFEST, canonical, content_digest, digest, file_digest

Rng = np.random.Generator
Change = Callable[[dict[str, Any]], None]


def version_folder(path: Path) -> Path:
    """The version that a file belongs to."""
    return next(p for p in path.parents if (p / MANIFEST).exists())


def replace(path: Path, data: bytes) -> None:
    """Other bytes in the place of a file, which may be linked elsewhere."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def agree(folder: Path, change: Change = lambda _: None, also: bool = True) -> Path:
    """Rewrite the records of the version in `folder` so that they state the files as they are now; `change` alters the
    manifest after that. Without `also`, pointer and ledger stay as they were. The folder, which gets another name."""
    manifest = json.loads((folder / MANIFEST).read_bytes())
    for entry in manifest["files"]:
        path = folder / entry["name"]
        if path.is_file():
            entry |= {"bytes": path.stat().st_size, "sha256": file_digest(path)}
    change(manifest)
    try:
        manifest["content"] = content_digest(manifest["files"])
    except Exception:  # noqa: BLE001 the change left no files to digest
        manifest["content"] = str(manifest.get("content"))
    replace(folder / MANIFEST, canonical(manifest))
    name = manifest["content"][:16] or folder.name
    moved = folder.rename(folder.with_name(name)) if name != folder.name and "/" not in name else folder
    if also:
        _follow(moved, manifest)
    return moved


def _follow(folder: Path, manifest: dict[str, Any]) -> None:
    """Pointer and ledger of a partition name this version."""
    pointer_path, ledger_path = folder.parent / "current.json", folder.parent / "ledger.jsonl"
    pointer = json.loads(pointer_path.read_bytes())
    told = {"version": folder.name, "manifest": hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()}
    prev, lines = GENESIS, []
    for line in ledger_path.read_bytes().splitlines():
        entry = json.loads(line)
        if entry["digest"] == pointer["ledger"]:
            named = {k: manifest[k] for k in ("content", "inputs", "recipe", "code") if k in manifest}
            entry["record"]["publication"] |= {**told, **named}
        body = {"prev": prev, "record": entry["record"]}
        prev = digest(body)
        lines.append(canonical({"digest": prev, **body}))
        if entry["digest"] == pointer["ledger"]:
            pointer |= {**told, "ledger": prev}
    replace(ledger_path, b"".join(line + b"\n" for line in lines))
    replace(pointer_path, canonical(pointer))


def _outside(home: Path, data: bytes) -> Path:
    path = home / "outside"
    path.write_bytes(data)
    return path


def name_that_leads_out(folder: Path, home: Path, rng: Rng) -> None:
    """The manifest names, with the right sha256, a file outside its folder."""
    manifest = json.loads((folder / MANIFEST).read_bytes())
    entry = manifest["files"][int(rng.integers(len(manifest["files"])))]
    data = (folder / entry["name"]).read_bytes()
    outside = _outside(home, data)
    up = "../" * len(folder.relative_to(home).parts)
    name = entry["name"]
    tricks = (
        f"{up}outside", str(outside), f"./{name}", f"x/../{name}", f"{name}\0", f"{name}/", f"..\\{name}",
        "\u2024\u2024/outside", f"\u202e{name}", "x" * 5_000, "", ".", "..", MANIFEST, "a//b", ".hidden",
    )  # fmt: skip
    trick = tricks[int(rng.integers(len(tricks)))]

    def change(told: dict[str, Any]) -> None:
        told["files"][[f["name"] for f in told["files"]].index(name)]["name"] = trick

    agree(folder, change)


def pointer_that_leads_out(folder: Path, home: Path, rng: Rng) -> None:
    """The pointer names, with all digests right, a version outside its partition."""
    outside = home / "outside" / folder.name
    shutil.copytree(folder, outside)
    up = "../" * len(folder.parent.relative_to(home).parts)
    tricks = (
        f"{up}outside/{folder.name}",
        str(outside),
        f"./{folder.name}",
        f"{folder.name}/",
        f"{folder.name}\0",
        "",
        "..",
        ".",
    )
    path = folder.parent / "current.json"
    pointer = json.loads(path.read_bytes())
    pointer["version"] = tricks[int(rng.integers(len(tricks)))]
    replace(path, canonical(pointer))


def folder_that_leads_out(folder: Path, home: Path, rng: Rng) -> None:
    """The version, its partition or its stage is a link to a folder outside the lake."""
    way = [folder, folder.parent, folder.parent.parent]
    moved = way[int(rng.integers(len(way)))]
    moved.rename(home / "outside")
    moved.symlink_to(home / "outside", target_is_directory=True)


def file_twice(folder: Path, home: Path, rng: Rng) -> None:
    """The manifest names a file twice, once with other bytes."""

    def change(manifest: dict[str, Any]) -> None:
        first = manifest["files"][0]
        manifest["files"].append({**first, "sha256": "0" * 64})

    agree(folder, change)


def version_of_another(folder: Path, home: Path, rng: Rng) -> None:
    """The manifest says that it is that of another partition."""
    names = ("simulated/clicks/2023-05-01", "simulated/checkpoint/snert/2023-05-01.rolling", "a/b", "../x/y/z", 7)
    agree(folder, lambda manifest: manifest.update(ref=names[int(rng.integers(len(names)))]))


RECORDS: dict[str, Callable[[Path, Path, Rng], None]] = {
    "name that leads out": name_that_leads_out,
    "pointer that leads out": pointer_that_leads_out,
    "folder that leads out": folder_that_leads_out,
    "file twice in the manifest": file_twice,
    "manifest of another partition": version_of_another,
}
"""Lies that only records can tell: the version's folder, the home."""
