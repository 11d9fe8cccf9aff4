"""Exact search over a whole store: FAISS Flat (arXiv:2401.08281) for single vectors, MaxSim for multi-vectors.

Letters: q queries, n documents of a block, h dims, k ranks.
"""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import faiss
import numpy as np
import torch
from jaxtyping import Float

from colmrl.nearest import Halved, nearest, pays
from colmrl.scoring import maxsim_top
from colmrl.search.asked import Asked
from colmrl.search.best import Best, Found
from colmrl.store import EmbeddingStore
from colmrl.view import View

HELD_BYTES = 1 << 33  # of single vectors kept in memory between searches; more are read from the store each time
_MANY = 512  # queries at once, beside whose products reading all vectors anew costs next to nothing
_BLOCK_BYTES = 1 << 26  # of vectors that are read at a time
_GPU_MOST = 2048  # ranks that faiss gives on a GPU


class ExactSingle:
    """Inner products with all documents; on all GPUs where `gpu` is set and faiss sees any.

    Vectors are read from the store a block at a time, so that memory does not grow with it. Where few queries come
    again and again, as people's do, they are held in memory, `HELD_BYTES` of them at most.
    """

    def __init__(self, documents: EmbeddingStore, view: View, gpu: bool):
        self._documents, self._view = documents, view
        documents.array_of(view)
        self._gpu = gpu and bool(faiss.get_num_gpus())
        self._fits = len(documents) * view.dim * 4 <= HELD_BYTES
        self._few = 0  # how often few were asked

    def find(self, asked: Asked, k: int) -> Found:
        queries, k = asked.single_at(self._view), min(k, len(self._documents))
        self._few += len(queries) < _MANY
        if self._fits and (self._gpu or self._few > 1):
            return (self._on_gpu if self._gpu and k <= _GPU_MOST else self._held).search(queries, k)
        best, start = Best(len(queries), k), 0
        for block in self._blocks():
            scores, positions = _scanned(queries, block, min(k, len(block)), best.floor())
            best.add(torch.from_numpy(scores), torch.from_numpy(positions + start))
            start += len(block)
        return best.found()

    @cached_property
    def _held(self) -> Any:
        index = faiss.IndexFlatIP(self._view.dim)
        for block in self._documents.single(self._view):
            index.add(np.ascontiguousarray(block))
        return index

    @cached_property
    def _on_gpu(self) -> Any:
        return faiss.index_cpu_to_all_gpus(self._held)

    def _blocks(self) -> Iterator[Float[np.ndarray, "n h"]]:
        """Shards, as many at a time as fit into a block, which is filled anew each time."""
        most, used = max(1, _BLOCK_BYTES // (4 * self._view.dim)), 0
        block = np.empty((most, self._view.dim), dtype=np.float32)
        for shard in self._documents.single(self._view):
            if used and used + len(shard) > most:
                yield block[:used]
                used = 0
            if len(shard) > most:
                yield np.ascontiguousarray(shard)
                continue
            block[used : used + len(shard)] = shard
            used += len(shard)
        if used:
            yield block[:used]


def _scanned(
    queries: Float[np.ndarray, "q h"], block: Float[np.ndarray, "n h"], k: int, floor: Float[torch.Tensor, " q"] | None
) -> Found:
    """By FAISS in fp32, or in bf16 where that gives the same sooner. `floor`: as in `nearest`."""
    if pays(len(queries), len(block), k):
        found = nearest(torch.from_numpy(queries), Halved.of(torch.from_numpy(block)), k, floor)
        if found is not None:
            scores, positions, told = (part.numpy() for part in found)
            if not told.all():
                scores[~told], positions[~told] = faiss.knn(queries[~told], block, k, faiss.METRIC_INNER_PRODUCT)
            return scores, positions
    return faiss.knn(queries, block, k, faiss.METRIC_INNER_PRODUCT)


class ExactMulti:
    """MaxSim with all documents, a shard at a time, as it is kept; on the GPU where `gpu` is set and there is one."""

    def __init__(self, documents: EmbeddingStore, view: View, gpu: bool):
        self._documents, self._view = documents, view
        documents.array_of(view)
        self._device = "cuda" if gpu and torch.cuda.is_available() else "cpu"

    def find(self, asked: Asked, k: int) -> Found:
        if self._device == "cpu":
            scores, positions = maxsim_top(asked.multi_at(self._view), self._documents.coded(self._view), k, "bf16")
        else:
            shards = (shard.to("cuda") for shard in self._documents.multi(self._view))
            scores, positions = maxsim_top(asked.multi_at(self._view).to("cuda"), shards, k)
        return scores.cpu().numpy(), positions.cpu().numpy()


def exact(documents: EmbeddingStore, view: View, gpu: bool) -> ExactSingle | ExactMulti:
    return (ExactSingle if view.head == "single" else ExactMulti)(documents, view, gpu)
