"""SNeRT's training losses on torch tensors.

Belongs here: InfoNCE with masked negatives and the log-determinant regulariser (document 1, Eq. 4.6). Does not belong
here: measures of collapse (`ml.metrics`) and the training loop (`ml.train`).
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def info_nce(user: Tensor, articles: Tensor, valid: Tensor, temperature: float, log_q: Tensor | None = None) -> Tensor:
    """InfoNCE of a target against its own K negatives, mean over the batch (document 1, Sec. 2.3.1 and 4.4).

    `user` [B, d]; `articles` [B, 1 + K, d], the target first; `valid` bool [B, K], False leaves that negative out;
    `log_q` float32 [B, 1 + K], subtracted from the logits: the log density of the sampler. Scalar, float32.
    """
    logits = torch.bmm(articles, user.unsqueeze(-1)).squeeze(-1).float() / temperature
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
