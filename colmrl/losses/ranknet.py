"""Weighted RankNet on a list whose order is known (FIRST, arXiv:2406.15657; RankNet, Burges et al. 2005).

Each pair that the teacher tells apart costs softplus(score of the worse - score of the better), weighted by
1 / (rank of the better + rank of the worse), ranks counted from 1 among the list: mistakes at the top cost most.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def weighted_ranknet(scores: Float[Tensor, "q c"], teacher: Float[Tensor, "q c"]) -> Float[Tensor, ""]:
    """Mean over all pairs of all lists, 0 where there are none. `teacher`: higher is better, NaN: not known."""
    known = teacher.isfinite()
    teacher = teacher.masked_fill(~known, -torch.inf)
    ranks = teacher.argsort(dim=1, descending=True).argsort(dim=1) + 1
    better = (teacher[:, :, None] > teacher[:, None, :]) & known[:, :, None] & known[:, None, :]
    weights = 1 / (ranks[:, :, None] + ranks[:, None, :]).to(scores.dtype)
    costs = weights * F.softplus(scores[:, None, :] - scores[:, :, None])
    return costs[better].sum() / better.sum().clamp(min=1)
