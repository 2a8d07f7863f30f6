"""Losses: hand-computed InfoNCE, masking, the log-determinant against NumPy and closed forms."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from ml.losses import covariance, info_nce, log_det


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_info_nce_of_a_hand_computed_case() -> None:
    user = torch.tensor([[1.0, 0.0]])
    articles = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]])
    got = info_nce(user, articles, torch.ones(1, 2, dtype=torch.bool), temperature=0.5)
    assert float(got) == pytest.approx(-2 + math.log(math.exp(2) + math.exp(0) + math.exp(-2)), rel=1e-6)


def test_masked_negatives_change_nothing_and_get_no_gradient() -> None:
    user, articles = unit(4, 8), unit(4, 7, 8, seed=2).requires_grad_()
    valid = torch.ones(4, 6, dtype=torch.bool)
    valid[:, 4:] = False
    masked = info_nce(user, articles, valid, 0.2)
    assert torch.equal(masked, info_nce(user, articles[:, :5], valid[:, :4], 0.2))
    masked.backward()
    assert torch.all(articles.grad[:, 5:] == 0) and torch.any(articles.grad[:, :5] != 0)


def test_without_any_valid_negative_the_loss_is_zero() -> None:
    assert float(info_nce(unit(3, 4), unit(3, 3, 4), torch.zeros(3, 2, dtype=torch.bool), 0.1)) == 0


@settings(max_examples=20, deadline=None)
@given(st.floats(-3, 3), st.integers(0, 1000))
def test_a_constant_log_density_cancels(shift: float, seed: int) -> None:
    user, articles = unit(5, 8, seed=seed), unit(5, 4, 8, seed=seed + 1)
    valid = torch.ones(5, 3, dtype=torch.bool)
    plain = info_nce(user, articles, valid, 0.3)
    shifted = info_nce(user, articles, valid, 0.3, torch.full((5, 4), shift))
    assert float(plain) == pytest.approx(float(shifted), abs=1e-5)


def test_corrected_for_the_sampler_the_optimum_is_the_data_distribution() -> None:
    """Negatives drawn from q: with log q subtracted, free logits learn p(a) and not p(a) / q(a)."""
    p, q = torch.tensor([0.6, 0.3, 0.1]), torch.tensor([0.2, 0.2, 0.6])
    generator = torch.Generator().manual_seed(0)
    logit = torch.zeros(3, requires_grad=True)
    optimiser = torch.optim.Adam([logit], lr=0.02)
    for _ in range(400):
        drawn = torch.cat(
            [
                torch.multinomial(p, 256, replacement=True, generator=generator)[:, None],
                torch.multinomial(q, 256 * 32, replacement=True, generator=generator).view(256, 32),
            ],
            dim=1,
        )
        user = torch.ones(256, 1)
        vectors = logit[drawn].unsqueeze(-1)
        valid = torch.ones(256, 32, dtype=torch.bool)
        loss = info_nce(user, vectors, valid, 1.0, q.log()[drawn])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert torch.softmax(logit.detach(), 0).numpy() == pytest.approx(p.numpy(), abs=0.05)


def test_log_det_equals_numpy() -> None:
    user, article, ridge = unit(200, 6), unit(300, 6, seed=3), 1e-4
    su, sa = (np.cov(v.double().numpy(), rowvar=False) + ridge * np.eye(6) for v in (user, article))
    expected = np.trace(su + sa) - np.linalg.slogdet(su @ sa)[1]
    assert float(log_det(user, article, ridge)) == pytest.approx(expected, rel=1e-4)


def test_log_det_is_finite_on_collapsed_vectors_and_least_when_spread() -> None:
    collapsed = unit(1, 8).expand(64, 8)
    spread = unit(4096, 8)
    low_rank = torch.cat([unit(4096, 3), torch.zeros(4096, 5)], dim=1)
    values = [float(log_det(v, v, 1e-5)) for v in (collapsed, low_rank, spread)]
    assert all(map(math.isfinite, values)) and values[0] > values[1] > values[2]


def test_log_det_has_finite_gradients_with_fewer_rows_than_dimensions() -> None:
    user = unit(5, 32).requires_grad_()
    log_det(user, unit(3, 32, seed=1), 1e-5).backward()
    assert torch.isfinite(user.grad).all()


def test_covariance_is_float32_under_autocast() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert log_det(unit(64, 4).bfloat16(), unit(64, 4), 1e-5).dtype == torch.float32
    assert torch.allclose(covariance(torch.zeros(3, 2), 0.5), 0.5 * torch.eye(2))
