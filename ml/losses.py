"""SNeRT's training losses, and the two measures of embedding collapse drawn as training curves.

Belongs here: InfoNCE with masked negatives, the log-determinant regulariser (document 1, Eq. 4.6), effective rank
(Eq. 2.9, A.10) and average cosine (Eq. 2.8) of a batch, on torch tensors. Does not belong here: the evaluation's own
measures (`ml.metrics`) and the training loop (`ml.train`).
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def info_nce(
    user: Tensor,
    positive: Tensor,
    negative: Tensor,
    valid: Tensor,
    temperature: float,
    log_q: Tensor | None = None,
) -> Tensor:
    """InfoNCE of one positive against its own K negatives, mean over the batch (document 1, Sec. 2.3.1 and 4.4).

    `user`, `positive` [B, d]; `negative` [B, K, d]; `valid` bool [B, K], False leaves that negative out;
    `log_q` float32 [B, 1 + K], subtracted from the logits (positive first): the log density of the sampler. Scalar,
    float32.
    """
    above = (user * positive).sum(-1, keepdim=True)
    below = torch.einsum("bd,bkd->bk", user, negative)
    logits = torch.cat([above, below], dim=1).float() / temperature
    if log_q is not None:
        logits = logits - log_q
    outside = F.pad(~valid, (1, 0), value=False)
    logits = logits.masked_fill(outside, float("-inf"))
    return F.cross_entropy(logits, torch.zeros(len(user), dtype=torch.int64, device=user.device))


def covariance(vectors: Tensor, ridge: float) -> Tensor:
    """Covariance [d, d] of the rows of `vectors` [n, d] in float32 plus `ridge` on the diagonal (n >= 1)."""
    centred = vectors.float() - vectors.float().mean(0, keepdim=True)
    matrix = centred.T @ centred / max(len(vectors) - 1, 1)
    return matrix + ridge * torch.eye(vectors.shape[1], device=vectors.device)


def log_det(user: Tensor, article: Tensor, ridge: float) -> Tensor:
    """Eq. 4.6 without its λ: tr(Σ_U + Σ_A) - log det(Σ_U Σ_A), scalar float32.

    `user` [B, d], `article` [n, d]. The determinant of the product is the product of the determinants; the ridge keeps
    it finite where a batch spans fewer than d directions.
    """
    with torch.autocast(device_type=user.device.type, enabled=False):
        parts = [covariance(vectors, ridge) for vectors in (user, article)]
        return sum((torch.trace(m) - torch.linalg.slogdet(m).logabsdet for m in parts), torch.zeros(()).to(user.device))


def effective_rank(vectors: Tensor) -> float:
    """Effective rank relative to d (Eq. 2.9 over singular values of the uncentred matrix, Eq. A.10), in [0, 1]."""
    sigma = torch.linalg.svdvals(vectors.detach().float())
    p = sigma / sigma.sum().clamp_min(1e-12)
    entropy = -torch.special.xlogy(p, p).sum()
    return float(torch.exp(entropy)) / vectors.shape[1]


def average_cosine(vectors: Tensor) -> float:
    """Mean cosine similarity of all pairs of different rows (Eq. 2.8); NaN for fewer than two rows."""
    n = len(vectors)
    if n < 2:
        return float("nan")
    total = F.normalize(vectors.detach().float(), dim=1).sum(0)
    return (float(total @ total) - n) / (n * (n - 1))
