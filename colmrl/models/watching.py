"""Where in a layer some tokens look: attention weights, which fast kernels do not give.

A layer's queries and keys are kept on their way to sdpa, whatever the family (transformers' `AttentionInterface`), so
that the weights of the few tokens that are asked for can be had, without n × n of them.

Letters: b rows, h heads, g heads of keys, n tokens, m tokens with what is cached, d a head's width, r tokens asked for.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

_WATCHED = "colmrl_watched"


@dataclass
class Watched:
    """What went into the attention of the language model's layer in this place, from 0."""

    layer: int
    query: Float[Tensor, "b h n d"] | None = None
    key: Float[Tensor, "b g m d"] | None = None
    mask: Bool[Tensor, "b 1 n m"] | None = None  # None: causal
    scaling: float = 1.0

    def weights(self, rows: Int[Tensor, " r"], places: Int[Tensor, " r"]) -> Float[Tensor, "r h m"]:
        """How much the tokens in these places look at each token; 1 together."""
        assert self.query is not None and self.key is not None, "no such layer was run"
        asked, keys = self.query[rows, :, places].float(), self.key[rows].float()
        grouped = asked.unflatten(1, (keys.shape[1], -1))
        logits = torch.einsum("rgqd,rgmd->rgqm", grouped, keys).flatten(1, 2) * self.scaling
        if self.mask is None:
            seen = torch.arange(keys.shape[2], device=keys.device) <= places[:, None]
        else:
            seen = self.mask[rows, 0, places]
        return logits.masked_fill(~seen[:, None], -torch.inf).softmax(-1)


_NOW: ContextVar[Watched | None] = ContextVar("watched", default=None)


@contextmanager
def watching(text_config: Any, layer: int) -> Iterator[Watched]:
    """Of the language model that has this config and runs with sdpa, one of its layers."""
    before, watched = text_config._attn_implementation, Watched(layer)
    assert before == "sdpa", "only what goes to sdpa is watched"
    token = _NOW.set(watched)
    text_config._attn_implementation = _WATCHED
    try:
        yield watched
    finally:
        text_config._attn_implementation = before
        _NOW.reset(token)


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **given: Any
) -> tuple[Tensor, None]:
    watched = _NOW.get()
    if watched is not None and watched.layer == getattr(module, "layer_idx", None):
        watched.query, watched.key, watched.mask = query, key, attention_mask
        scaling = given.get("scaling")
        watched.scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    return sdpa_attention_forward(module, query, key, value, attention_mask, **given)


AttentionInterface.register(_WATCHED, _attend)
AttentionMaskInterface.register(_WATCHED, sdpa_mask)
