"""Both heads at every nested size (Matryoshka, arXiv:2205.13147): one InfoNCE for each dim of each head."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from colmrl.losses.contrastive import info_nce
from colmrl.scoring import MultiVectors, dot, maxsim, truncate


def single_losses(
    queries: Float[Tensor, "q h"],
    documents: Float[Tensor, "d h"],
    known_positive: Bool[Tensor, "q d"],
    dims: Sequence[int],
    temperature: float,
    margin: float | None,
    symmetric: bool,
) -> dict[str, Float[Tensor, ""]]:
    """View name → loss, one for each dim of the single head."""
    return {
        f"single@{dim}": info_nce(
            dot(truncate(queries, dim), truncate(documents, dim)), known_positive, temperature, margin, symmetric
        )
        for dim in dims
    }


def multi_losses(
    queries: MultiVectors,
    documents: MultiVectors,
    known_positive: Bool[Tensor, "q d"],
    dims: Sequence[int],
    temperature: float,
    margin: float | None,
    symmetric: bool,
) -> dict[str, Float[Tensor, ""]]:
    """View name → loss, one for each dim of the multi head."""
    return {
        f"multi@{dim}": info_nce(
            maxsim(queries.truncate(dim), documents.truncate(dim)), known_positive, temperature, margin, symmetric
        )
        for dim in dims
    }


def total(losses: dict[str, Float[Tensor, ""]]) -> Float[Tensor, ""]:
    """The mean over each head's dims, then the sum over the heads: both heads weigh the same."""
    heads = dict.fromkeys(name.partition("@")[0] for name in losses)
    return torch.stack(
        [torch.stack([loss for name, loss in losses.items() if name.startswith(head)]).mean() for head in heads]
    ).sum()
