"""A head at every nested size (Matryoshka, arXiv:2205.13147): one InfoNCE for each dim, from one forward pass."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from colmrl.config import LossConfig
from colmrl.losses.contrastive import info_nce


def nested_losses(
    head: str,
    dims: Sequence[int],
    scores_at: Callable[[int], Float[Tensor, "q d"]],
    known_positive: Bool[Tensor, "q d"],
    temperature: float,
    config: LossConfig,
) -> dict[str, Float[Tensor, ""]]:
    """View name (`head@dim`) → loss; `scores_at(dim)` are the head's scores from the first `dim` dims alone."""
    margin = config.false_negative_margin
    return {f"{head}@{dim}": info_nce(scores_at(dim), known_positive, temperature, margin) for dim in dims}


def total(losses: dict[str, Float[Tensor, ""]]) -> Float[Tensor, ""]:
    """The mean over each head's dims, then the sum over the heads: both heads weigh the same."""
    heads = dict.fromkeys(name.partition("@")[0] for name in losses)
    return torch.stack(
        [torch.stack([loss for name, loss in losses.items() if name.startswith(head)]).mean() for head in heads]
    ).sum()
