"""Verify an exported audit bundle with nothing but Python: python verify_bundle.py BUNDLE [--root DIGEST]

Every manifest must have the sha256 by which it was named, every file the sha256 that its manifest states, every ledger
must be an unbroken chain that holds the publication. Get the root digest from a source that you trust (--root).
Exit code: 0 everything holds, 1 something is broken, 2 bad usage.
"""

import functools
import hashlib
import json
import re
import sys
from pathlib import Path

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=+-]*(/[A-Za-z0-9_][A-Za-z0-9_.=+-]*)*")
DAMAGED = (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError)
MOST = 32 << 20  # bytes of a record


def canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read(path: Path) -> bytes:
    if path.is_symlink() or not path.is_file() or path.stat().st_size > MOST:
        raise ValueError(f"{path.name} is missing, no regular file, or larger than {MOST} bytes")
    return path.read_bytes()


def read_partition(folder: Path, problems: list) -> tuple:
    """Manifest digests published and tombstones named, from a ledger whose every line is checked, and its pointer."""
    path, lines, erased, previous = folder / "ledger.jsonl", {}, set(), "0" * 64
    try:
        for number, line in enumerate(read(path).split(b"\n")[:-1], 1):
            entry = json.loads(line)
            body = {"prev": entry["prev"], "record": entry["record"]}
            digest = hashlib.sha256(canonical(body)).hexdigest()
            if entry["prev"] != previous or entry["digest"] != digest or canonical(entry) != line:
                problems.append(f"{path}: line {number} was changed, or a line before it was removed")
            previous = entry["digest"]
            lines[previous] = entry["record"].get("publication", {})
            stones = entry["record"].get("run", {}).get("erased", [])
            erased |= {(stone["manifest"], stone["tombstone"]) for stone in stones}
        path = folder / "current.json"
        pointer = json.loads(read(path))
        line, named = lines[pointer["ledger"]], ("version", "manifest", "recipe_key")
        if canonical(pointer) != path.read_bytes() or any(line[k] != pointer[k] for k in named):
            problems.append(f"{path}: disagrees with the ledger")
    except DAMAGED as error:
        problems.append(f"{path}: is missing, damaged, or names a publication that is not in the ledger ({error!r})")
    return {line.get("manifest") for line in lines.values()}, erased


def find(folder: Path, digest: str, erased: set, problems: list) -> tuple:
    """The version whose manifest has this sha256, with it; or a tombstone that the ledger names (no version)."""
    for path in sorted(folder.glob("*/manifest.json")):
        if path.is_file() and not path.is_symlink() and sha256(path) == digest:
            manifest = json.loads(read(path))
            if canonical(manifest) != path.read_bytes():
                problems.append(f"{path}: is not in canonical form")
            return path.parent, manifest
    for path in sorted(folder.glob("*.erased.json")):
        if path.is_file() and not path.is_symlink() and (digest, sha256(path)) in erased:
            stone = json.loads(read(path))
            print(ascii(f"erased on {stone['at'][:10]} by request {stone['request']}: {stone['ref']}")[1:-1])
            return None, stone
    return None, None


def check_files(folder: Path, manifest: dict, problems: list) -> int:
    """Files of one version against its manifest; gives their bytes."""
    content = hashlib.sha256(canonical(sorted([f["name"], f["sha256"]] for f in manifest["files"]))).hexdigest()
    if content != manifest["content"] or content[:16] != folder.name:
        problems.append(f"{folder}: the manifest's content digest is wrong")
    for file in manifest["files"]:
        path = folder / file["name"]
        if not NAME.fullmatch(file["name"]) or path.resolve() != folder.resolve() / file["name"] or not path.is_file():
            problems.append(f"{path}: is missing")
        elif path.stat().st_size != file["bytes"] or sha256(path) != file["sha256"]:
            problems.append(f"{path}: its bytes differ from the manifest")
    listed = {"manifest.json", *(file["name"] for file in manifest["files"])}
    for path in sorted(p for p in folder.rglob("*") if p.is_symlink() or not p.is_dir()):
        if path.relative_to(folder).as_posix() not in listed:
            problems.append(f"{path}: is not in the manifest")
    return sum(file["bytes"] for file in manifest["files"])


def check_number(path: Path, about: dict, problems: list) -> None:
    value = functools.reduce(lambda found, name: found[name], about["path"], json.loads(read(path)))
    if value != about["value"]:
        problems.append(f"{path}: says {value}, the bundle claims {about['value']}")


def walk(bundle: Path, about: dict, problems: list) -> tuple:
    """All versions under the root; gives how many they are and their bytes."""
    todo, seen, size, known = [(about["ref"], about["root"], "the bundle")], set(), 0, {}
    while todo:
        ref, digest, user = todo.pop()
        if digest in seen:
            continue
        seen.add(digest)
        folder = bundle / "lake" / ref
        if not NAME.fullmatch(ref) or folder.resolve() != bundle.resolve() / "lake" / ref:
            problems.append(f"{user}: names {ref!r}, which is no partition, or a link")
            continue
        if ref not in known:
            known[ref] = read_partition(folder, problems)
        version, manifest = find(folder, digest, known[ref][1], problems)
        if manifest is None:
            problems.append(f"{user} -> {ref}: no manifest has the sha256 {digest}: removed, or changed")
            continue
        if manifest["ref"] != ref or (version and digest not in known[ref][0]):
            problems.append(f"{ref}: the ledger never published manifest {digest}")
        size += check_files(version, manifest, problems) if version else 0
        follow = about["follow"] if digest == about["root"] else manifest["inputs"]
        if version and digest == about["root"] and about.get("path"):
            check_number(version / "report.json", about, problems)
        todo += [(name, manifest["inputs"][name], ref) for name in follow]
    return len(seen), size


def main(arguments: list) -> int:
    if len(arguments) not in (1, 3) or arguments[1:2] not in ([], ["--root"]) or not Path(arguments[0]).is_dir():
        print("usage: python verify_bundle.py BUNDLE [--root DIGEST]", file=sys.stderr)
        return 2
    bundle, problems = Path(arguments[0]), []  # type: ignore[var-annotated]
    try:
        about = json.loads(read(bundle / "bundle.json"))
        if len(arguments) == 3 and about["root"] != arguments[2]:
            problems.append(f"the bundle's root is {about['root']}, you trust {arguments[2]}")
        versions, size = walk(bundle, about, problems)
        print(ascii(f"{about['title']}: root {about['root']}, {versions} versions, {size:,} bytes")[1:-1])
    except DAMAGED as error:
        problems.append(f"{bundle}: damaged, or no bundle ({error!r})")
    for problem in dict.fromkeys(problems):
        print(ascii(f"BROKEN  {problem}")[1:-1])
    print("everything holds" if not problems else f"{len(set(problems))} broken")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
