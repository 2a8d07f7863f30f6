"""Verify an exported audit bundle with nothing but Python (3.9 or newer): python verify_bundle.py BUNDLE [--root DIGEST]

Walks from the root digest down. Every manifest must have the sha256 by which it was named, every file the sha256 that
its manifest states, every ledger must be an unbroken chain that holds the publication. What stands above all is the
root digest: get it from somebody you trust (--root), from the signature, or from the MLflow run that the report names.
Exit code: 0 everything holds, 1 something is broken, 2 bad usage.
"""

import hashlib
import json
import re
import sys
from pathlib import Path

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=+-]*(/[A-Za-z0-9_][A-Za-z0-9_.=+-]*)*")
GENESIS = "0" * 64


def canonical(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def sha256(path):
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_ledger(path, problems):
    """Publications by manifest digest and the tombstones named, from a chain whose every line is checked."""
    publications, erased, heads, previous = {}, set(), {}, GENESIS
    data = path.read_bytes() if path.is_file() else b""
    if not data:
        problems.append(f"{path}: the ledger is missing")
    for number, line in enumerate(data[: data.rfind(b"\n") + 1].split(b"\n")[:-1], 1):
        try:
            entry = json.loads(line)
            body = {"prev": entry["prev"], "record": entry["record"]}
            digest = hashlib.sha256(canonical(body)).hexdigest()
            if entry["prev"] != previous or entry["digest"] != digest or canonical(entry) != line:
                problems.append(f"{path}: line {number} was changed, or a line before it was removed")
            previous, published = entry["digest"], entry["record"].get("publication", {})
            heads[previous] = published
            if "manifest" in published:
                publications[published["manifest"]] = published
            for stone in entry["record"].get("run", {}).get("erased", []):
                erased.add((stone["manifest"], stone["tombstone"]))
        except (ValueError, KeyError, TypeError, AttributeError):
            problems.append(f"{path}: line {number} is damaged")
            break
    return publications, erased, heads


def check_pointer(path, heads, problems):
    try:
        data = path.read_bytes()
        pointer = json.loads(data)
        published = heads[pointer["ledger"]]
        wrong = [k for k in ("version", "manifest", "recipe_key") if published[k] != pointer[k]]
        if wrong or canonical(pointer) != data:
            problems.append(f"{path}: disagrees with the ledger")
    except (OSError, ValueError, KeyError, TypeError):
        problems.append(f"{path}: is missing, damaged, or names a publication that the ledger does not hold")


def check_version(folder, manifest, problems):
    """Files of one version against its manifest; gives the number of bytes read."""
    size, listed = 0, {"manifest.json"}
    pairs = sorted([f["name"], f["sha256"]] for f in manifest["files"])
    content = hashlib.sha256(canonical(pairs)).hexdigest()
    if content != manifest["content"] or content[:16] != folder.name:
        problems.append(f"{folder}: the manifest's content digest is wrong")
    for file in manifest["files"]:
        path = folder / file["name"]
        listed.add(file["name"])
        if not NAME.fullmatch(file["name"]) or path.is_symlink() or not path.is_file():
            problems.append(f"{path}: is missing")
        elif path.stat().st_size != file["bytes"] or sha256(path) != file["sha256"]:
            problems.append(f"{path}: its bytes differ from the manifest")
        else:
            size += file["bytes"]
    for path in sorted(p for p in folder.rglob("*") if p.is_symlink() or not p.is_dir()):
        if path.relative_to(folder).as_posix() not in listed:
            problems.append(f"{path}: is not in the manifest")
    return size


def find(partition, digest, erased, problems):
    """The version folder whose manifest has this sha256 with the manifest, or a tombstone (folder None)."""
    for path in sorted(partition.glob("*/manifest.json")):
        if not path.is_symlink() and sha256(path) == digest:
            data = path.read_bytes()
            manifest = json.loads(data)
            if canonical(manifest) != data:
                problems.append(f"{path}: is not in canonical form")
            return path.parent, manifest
    for path in sorted(partition.glob("*.erased.json")):
        stone = json.loads(path.read_bytes())
        if stone["manifest"] == digest and (digest, sha256(path)) in erased:
            print(f"erased on {stone['at'][:10]} by request {stone['request']}: {stone['ref']}")
            return None, stone
    return None, None


def walk(bundle, about, problems):
    todo, seen, size, ledgers = [(about["ref"], about["root"], "the bundle")], set(), 0, {}
    while todo:
        ref, digest, user = todo.pop()
        if digest in seen:
            continue
        seen.add(digest)
        if not NAME.fullmatch(ref):
            problems.append(f"{user}: names {ref!r}, which is no partition")
            continue
        partition = bundle / "lake" / ref
        if ref not in ledgers:
            ledgers[ref] = read_ledger(partition / "ledger.jsonl", problems)
            check_pointer(partition / "current.json", ledgers[ref][2], problems)
        folder, manifest = find(partition, digest, ledgers[ref][1], problems)
        if manifest is None:
            problems.append(f"{user} -> {ref}: no manifest has the sha256 {digest}: removed, or changed")
            continue
        if manifest["ref"] != ref or (folder is not None and digest not in ledgers[ref][0]):
            problems.append(f"{ref}: the ledger never published manifest {digest}")
        size += check_version(folder, manifest, problems) if folder else 0
        inputs = manifest["inputs"]
        if digest == about["root"] and about.get("follow"):
            inputs = {name: inputs.get(name, "") for name in about["follow"]}
        todo += [(name, wanted, ref) for name, wanted in inputs.items()]
    return seen, size


def main(arguments):
    if len(arguments) not in (1, 3) or (len(arguments) == 3 and arguments[1] != "--root"):
        print(__doc__.splitlines()[0], file=sys.stderr)
        return 2
    bundle, problems = Path(arguments[0]), []
    try:
        about = json.loads((bundle / "bundle.json").read_bytes())
        if len(arguments) == 3 and about["root"] != arguments[2]:
            problems.append(f"the bundle's root is {about['root']}, you trust {arguments[2]}")
        seen, size = walk(bundle, about, problems)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        print(f"BROKEN  {bundle}: damaged, or no bundle ({error!r})")
        return 1 if bundle.is_dir() else 2
    for problem in dict.fromkeys(problems):
        print(f"BROKEN  {problem}")
    print(f"{about['title']}: root {about['root']}, {len(seen)} versions, {size:,} bytes, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
