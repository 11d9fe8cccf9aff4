"""Scores between queries and documents: dot product, and MaxSim (ColBERT, arXiv:2004.12832).

The one implementation that loss, search, mining and evaluation share. Multi-vectors are packed, never padded:
one matrix of all tokens and the offset where each item starts, so no padding can win a maximum.
Letters: q queries, d documents, t all tokens of all items, h dim.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

_BLOCK_BYTES = 1 << 28  # of similarities held at a time on a GPU


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
    temperatures need; it ranks the documents of a query the same. Differentiable. On the CPU one product a
    document stays in cache; on a GPU documents go in padded blocks.
    """
    if queries.vectors.is_cuda:
        best = _best_in_blocks(queries.vectors, documents)
    else:
        transposed = queries.vectors.T.contiguous()
        best = torch.stack([(document @ transposed).amax(0) for document in documents.unpack()])
    owner = torch.repeat_interleave(torch.arange(len(queries), device=best.device), queries.counts)
    sums = best.new_zeros(len(queries), len(documents)).index_add(0, owner, best.T)
    return sums / queries.counts.to(sums)[:, None]


def _best_in_blocks(query_vectors: Float[Tensor, "t h"], documents: MultiVectors) -> Float[Tensor, "d t"]:
    longest = int(documents.counts.max())
    block = max(1, _BLOCK_BYTES // (longest * len(query_vectors) * query_vectors.element_size()))
    parts = []
    for start in range(0, len(documents), block):
        some = documents.slice(start, min(start + block, len(documents)))
        padded = torch.nn.utils.rnn.pad_sequence(some.unpack(), batch_first=True)
        absent = torch.arange(padded.shape[1], device=padded.device) >= some.counts.to(padded.device)[:, None]
        similarity = padded @ query_vectors.T
        parts.append(similarity.masked_fill(absent[:, :, None], float("-inf")).amax(1))
    return torch.cat(parts)
