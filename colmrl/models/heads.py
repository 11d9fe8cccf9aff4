"""The two heads on the backbone's hidden states. Letters: b records, n positions, h hidden width."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from colmrl.config import MultiConfig, SingleConfig
from colmrl.errors import InputError
from colmrl.scoring import MultiVectors


class SingleHead(nn.Module):
    """Pooled hidden states, optionally projected, normalised; every prefix in `dims` is a vector of its own."""

    def __init__(self, config: SingleConfig, hidden_size: int):
        super().__init__()
        width = config.projection or hidden_size
        if max(config.dims) > width:
            raise InputError(
                f"single.dims: {max(config.dims)} is more than the backbone's {hidden_size} hidden units: "
                "lower it, or set single.projection"
            )
        self.pooling = config.pooling
        self.projection = nn.Linear(hidden_size, width, bias=False) if config.projection else None
        self.dim = max(config.dims)

    def forward(self, hidden: Float[Tensor, "b n h"], mask: Bool[Tensor, "b n"]) -> Float[Tensor, "b dim"]:
        pooled = pool(hidden.float(), mask, self.pooling)
        projected = self.projection(pooled) if self.projection is not None else pooled
        return F.normalize(projected[:, : self.dim].float(), dim=-1)


class MultiHead(nn.Module):
    """One normalised vector for every position that holds a token (ColPali, arXiv:2407.01449)."""

    def __init__(self, config: MultiConfig, hidden_size: int):
        super().__init__()
        self.projection = nn.Linear(hidden_size, max(config.dims), bias=False)

    def forward(self, hidden: Float[Tensor, "b n h"], mask: Bool[Tensor, "b n"]) -> MultiVectors:
        vectors = F.normalize(self.projection(hidden[mask].float()).float(), dim=-1)  # autocast
        offsets = F.pad(mask.sum(1).cumsum(0), (1, 0))
        return MultiVectors(vectors, offsets)


def pool(hidden: Float[Tensor, "b n h"], mask: Bool[Tensor, "b n"], pooling: str) -> Float[Tensor, "b h"]:
    """mean: of all tokens; last, cls: the last and first token, on whichever side the padding is."""
    match pooling:
        case "mean":
            weights = mask.to(hidden)[:, :, None]
            return (hidden * weights).sum(1) / weights.sum(1)
        case "last":
            positions = torch.arange(mask.shape[1], device=mask.device)
            return hidden[torch.arange(len(hidden), device=mask.device), (positions * mask).argmax(1)]
        case "cls":
            return hidden[torch.arange(len(hidden), device=mask.device), mask.int().argmax(1)]
        case _:
            raise AssertionError(pooling)
