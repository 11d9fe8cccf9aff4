"""The two heads on the backbone's hidden states. Letters: b records, n positions, h hidden width."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from colmrl.config import DenseConfig, MultiConfig, SingleConfig
from colmrl.errors import InputError
from colmrl.scoring import MultiVectors


class Dense(nn.Module):
    """A linear layer with what sentence-transformers and PyLate put around it."""

    def __init__(self, config: DenseConfig, width: int):
        super().__init__()
        self.linear = nn.Linear(width, config.width, bias=config.bias)
        self.activation = _ACTIVATIONS[config.activation]()
        self.adds_input = config.residual
        projected = config.residual and width != config.width
        self.residual = nn.Linear(width, config.width, bias=False) if projected else nn.Identity()

    def forward(self, given: Float[Tensor, "*b h"]) -> Float[Tensor, "*b w"]:
        made = self.activation(self.linear(given))
        return made + self.residual(given) if self.adds_input else made


_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "none": nn.Identity,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
}


def _dense(layers: Sequence[DenseConfig], width: int) -> tuple[nn.Sequential, int]:
    """The layers on `width` units, and how many units they give."""
    widths = [width, *(layer.width for layer in layers)]
    return nn.Sequential(*[Dense(layer, w) for layer, w in zip(layers, widths, strict=False)]), widths[-1]


class SingleHead(nn.Module):
    """Pooled hidden states, optionally projected, normalised; every prefix in `dims` is a vector of its own."""

    def __init__(self, config: SingleConfig, hidden_size: int):
        super().__init__()
        self.dense, width = _dense(config.dense, hidden_size)
        given, width = width, config.projection or width
        if max(config.dims) > width:
            raise InputError(
                f"single.dims: {max(config.dims)} is more than the backbone's {width} hidden units: "
                "lower it, or set single.projection"
            )
        self.pooling = config.pooling
        self.projection = nn.Linear(given, width, bias=config.bias) if config.projection else None
        self.dim = max(config.dims)

    def forward(self, hidden: Float[Tensor, "b n h"], mask: Bool[Tensor, "b n"]) -> Float[Tensor, "b dim"]:
        pooled = self.dense(pool(hidden.float(), mask, self.pooling))
        projected = self.projection(pooled) if self.projection is not None else pooled
        return F.normalize(projected[:, : self.dim].float(), dim=-1)


class MultiHead(nn.Module):
    """One normalised vector for every position that `mask` keeps (ColPali, arXiv:2407.01449)."""

    def __init__(self, config: MultiConfig, hidden_size: int):
        super().__init__()
        self.dim = max(config.dims)
        self.dense, width = _dense(config.dense, hidden_size)
        if not config.projection and self.dim > width:
            raise InputError(f"multi.dims: {self.dim} is more than the {width} units there are: lower it")
        self.projection = nn.Linear(width, self.dim, bias=config.bias) if config.projection else None

    def forward(self, hidden: Float[Tensor, "b n h"], mask: Bool[Tensor, "b n"]) -> MultiVectors:
        made = self.dense(hidden[mask].float())
        projected = self.projection(made) if self.projection is not None else made[:, : self.dim]
        vectors = F.normalize(projected.float(), dim=-1)  # autocast
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
