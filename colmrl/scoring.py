"""Scores between queries and documents: dot product, and MaxSim (ColBERT, arXiv:2004.12832).

The one implementation that loss, search, mining and evaluation share. Multi-vectors are packed, never padded:
one matrix of all tokens and the offset where each item starts, so no padding can win a maximum.
Letters: q queries, d documents, t all tokens of all items, h dim.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from colmrl import kernels
from colmrl.coding import CodedItems, rows_of

_BLOCK_BYTES = 1 << 28  # of similarities held at a time on a GPU
_BACKWARD_BYTES = 1 << 22  # of gradients held at a time: what stays in a cache
_TOP_BYTES = 1 << 25  # of scores held at a time while only the best are looked for
_MANY = 32  # documents for each that is looked for: with fewer too many would be scored twice


@dataclass(frozen=True)
class MultiVectors:
    """Items with any number of vectors each: item i is `vectors[offsets[i]:offsets[i+1]]`; none is empty.

    `positions`: where each vector's patch is on its page, (row, column), see `models.positions`; None: not known.
    """

    vectors: Float[Tensor, "t h"]
    offsets: Int[Tensor, "items_and_one"]
    positions: Float[Tensor, "t 2"] | None = None

    def __post_init__(self) -> None:
        assert self.offsets[0] == 0 and self.offsets[-1] == len(self.vectors)
        assert self.positions is None or len(self.positions) == len(self.vectors)
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
        """One after another; positions are kept where all have them."""
        counts = torch.cat([part.counts for part in parts])
        positions = [part.positions for part in parts if part.positions is not None]
        return cls(
            torch.cat([part.vectors for part in parts]),
            F.pad(counts.cumsum(0), (1, 0)),
            torch.cat(positions) if len(positions) == len(parts) else None,
        )

    def select(self, items: Int[Tensor, " n"]) -> "MultiVectors":
        """These items, in this order; an item may be asked for more than once."""
        rows, offsets = rows_of(self.offsets, items)
        return MultiVectors(self.vectors[rows], offsets, self.positions[rows] if self.positions is not None else None)

    def unpack(self) -> list[Float[Tensor, "_ h"]]:
        return list(self.vectors.split(self.counts.tolist()))

    def slice(self, start: int, stop: int) -> "MultiVectors":
        """Items start..stop, sharing memory."""
        offsets = self.offsets[start : stop + 1]
        rows = slice(int(offsets[0]), int(offsets[-1]))
        positions = self.positions[rows] if self.positions is not None else None
        return MultiVectors(self.vectors[rows], offsets - offsets[0], positions)

    def to(self, device: str | torch.device) -> "MultiVectors":
        positions = self.positions.to(device) if self.positions is not None else None
        return MultiVectors(self.vectors.to(device), self.offsets.to(device), positions)

    def truncate(self, dim: int) -> "MultiVectors":
        """The first `dim` dims of each vector, normalised."""
        return MultiVectors(truncate(self.vectors, dim), self.offsets, self.positions)


Items = MultiVectors | CodedItems


def truncate(vectors: Float[Tensor, "*items h"], dim: int) -> Float[Tensor, "*items dim"]:
    """The first `dim` dims, L2-normalised (Matryoshka, arXiv:2205.13147)."""
    return F.normalize(vectors[..., :dim], dim=-1)


def dot(queries: Float[Tensor, "q h"], documents: Float[Tensor, "d h"]) -> Float[Tensor, "q d"]:
    return queries @ documents.T


def maxsim(queries: MultiVectors, documents: Items) -> Float[Tensor, "q d"]:
    """For each query vector the largest dot product with any of the document's, averaged over the query's vectors.

    The average (rather than ColBERT's sum) makes scores of long and short queries comparable, as thresholds and
    temperatures need; it ranks the documents of a query the same. Coded documents are decoded a few at a time.
    Differentiable, and what is kept for the backward pass is one number a query vector and document, not one a pair of
    vectors: a document's vector that is the best match has the gradient, of equal ones the first. On the CPU see
    `kernels`; on a GPU documents go in padded blocks, and to late-interaction-kernels where it is installed and either
    gradients are asked for or the vectors have 16 bits: it multiplies in 16 bits, which exact search must not.
    """
    learns = torch.is_grad_enabled() and (queries.vectors.requires_grad or _requires_grad(documents))
    with torch.autocast(queries.vectors.device.type, enabled=False):
        if _on_gpu(queries.vectors) or learns:
            return _sums(queries, documents, learns) / queries.counts.to(queries.vectors)[:, None]
        return kernels.mean_best(_asked(queries), _stretches(documents))


def _sums(queries: MultiVectors, documents: Items, learns: bool) -> Float[Tensor, "q d"]:
    fused = _fused() if _on_gpu(queries.vectors) else None
    if fused and isinstance(documents, MultiVectors) and (learns or queries.vectors.itemsize == 2):
        return fused(queries.vectors, documents.vectors, queries.offsets, documents.offsets)
    if isinstance(documents, MultiVectors) and learns:
        best = _Best.apply(queries.vectors, documents.vectors, documents.offsets)
    else:
        best, _ = _best_in_blocks(queries.vectors, documents)
    owner = torch.repeat_interleave(torch.arange(len(queries), device=best.device), queries.counts)
    return best.new_zeros(len(queries), len(documents)).index_add(0, owner, best.T)


def maxsim_top(
    queries: MultiVectors, shards: Iterable[Items], k: int, precision: Literal["fp32", "bf16"] = "fp32"
) -> tuple[Float[Tensor, "q k"], Int[Tensor, "q k"]]:
    """Scores and positions of each query's best `k` documents (fewer, if there are fewer), best first; of equal scores
    the first document. Positions count the documents of all shards. Beside one shard, memory is bounded in bytes.

    bf16: documents are scanned in bf16, and all that can be among the best, by what rounding can do to each score, are
    scored again in fp32: the same documents and scores, in about half the time on a CPU with AMX. Where it would take
    longer (few vectors of queries or of documents, few documents beside k), and on GPUs, they are scanned in fp32.
    """
    vectors = queries.vectors
    halves = precision == "bf16" and not _on_gpu(vectors)
    scores = vectors.new_empty(len(queries), 0)
    positions = torch.empty(len(queries), 0, dtype=torch.int64, device=vectors.device)
    step, start = max(1, _TOP_BYTES // (len(queries) * vectors.itemsize)), 0
    for shard in shards:
        for first in range(0, len(shard), step):
            part = shard.slice(first, min(first + step, len(shard)))
            with torch.no_grad():
                scan = halves and start + len(part) > _MANY * k
                scan = scan and kernels.bf16_pays(_asked(queries), _stretches(part))
                new = _exact_if_best(queries, part, scores, k) if scan else maxsim(queries, part)
            scores, order = torch.cat([scores, new], 1).sort(dim=1, descending=True, stable=True)
            new_positions = torch.arange(start, start + len(part), device=vectors.device).expand(len(queries), -1)
            scores, positions = scores[:, :k], torch.cat([positions, new_positions], 1).gather(1, order[:, :k])
            start += len(part)
    return scores, positions


def _exact_if_best(
    queries: MultiVectors, documents: Items, best: Float[Tensor, "q found"], k: int
) -> Float[Tensor, "q d"]:
    """fp32 scores of at least all documents that are among the best `k` of these and the `best` so far; -inf of others.

    The k best by bf16 first, of those that can reach the k-th best so far: the k-th of their fp32 scores and of these
    is one that the others must be able to reach.
    """
    asked, stretches = _asked(queries), _stretches(documents)
    scores, slack = kernels.bounded_mean_best(asked, stretches)
    most = scores + slack
    first = torch.zeros_like(scores, dtype=torch.bool)
    first.scatter_(1, scores.topk(min(k, len(documents))).indices, True)
    if best.shape[1] == k:
        first &= most >= best[:, -1:]
    exact = kernels.mean_best_of_pairs(asked, stretches, first)
    known = torch.cat([best, exact], 1).topk(min(k, best.shape[1] + len(documents))).values
    others = (most >= known[:, -1:]) & ~first
    return torch.maximum(exact, kernels.mean_best_of_pairs(asked, stretches, others))


def _asked(queries: MultiVectors) -> kernels.Queries:
    return kernels.Queries(queries.vectors.detach(), queries.offsets.tolist())


def _stretches(documents: Items) -> kernels.Documents:
    if isinstance(documents, CodedItems):
        codes = documents.codes
        return kernels.Documents(lambda low, high: codes.rows(slice(low, high)).decode(), documents.offsets.tolist())
    vectors = documents.vectors.detach()
    return kernels.Documents(lambda low, high: vectors[low:high], documents.offsets.tolist())


def _on_gpu(vectors: Tensor) -> bool:
    return vectors.is_cuda


def _requires_grad(documents: Items) -> bool:
    return isinstance(documents, MultiVectors) and documents.vectors.requires_grad


@functools.cache
def _fused() -> Callable[..., Tensor] | None:
    """late-interaction-kernels' MaxSim of packed vectors, a sum over query vectors, with a backward pass."""
    if find_spec("late_interaction_kernels") is None or find_spec("triton") is None:
        return None
    return import_module("late_interaction_kernels").maxsim_varlen


class _Best(torch.autograd.Function):
    """(query vectors [t h], document vectors [s h], offsets [d+1]) → best match of each in each document [d t]."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, vectors: Tensor, offsets: Tensor) -> Tensor:
        best, place = (_best_in_blocks if _on_gpu(queries) else _best_one_by_one)(
            queries, MultiVectors(vectors, offsets)
        )
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
    query_vectors: Float[Tensor, "t h"], documents: MultiVectors
) -> tuple[Float[Tensor, "d t"], Int[Tensor, "d t"]]:
    found = [(query_vectors @ document.T).max(1) for document in documents.unpack()]
    places = torch.stack([place for _, place in found]) + documents.offsets[:-1, None]
    return torch.stack([best for best, _ in found]), places


def _best_in_blocks(
    query_vectors: Float[Tensor, "t h"], documents: Items
) -> tuple[Float[Tensor, "d t"], Int[Tensor, "d t"]]:
    longest = int(documents.counts.max())
    block = max(1, _BLOCK_BYTES // (longest * len(query_vectors) * query_vectors.element_size()))
    parts, places = [], []
    for start in range(0, len(documents), block):
        some = documents.slice(start, min(start + block, len(documents)))
        if isinstance(some, CodedItems):
            some = MultiVectors(some.codes.decode(), some.offsets)
        padded = torch.nn.utils.rnn.pad_sequence(some.unpack(), batch_first=True)
        absent = torch.arange(padded.shape[1], device=padded.device) >= some.counts.to(padded.device)[:, None]
        similarity = (padded @ query_vectors.T).masked_fill(absent[:, :, None], float("-inf"))
        best, place = similarity.max(1)
        parts.append(best)
        places.append(place + documents.offsets[start : start + len(some), None].to(place))
    return torch.cat(parts), torch.cat(places)
