"""Each query's best documents by inner product, on a CPU with AMX: scanned in bf16, decided in fp32.

The product of the vectors rounded to bf16 takes a tenth of the time that it takes in fp32. How far rounding can move a
score is bounded (Cauchy-Schwarz), so that whatever may be among the best k is kept, and scored again in fp32: the
documents and scores are those of a scan in fp32. What is compared are the bits of the bf16 scores as integers: those of
numbers above 0 are in the numbers' order. Queries are split over threads.
Letters: q queries, n documents, h dim, p pairs of a query and a document, k ranks.
"""

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import BFloat16, Bool, Float, Int
from torch import Tensor

from colmrl.kernels import spread

_TILE = 1024  # documents multiplied at a time: the product is still in a cache when it is looked at
_QUERIES = 4096  # likewise
_FEW_QUERIES = 256  # with fewer the product is not faster than reading the documents
_SEED = 8 * _TILE  # documents from which the first bound comes
_GROUP = 16  # of which the best document counts there
_MOST = 1024  # pairs a query that are kept at a time; documents nearly all alike are not sorted out in bf16
_ROUNDED = 1024  # documents at a time: they are in a cache when what rounding lost is measured
_INFINITE = 0x7F80  # the bits of infinity; those of NaN are above
_NEVER = 0x7FFF  # no score reaches it
_OF_OUTPUT = 2.0**-8 / (1 - 2.0**-8)  # how far writing in bf16 moves a score, of what was written


class Found(NamedTuple):
    """`told`: of which queries; the others' scores and positions mean nothing."""

    scores: Float[Tensor, "q k"]
    positions: Int[Tensor, "q k"]
    told: Bool[Tensor, " q"]


class Pairs(NamedTuple):
    """Row of the query, of the document, and the bits of their score."""

    queries: np.ndarray
    documents: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class Halved:
    """Vectors and the same in bf16; `norm` and `error`: the largest of a rounded vector and of what rounding lost."""

    vectors: Float[Tensor, "n h"]
    halves: BFloat16[Tensor, "n h"]
    norm: float
    error: float

    @classmethod
    def of(cls, vectors: Float[Tensor, "n h"]) -> "Halved":
        halves, norms, errors = torch.empty_like(vectors, dtype=torch.bfloat16), [], []
        for part, out in zip(vectors.split(_ROUNDED), halves.split(_ROUNDED), strict=True):
            rounded = out.copy_(part).float()
            norms.append(rounded.norm(dim=1).max())
            errors.append((part - rounded).norm(dim=1).max())
        return cls(vectors, halves, float(torch.stack(norms).max()), float(torch.stack(errors).max()))  # NaN stays NaN


def pays(queries: int, documents: int, k: int) -> bool:
    """Whether this machine finds them sooner by `nearest` than by a scan in fp32."""
    amx = bool(torch.cpu.get_capabilities().get("amx_bf16", False))
    return amx and queries >= _FEW_QUERIES and documents >= _SEED and k <= _SEED // _GROUP // 2


