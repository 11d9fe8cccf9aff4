"""Scores between queries and documents: dot product, and MaxSim (ColBERT, arXiv:2004.12832).

The one implementation that loss, search, mining and evaluation share. Multi-vectors are packed, never padded:
one matrix of all tokens and the offset where each item starts, so no padding can win a maximum.
Letters: q queries, d documents, t all tokens of all items, h dim.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

_BLOCK_BYTES = 1 << 28  # of similarities held at a time on a GPU
_BACKWARD_BYTES = 1 << 22  # of gradients held at a time: what stays in a cache


@dataclass(frozen=True)
class MultiVectors:
    """Items with any number of vectors each: item i is `vectors[offsets[i]:offsets[i+1]]`; none is empty."""

    vectors: Float[Tensor, "t h"]
    offsets: Int[Tensor, "items_and_one"]

    def __post_init__(self) -> None:
        assert self.offsets[0] == 0 and self.offsets[-1] == len(self.vectors)
        assert bool((self.offsets.diff() > 0).all()), "an item without vectors"

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def counts(self) -> Int[Tensor, " items"]:
        return self.offsets.diff()

    @classmethod
    def pack(cls, items: Sequence[Float[Tensor, "_ h"]]) -> "MultiVectors":
        counts = torch.tensor([0, *[len(item) for item in items]])
        return cls(torch.cat(list(items)), counts.cumsum(0))

    @classmethod
    def cat(cls, parts: Sequence["MultiVectors"]) -> "MultiVectors":
        counts = torch.cat([part.counts for part in parts])
        return cls(torch.cat([part.vectors for part in parts]), F.pad(counts.cumsum(0), (1, 0)))

    def select(self, items: Int[Tensor, " n"]) -> "MultiVectors":
        """These items, in this order; an item may be asked for more than once."""
        counts = self.counts[items]
        offsets = F.pad(counts.cumsum(0), (1, 0))
        within = torch.arange(int(offsets[-1]), device=items.device) - offsets[:-1].repeat_interleave(counts)
        return MultiVectors(self.vectors[self.offsets[items].repeat_interleave(counts) + within], offsets)

    def unpack(self) -> list[Float[Tensor, "_ h"]]:
        return list(self.vectors.split(self.counts.tolist()))

    def slice(self, start: int, stop: int) -> "MultiVectors":
        """Items start..stop, sharing memory."""
        offsets = self.offsets[start : stop + 1]
        return MultiVectors(self.vectors[int(offsets[0]) : int(offsets[-1])], offsets - offsets[0])

    def to(self, device: str | torch.device) -> "MultiVectors":
        return MultiVectors(self.vectors.to(device), self.offsets.to(device))

    def truncate(self, dim: int) -> "MultiVectors":
        """The first `dim` dims of each vector, normalised."""
        return MultiVectors(truncate(self.vectors, dim), self.offsets)


def truncate(vectors: Float[Tensor, "*items h"], dim: int) -> Float[Tensor, "*items dim"]:
    """The first `dim` dims, L2-normalised (Matryoshka, arXiv:2205.13147)."""
    return F.normalize(vectors[..., :dim], dim=-1)


def dot(queries: Float[Tensor, "q h"], documents: Float[Tensor, "d h"]) -> Float[Tensor, "q d"]:
    return queries @ documents.T


def maxsim(queries: MultiVectors, documents: MultiVectors) -> Float[Tensor, "q d"]:
    """For each query vector the largest dot product with any of the document's, averaged over the query's vectors.

    The average (rather than ColBERT's sum) makes scores of long and short queries comparable, as thresholds and
    temperatures need; it ranks the documents of a query the same. Differentiable, and what is kept for the backward
    pass is one number a query vector and document, not one a pair of vectors: a document's vector that is the best
    match has the gradient, of equal ones the first. On the CPU one product a document stays in cache; on a GPU
    documents go in padded blocks.
    """
    with torch.autocast(queries.vectors.device.type, enabled=False):
        best = _Best.apply(queries.vectors, documents.vectors, documents.offsets)
    owner = torch.repeat_interleave(torch.arange(len(queries), device=best.device), queries.counts)
    sums = best.new_zeros(len(queries), len(documents)).index_add(0, owner, best.T)
    return sums / queries.counts.to(sums)[:, None]


class _Best(torch.autograd.Function):
    """(query vectors [t h], document vectors [s h], offsets [d+1]) → best match of each in each document [d t]."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, vectors: Tensor, offsets: Tensor) -> Tensor:
        documents = MultiVectors(vectors, offsets)
        find = _best_in_blocks if queries.is_cuda else _best_one_by_one
        if not (ctx.needs_input_grad[0] or ctx.needs_input_grad[1]):
            return find(queries, documents)[0]
        best, place = find(queries, documents, placed=True)
        ctx.save_for_backward(queries, vectors, place)
        return best

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        (grad,) = grads  # [d t]
        queries, vectors, place = ctx.saved_tensors
        for_queries, for_vectors = torch.zeros_like(queries), torch.zeros_like(vectors)
        block = max(1, _BACKWARD_BYTES // (queries.numel() * queries.element_size()))
        for start in range(0, len(grad), block):
            some, weight = place[start : start + block], grad[start : start + block, :, None]
            for_queries += (weight * vectors[some]).sum(0)
            for_vectors.index_add_(0, some.reshape(-1), (weight * queries).reshape(-1, queries.shape[1]))
        return for_queries, for_vectors, None


def _best_one_by_one(
    query_vectors: Float[Tensor, "t h"], documents: MultiVectors, placed: bool = False
) -> tuple[Float[Tensor, "d t"], Int[Tensor, "d t"] | None]:
    transposed = query_vectors.T.contiguous()
    if not placed:
        return torch.stack([(document @ transposed).amax(0) for document in documents.unpack()]), None
    found = [(document @ transposed).max(0) for document in documents.unpack()]
    places = torch.stack([place for _, place in found]) + documents.offsets[:-1, None]
    return torch.stack([best for best, _ in found]), places


def _best_in_blocks(
    query_vectors: Float[Tensor, "t h"], documents: MultiVectors, placed: bool = False
) -> tuple[Float[Tensor, "d t"], Int[Tensor, "d t"] | None]:
    longest = int(documents.counts.max())
    block = max(1, _BLOCK_BYTES // (longest * len(query_vectors) * query_vectors.element_size()))
    parts, places = [], []
    for start in range(0, len(documents), block):
        some = documents.slice(start, min(start + block, len(documents)))
        padded = torch.nn.utils.rnn.pad_sequence(some.unpack(), batch_first=True)
        absent = torch.arange(padded.shape[1], device=padded.device) >= some.counts.to(padded.device)[:, None]
        similarity = (padded @ query_vectors.T).masked_fill(absent[:, :, None], float("-inf"))
        best, place = similarity.max(1)
        parts.append(best)
        places.append(place + documents.offsets[start : start + len(some), None].to(place))
    return torch.cat(parts), torch.cat(places) if placed else None
