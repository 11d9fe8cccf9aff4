"""Losses over the scores of a query's candidates, which are logits. Letters: q queries, d candidates of each.

`there` says which candidates a query has; the others, padding, count for nothing.
BCE and pairwise: as in sentence-transformers' cross-encoders (pairwise is RankNet's logistic, Burges et al. 2005).
softmax: ListNet's top one with one right answer.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F


def binary_cross_entropy(
    scores: Float[Tensor, "q d"], labels: Float[Tensor, "q d"], there: Bool[Tensor, "q d"]
) -> Float[Tensor, ""]:
    """Each candidate by itself: is it right? The mean over all candidates."""
    return F.binary_cross_entropy_with_logits(scores[there].float(), labels[there].float())


def pairwise_logistic(scores: Float[Tensor, "q d"], there: Bool[Tensor, "q d"]) -> Float[Tensor, ""]:
    """The first candidate, the right one, above each other one: softplus of the margin, the mean over all pairs."""
    margins = F.softplus(scores[:, 1:].float() - scores[:, :1].float())
    return (margins * there[:, 1:]).sum() / there[:, 1:].sum().clamp(min=1)


def softmax_over_list(scores: Float[Tensor, "q d"], there: Bool[Tensor, "q d"]) -> Float[Tensor, ""]:
    """Cross-entropy of the first candidate, the right one, among a query's."""
    masked = scores.float().masked_fill(~there, float("-inf"))
    return F.cross_entropy(masked, torch.zeros(len(scores), dtype=torch.long, device=scores.device))
