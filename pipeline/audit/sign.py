"""`newsrec audit sign` and `verify --key`: Ed25519 over a report's root digest.

Belongs here: keys, the signed message, signatures beside a report. Does not belong here: what the digest stands for
(`resources.lineage`).

The message names format, partition and manifest digest, so that a signature says nothing of anything else:
`newsrec audit 1\\n<partition>\\n<manifest digest>\\n`.
"""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from ml.errors import DataError, UsageError
from ml.strangers import FORM, read_bytes, read_object
from resources.lineage.archive import SIGNATURE, Finding
from resources.lineage.graph import Node
from resources.manifest import canonical

FORMAT = 1
KEY_BYTES = 1 << 16


def message(ref: str, digest: str) -> bytes:
    """The signed bytes."""
    return f"newsrec audit {FORMAT}\n{ref}\n{digest}\n".encode()


def new_key(path: Path) -> Path:
    """Write a private key (PEM, readable by its owner only) and its public half beside it; gives the latter's path."""
    public = path.with_name(f"{path.name}.pub")
    key = Ed25519PrivateKey.generate()
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as stream:
            stream.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}: choose a new file in a folder that can be written") from error
    return public


def private_key(path: Path) -> Ed25519PrivateKey:
    """Read an unencrypted PEM key. Raises UsageError for anything but an Ed25519 private key."""
    try:
        key = load_pem_private_key(read_bytes(path, most=KEY_BYTES), password=None)
    except (DataError, OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UsageError(f"{path} is no private key in PEM form: make one with `newsrec audit keygen`") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"{path} is no Ed25519 key: make one with `newsrec audit keygen`")
    return key


def public_key(path: Path) -> Ed25519PublicKey:
    """Read a PEM key. Raises UsageError for anything but an Ed25519 public key."""
    try:
        key = load_pem_public_key(read_bytes(path, most=KEY_BYTES))
    except (DataError, OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UsageError(f"{path} is no public key in PEM form: give the file that ends in .pub") from error
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError(f"{path} is no Ed25519 key")
    return key


def signature_path(node: Node) -> Path:
    """Beside the version's folder, so that the version's own bytes stay as they are."""
    if node.kept is None:
        raise UsageError(f"{node.ref} is {node.state}: there is nothing to sign")
    return node.kept.path.with_name(f"{node.version}{SIGNATURE}")


def sign(node: Node, key: Ed25519PrivateKey, by: str) -> Path:
    """Add a signature over the version's digest to its signature file, in one replacement; gives the file."""
    path = signature_path(node)
    known = [s for s in _signatures(path, node) if s["key"] != _name(key.public_key())]
    made = {
        "key": _name(key.public_key()),
        "signature": key.sign(message(str(node.ref), node.id)).hex(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "by": by,
    }
    value = {"format": FORMAT, "ref": str(node.ref), "manifest": node.id, "signatures": [*known, made]}
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_bytes(canonical(value))
    temporary.replace(path)
    return path


def check(node: Node, key: Ed25519PublicKey) -> list[Finding]:
    """[] when the version carries a sound signature of `key`."""
    ref = str(node.ref)
    try:
        own = [s for s in _signatures(signature_path(node), node) if s["key"] == _name(key)]
        if not own:
            return [Finding(ref, "signature", f"no signature of key {_name(key)[:16]}")]
        key.verify(bytes.fromhex(own[0]["signature"]), message(ref, node.id))
    except InvalidSignature:
        return [Finding(ref, "signature", f"the signature of key {_name(key)[:16]} is not over this version")]
    except (UsageError, ValueError) as error:
        return [Finding(ref, "signature", str(error))]
    return []


def _signatures(path: Path, node: Node) -> list[dict[str, Any]]:
    if not os.path.lexists(path):
        return []
    try:
        value = read_object(path)
        found = [{k: str(s[k]) for k in ("key", "signature", "at", "by")} for s in value["signatures"]]
        sound = value["ref"] == str(node.ref) and value["manifest"] == node.id
    except (OSError, DataError, *FORM):
        sound = False
    if not sound:
        raise UsageError(f"{path.name} is damaged or that of another version: remove it and sign again")
    return found


def _name(key: Ed25519PublicKey) -> str:
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