def nearest(
    queries: Float[Tensor, "q h"], documents: Halved, k: int, floor: Float[Tensor, " q"] | None = None
) -> Found | None:
    """Scores and positions of the best `k`, best first; of equal scores the first document. At least `_SEED` documents.
    `floor`: scores that are of interest; of lower ones, which documents are left out (position 0, score -inf) is open.

    It cannot tell of a query whose k-th score, or floor, is near 0 or below, or that is not finite; None where most are
    such, where too many documents fit nearly alike, or theirs are not finite.
    """
    if not math.isfinite(documents.norm + documents.error):
        return None
    size = min(_QUERIES, -(-len(queries) // torch.get_num_threads()))
    parts = list(queries.split(size))
    floors = [None] * len(parts) if floor is None else list(floor.split(size))
    found: list[Found | None] = [None] * len(parts)

    def run(number: int) -> None:
        found[number] = _nearest(parts[number], documents, k, floors[number])

    spread(run, range(len(parts)))
    some = [part for part in found if part is not None]
    if len(some) < len(parts):
        return None
    return Found(*map(torch.cat, zip(*some, strict=True)))


def _nearest(queries: Tensor, documents: Halved, k: int, floor: Tensor | None) -> Found | None:
    scan = _Scan(queries, documents)
    lowest = scan.seed(k) if floor is None else scan.reach(floor)
    told = (lowest > 0) & (lowest < _INFINITE)
    if 2 * int(told.sum()) < len(told):
        return None
    lowest[~told] = _NEVER
    found: list[Pairs] = []
    kept, look_again = 0, 2 * _SEED
    for end, pairs in scan.reaching(lowest):
        found.append(pairs)
        kept += len(pairs.queries)
        if kept > _MOST * len(queries):
            return None
        if end >= look_again or end == len(documents.vectors):
            look_again *= 2
            together = _by_query(found)
            lowest[:] = lowest.maximum(scan.lowest(_kth(together, len(queries), k)))
            left = together.scores >= lowest.numpy()[together.queries]
            found = [Pairs(*(part[left] for part in together))]
            kept = len(found[0].queries)
    return Found(*_rescored(queries, documents.vectors, found[0], k), told)


class _Scan:
    """Some queries, and how far rounding can move their scores."""

    def __init__(self, queries: Tensor, documents: Halved):
        self._halves, self._documents = queries.bfloat16(), documents.halves
        rounded, norms = self._halves.float(), queries.norm(dim=1)
        lost = (queries - rounded).norm(dim=1) * documents.norm + norms * documents.error
        summed = queries.shape[1] * 2.0**-22 * norms * (documents.norm + documents.error)  # adding up in fp32, twice
        self._bound = (lost + summed) * 1.001  # for what fp32 rounds in these lines
        self._room = torch.empty(len(queries) * _TILE, dtype=torch.bfloat16)

    def lowest(self, kth: Int[Tensor, " q"]) -> Int[Tensor, " q"]:
        """Of the bits of k-th best scores, those of the lowest that may be among the k best; not above 0: unknown."""
        scores = kth.view(torch.bfloat16).float()
        return self.reach(scores - _OF_OUTPUT * scores - self._bound)

    def reach(self, scores: Float[Tensor, " q"]) -> Int[Tensor, " q"]:
        """The bits of the lowest score in bf16 that may be so high in fp32."""
        lowest = (scores - self._bound) / (1 + _OF_OUTPUT)
        return (lowest.contiguous().view(torch.int32) >> 16).to(torch.int16)  # the next bf16 below

    def seed(self, k: int) -> Int[Tensor, " q"]:
        """From the best of each group of the first documents, which are k different ones."""
        tiles = [self._tile(start).view(len(self._halves), _GROUP, -1).amax(1) for start in range(0, _SEED, _TILE)]
        return self.lowest(torch.cat(tiles, 1).topk(k, sorted=False).values.amin(1))

    def reaching(self, lowest: Int[Tensor, " q"]) -> Iterator[tuple[int, Pairs]]:
        """What reaches `lowest`, which may be raised in between, tile by tile, and where the tile ends."""
        reaches = np.empty(self._room.shape, np.bool_)
        for start in range(0, len(self._documents), _TILE):
            tile = self._tile(start).numpy()
            mask = reaches[: tile.size].reshape(tile.shape)
            np.greater_equal(tile, lowest.numpy()[:, None], out=mask)
            places = np.flatnonzero(mask)
            rows = places // tile.shape[1]
            columns = places - rows * tile.shape[1] + start
            scores = tile.reshape(-1)[places]
            yield start + tile.shape[1], Pairs(rows.astype(np.int16), columns.astype(np.int32), scores)

    def _tile(self, start: int) -> Int[Tensor, "q n"]:
        """The bits of scores."""
        some = self._documents[start : start + _TILE]
        room = self._room[: len(self._halves) * len(some)].view(-1, len(some))
        return torch.mm(self._halves, some.T, out=room).view(torch.int16)


def _by_query(found: list[Pairs]) -> Pairs:
    """Sorted by query, each one's in the documents' order."""
    rows, documents, scores = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.argsort(rows, kind="stable")  # of 16 bits: by radix
    return Pairs(rows[order], documents[order], scores[order])


def _places(rows: Int[np.ndarray, " p"], queries: int) -> tuple[Int[np.ndarray, " q"], Int[np.ndarray, " p"]]:
    """How many pairs each query has, and of each pair which one of its query's it is."""
    counts = np.bincount(rows, minlength=queries)
    return counts, np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)


def _kth(pairs: Pairs, queries: int, k: int) -> Int[Tensor, " q"]:
    counts, places = _places(pairs.queries, queries)
    table = np.zeros((queries, max(k, int(counts.max()))), np.int16)
    table[pairs.queries, places] = pairs.scores
    return torch.from_numpy(np.partition(table, table.shape[1] - k)[:, table.shape[1] - k].copy())


def _rescored(
    queries: Float[Tensor, "q h"], vectors: Float[Tensor, "n h"], pairs: Pairs, k: int
) -> tuple[Float[Tensor, "q k"], Int[Tensor, "q k"]]:
    """In fp32: the best `k` of the pairs. Each vector is multiplied where it lies, not copied first."""
    counts, places = _places(pairs.queries, len(queries))
    ends = torch.from_numpy(np.cumsum([0, *counts], dtype=np.int32))
    shape, columns = (len(queries), len(vectors)), torch.from_numpy(pairs.documents)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")  # all that is used is the next line
        wanted = torch.sparse_csr_tensor(ends, columns, torch.zeros(len(columns)), shape, check_invariants=False)
    found = torch.sparse.sampled_addmm(wanted, queries, vectors.T, beta=0.0).values()
    most = max(k, int(counts.max()))
    scores, documents = torch.full((len(queries), most), -torch.inf), torch.zeros(len(queries), most, dtype=torch.int64)
    scores.numpy()[pairs.queries, places] = found.numpy()
    documents.numpy()[pairs.queries, places] = pairs.documents
    scores, order = scores.sort(dim=1, descending=True, stable=True)
    return scores[:, :k], documents.gather(1, order[:, :k])
