"""Vectors equal to the plain library's, encoded once, the same whatever stands beside them."""

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ml.errors import DataError, UsageError
from pipeline.benchmarks.text import small_encoder
from resources import text_encoder
from resources.text_encoder import PACKAGED, TextEncoder, pool, text_digest

WORDS = [f"w{c}{d}" for c in "abcdefgh" for d in "ijklmnop"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT with random weights and a vocabulary of its own."""
    return small_encoder(tmp_path_factory.mktemp("models") / "tiny_bert", WORDS, layers=2, width=32, longest=64)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    rng = random.Random(0)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, 50))) for _ in range(60)] + ["", "unheard of"]


def encode(encoder: TextEncoder, texts: list[str], cache: Path, log: list[str] | None = None) -> np.ndarray:
    return encoder.encode(texts, [text_digest(t) for t in texts], cache, [].append if log is None else log.append)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_equal_to_transformers_one_text_at_a_time(model: Path, texts: list[str], tmp_path: Path, pooling: str) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, plain = AutoTokenizer.from_pretrained(model), AutoModel.from_pretrained(model).eval()
    expected = []
    for text in texts:
        with torch.no_grad():
            hidden = plain(**tokenizer(text, return_tensors="pt", truncation=True, max_length=32)).last_hidden_state[0]
        vector = hidden[0] if pooling == "cls" else hidden.mean(dim=0)
        expected.append((vector / vector.norm()).numpy())
    found = encode(TextEncoder(str(model), pooling=pooling, max_tokens=32, device="cpu"), texts, tmp_path)
    assert found.dtype == np.float32 and found.shape == (len(texts), 32)
    np.testing.assert_allclose(found, np.stack(expected), atol=1e-6)


def test_pooling_by_hand() -> None:
    import torch

    hidden = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [100.0, 100.0]]])
    mask = torch.tensor([[1, 1, 0]])
    assert pool(hidden, mask, "cls").tolist() == [[1.0, 2.0]]
    assert pool(hidden, mask, "mean").tolist() == [[2.0, 3.0]]


def test_the_texts_beside_it_do_not_matter(model: Path, texts: list[str], tmp_path: Path) -> None:
    encoder = TextEncoder(str(model), device="cpu")
    together = encode(encoder, texts, tmp_path / "all")
    for number in (0, 7, 30):
        alone = encode(encoder, [texts[number]], tmp_path / str(number))
        np.testing.assert_allclose(alone[0], together[number], atol=1e-6)


def test_only_new_texts_are_encoded(model: Path, texts: list[str], tmp_path: Path) -> None:
    log: list[str] = []
    first = encode(TextEncoder(str(model), device="cpu"), texts[:20], tmp_path, log)
    assert "encoded 20 of 20 texts" in log[-1]
    again = TextEncoder(str(model), device="cpu")
    mixed = encode(again, [*texts[10:30], texts[10]], tmp_path, log)
    assert "encoded 10 of 10 texts" in log[-1]
    np.testing.assert_array_equal(mixed[:10], first[10:20])
    np.testing.assert_array_equal(mixed[20], mixed[0])
    count = len(log)
    np.testing.assert_array_equal(encode(again, texts[:20], tmp_path, log), first)
    assert len(log) == count
    assert encode(again, [], tmp_path).shape[0] == 0


def test_another_encoder_has_a_cache_of_its_own(model: Path, texts: list[str], tmp_path: Path) -> None:
    cls = encode(TextEncoder(str(model), pooling="cls", device="cpu"), texts, tmp_path)
    mean = encode(TextEncoder(str(model), pooling="mean", device="cpu"), texts, tmp_path)
    assert np.abs(cls - mean).max() > 0.01
    assert len(list(tmp_path.iterdir())) == 2


def test_an_interruption_loses_little(
    model: Path, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_encoder, "BATCH_TOKENS", {"cpu": 64, "cuda": 64})
    monkeypatch.setattr(text_encoder, "BATCHES_PER_CHUNK", 2)
    encoder = TextEncoder(str(model), device="cpu")
    plain, calls = encoder._vectors, 0

    def interrupted(tokens: list[list[int]]) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls == 12:
            raise KeyboardInterrupt
        return plain(tokens)

    monkeypatch.setattr(encoder, "_vectors", interrupted)
    log: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        encode(encoder, texts, tmp_path, log)
    done = int(log[-1].split()[1])
    encode(encoder, texts, tmp_path, log)
    assert 0 < done < len(texts)
    assert f"of {len(texts) - done} texts" in log[-1]


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b[:60] + bytes([b[60] ^ 8]) + b[61:]])
def test_a_damaged_chunk_is_named(model: Path, texts: list[str], tmp_path: Path, damage: object) -> None:
    encode(TextEncoder(str(model), device="cpu"), texts[:5], tmp_path)
    (chunk,) = tmp_path.rglob("*.parquet")
    chunk.write_bytes(damage(chunk.read_bytes()))  # type: ignore[operator]
    with pytest.raises(DataError, match=chunk.name):
        encode(TextEncoder(str(model), device="cpu"), texts[:5], tmp_path)


def test_the_identity_names_what_determines_the_vectors(model: Path, tmp_path: Path) -> None:
    base = TextEncoder(str(model)).identity
    assert base["name"] == "tiny_bert" and base["pooling"] == "mean" and len(base["sha256"]) == 64
    assert str(model.parent) not in str(base)
    assert TextEncoder(str(model), pooling="cls").identity != base
    assert TextEncoder(str(model), max_tokens=16).identity != base
    revision = "0" * 40
    assert TextEncoder("org/name", revision).identity["revision"] == revision


def test_a_hub_name_needs_a_pinned_revision() -> None:
    for revision in (None, "main", "0" * 39):
        with pytest.raises(UsageError, match="40 digits"):
            TextEncoder("org/name", revision)
    with pytest.raises(UsageError, match="cls or mean"):
        TextEncoder(PACKAGED, pooling="max")


def test_nothing_is_downloaded_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refuse(*_: object) -> None:
        raise AssertionError("tried to reach the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(UsageError, match=r"org/name .* not on this machine"):
        encode(TextEncoder("org/name", "0" * 40, device="cpu"), ["a"], tmp_path)


def test_changed_packaged_weights_are_refused(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = TextEncoder(PACKAGED, device="cpu")
    monkeypatch.setattr(encoder, "_folder", model)
    with pytest.raises(DataError, match="not the published"):
        encode(encoder, ["a"], tmp_path)


def test_the_packaged_encoder_knows_what_is_alike(tmp_path: Path) -> None:
    texts = ["The team won the football match", "A late goal decided the game", "The bank raised its interest rate"]
    a, b, c = encode(TextEncoder(device="cpu"), texts, tmp_path)
    assert a.shape == (384,)
    assert a @ b > 2 * max(a @ c, b @ c)


def test_heavy_libraries_wait_for_use() -> None:
    heavy = "{'torch', 'transformers', 'sentence_transformers'}"
    code = (
        f"import sys, resources.text_encoder as t; t.TextEncoder().identity; sys.exit(bool({heavy} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
