"""InfoNCE (arXiv:1807.03748) with explicit negatives, in both directions, false negatives masked.

Letters: q queries, d candidates. Candidate i < q is the positive of query i; the rest are explicit negatives.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F


def false_negatives(
    scores: Float[Tensor, "q d"], known_positive: Bool[Tensor, "q d"], margin: float | None
) -> Bool[Tensor, "q d"]:
    """Candidates that must not count as negatives: known positives, and those that score above the query's own
    positive by `margin` (None: scores are not looked at). A query's own positive is never among them.
    """
    mask = known_positive.clone()
    if margin is not None:
        own = scores.detach().diagonal()  # of the leading square: candidate i is query i's positive
        mask |= scores.detach() > own[:, None] + margin
    mask.fill_diagonal_(False)
    return mask


def info_nce(
    scores: Float[Tensor, "q d"],
    known_positive: Bool[Tensor, "q d"],
    temperature: float,
    margin: float | None = None,
) -> Float[Tensor, ""]:
    """Symmetric: the mean cross-entropy of each query's positive among the candidates, and of each positive's query
    among the queries, averaged over the two directions.
    """
    labels = torch.arange(len(scores), device=scores.device)
    mask = false_negatives(scores, known_positive, margin)
    logits = (scores / temperature).masked_fill(mask, float("-inf"))
    loss = F.cross_entropy(logits, labels)
    square = scores[:, : len(scores)].T  # positives × queries
    mask = false_negatives(square, known_positive[:, : len(scores)].T, margin)
    return (loss + F.cross_entropy((square / temperature).masked_fill(mask, float("-inf")), labels)) / 2
