"""InfoNCE (arXiv:1807.03748) and the pairwise loss of ColPali (arXiv:2407.01449), false negatives masked.

One direction a call, one number a row: the caller averages, and turns the matrix for the other direction. Rows are
queries (or positives), columns all candidates (or all queries) of all processes. Letters: q rows, d columns, n explicit
negatives.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F


def false_negatives(
    scores: Float[Tensor, "q d"], labels: Int[Tensor, " q"], known: Bool[Tensor, "q d"], margin: float | None
) -> Bool[Tensor, "q d"]:
    """Columns that must not count as a row's negatives: known answers, and those that score above the row's own
    answer by `margin` (None: scores are not looked at). A row's own answer, its label, is never among them.
    """
    mask = known.clone()
    if margin is not None:
        own = scores.detach().gather(1, labels[:, None])
        mask |= scores.detach() > own + margin
    return mask.scatter(1, labels[:, None], False)


def info_nce(
    scores: Float[Tensor, "q d"],
    labels: Int[Tensor, " q"],
    masked: Bool[Tensor, "q d"],
    temperature: float | Float[Tensor, ""],
) -> Float[Tensor, " q"]:
    """Cross-entropy of each row's own answer among all columns that are not masked."""
    return F.cross_entropy((scores / temperature).masked_fill(masked, float("-inf")), labels, reduction="none")


def pairwise(
    logits: Float[Tensor, "q d"],
    labels: Int[Tensor, " q"],
    masked: Bool[Tensor, "q d"],
    negatives: Int[Tensor, "q n"],
) -> Float[Tensor, " q"]:
    """softplus(negative − positive), the mean over a query's explicit negatives (-1: none); where it has none, of the
    hardest candidate that is not masked, as ColPali does without mined negatives. `logits`: scores over temperature.
    """
    own = logits.gather(1, labels[:, None])
    there = (negatives >= 0) & ~masked.gather(1, negatives.clamp_min(0))
    margins = F.softplus(logits.gather(1, negatives.clamp_min(0)) - own)
    explicit = (margins * there).sum(1) / there.sum(1).clamp_min(1)
    others = logits.masked_fill(masked.scatter(1, labels[:, None], True), torch.finfo(logits.dtype).min)
    return torch.where(there.any(1), explicit, F.softplus(others.amax(1) - own[:, 0]))
