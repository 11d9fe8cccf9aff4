"""Vision towers that take all pictures' patches one after another: what transformers does a piece at a time, at once.

Attention stays within a picture, or within a window of a few patches: transformers calls its kernel once for each,
hundreds of times a layer, save where flash attention takes all of them. Here pieces of equal length are a batch, and
one call: to rounding the same.

Source: the extension point that transformers documents, `AttentionInterface`. Letters: n patches, a heads, d width.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface

_NAME = "colmrl_instead_of_flash"  # transformers gives every piece's length to what has "flash" in its name


def speed_up_vision(model: Any) -> None:
    """Of a model whose pictures are packed, and whose attention is sdpa; others stay as they are."""
    vision: Any = getattr(model.config, "vision_config", None)
    if not hasattr(vision, "spatial_merge_size") or vision._attn_implementation != "sdpa":
        return
    AttentionInterface.register(_NAME, _attend)
    vision._attn_implementation = _NAME


def _attend(
    module: nn.Module,
    query: Float[Tensor, "1 a n d"],
    key: Float[Tensor, "1 a n d"],
    value: Float[Tensor, "1 a n d"],
    attention_mask: None,
    *,
    cu_seq_lens_q: Int[Tensor, " pieces_and_one"],
    scaling: float,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Float[Tensor, "1 n a d"], None]:
    lengths = cu_seq_lens_q.diff()
    pieces = lengths.argsort(stable=True)
    groups = torch.unique_consecutive(lengths[pieces], return_counts=True)
    rows = _rows(cu_seq_lens_q, pieces) if len(groups[0]) > 1 else None
    query, key, value = (_picked(part[0].transpose(0, 1), rows) for part in (query, key, value))
    made, start = [], 0
    for length, count in zip(*(numbers.tolist() for numbers in groups), strict=True):
        stop = start + length * count
        some = (part[start:stop].unflatten(0, (count, length)).transpose(1, 2) for part in (query, key, value))
        attended = F.scaled_dot_product_attention(*some, dropout_p=dropout, scale=scaling)
        made.append(attended.transpose(1, 2).flatten(0, 1))
        start = stop
    together = torch.cat(made) if rows is None else torch.cat(made)[rows.argsort()]
    return together[None], None


def _picked(patches: Float[Tensor, "n a d"], rows: Int[Tensor, " n"] | None) -> Float[Tensor, "n a d"]:
    return patches if rows is None else patches[rows]


def _rows(starts: Int[Tensor, " pieces_and_one"], pieces: Int[Tensor, " pieces"]) -> Int[Tensor, " n"]:
    """Which patches the pieces are, one piece after another."""
    lengths = starts.diff()[pieces]
    first = torch.repeat_interleave(starts[pieces] - (lengths.cumsum(0) - lengths), lengths)
    return first + torch.arange(len(first), device=starts.device)
