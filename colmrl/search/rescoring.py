"""Exact scores of a few candidates a query, read from the store. Letters: q queries, c candidates, k ranks."""

from bisect import bisect_left, bisect_right

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from colmrl import kernels
from colmrl.scoring import MultiVectors, maxsim
from colmrl.search.asked import Asked
from colmrl.search.best import Found, ranked
from colmrl.store import EmbeddingStore
from colmrl.view import View

_BLOCK_BYTES = 1 << 27  # of candidates' single vectors held at a time


def rescore(
    documents: EmbeddingStore, view: View, asked: Asked, positions: Int[np.ndarray, "q c"], k: int, gpu: bool = False
) -> Found:
    """The best `k` of each query's candidates (-1: none) at a view."""
    return ranked(pair_scores(documents, view, asked, positions, gpu), positions, k)


def pair_scores(
    documents: EmbeddingStore, view: View, asked: Asked, positions: Int[np.ndarray, "q c"], gpu: bool = False
) -> Float[np.ndarray, "q c"]:
    """The score of each query with each of its documents at a view; of position -1 it says nothing."""
    score = _single if view.head == "single" else _multi
    return score(documents, view, asked, positions, gpu)


def _single(
    documents: EmbeddingStore, view: View, asked: Asked, positions: Int[np.ndarray, "q c"], gpu: bool
) -> Float[np.ndarray, "q c"]:
    queries = asked.single_at(view)
    scores = np.full(positions.shape, -np.inf, dtype=np.float32)
    block = max(1, _BLOCK_BYTES // (4 * view.dim * max(1, positions.shape[1])))
    for start in range(0, len(queries), block):
        some = slice(start, start + block)
        rows, places = np.unique(positions[some], return_inverse=True)
        vectors = documents.single_rows(view, np.maximum(rows, 0))[places.reshape(positions[some].shape)]
        scores[some] = np.einsum("qh,qch->qc", queries[some], vectors)
    return scores


def _multi(
    documents: EmbeddingStore, view: View, asked: Asked, positions: Int[np.ndarray, "q c"], gpu: bool
) -> Float[np.ndarray, "q c"]:
    queries = asked.multi_at(view)
    scores = np.full(positions.shape, -np.inf, dtype=np.float32)
    score = _on_gpu if gpu and torch.cuda.is_available() else _where_they_lie
    for row, candidates in enumerate(positions):
        present = np.flatnonzero(candidates >= 0)
        if len(present):
            scores[row, present] = score(documents, view, queries.slice(row, row + 1), candidates[present]).numpy()
    return scores


def _on_gpu(
    documents: EmbeddingStore, view: View, query: MultiVectors, rows: Int[np.ndarray, " c"]
) -> Float[Tensor, " c"]:
    with torch.inference_mode():
        return maxsim(query.to("cuda"), documents.multi_rows(view, rows).to("cuda"))[0].cpu()


def _where_they_lie(
    documents: EmbeddingStore, view: View, query: MultiVectors, rows: Int[np.ndarray, " c"]
) -> Float[Tensor, " c"]:
    """Candidates are read, and decoded, as the product comes to them: they are in the cache when it does."""
    items = documents.coded_rows(view, rows)
    offsets = np.cumsum([0, *map(len, items)]).tolist()

    def read(low: int, high: int) -> Tensor:
        first, last = bisect_right(offsets, low) - 1, bisect_left(offsets, high)
        spans = zip(items[first:last], offsets[first:last], strict=True)
        parts = [item.rows(slice(max(low - start, 0), high - start)).decode() for item, start in spans]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    asked = kernels.Queries(query.vectors, query.offsets.tolist())
    return kernels.mean_best(asked, kernels.Documents(read, offsets))[0]
