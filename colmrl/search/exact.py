"""Exact search over a whole store: FAISS Flat (arXiv:2401.08281) for single vectors, MaxSim for multi-vectors.

Letters: q queries, k ranks.
"""

from typing import Any

import faiss
import numpy as np
import torch

from colmrl.scoring import maxsim_top
from colmrl.search.asked import Asked
from colmrl.search.best import Best, Found
from colmrl.store import EmbeddingStore
from colmrl.view import View

HELD_BYTES = 1 << 33  # of single vectors kept in memory between searches; more are read from the store each time
_GPU_MOST = 2048  # ranks that faiss gives on a GPU


class ExactSingle:
    """Inner products with all documents; on all GPUs where `gpu` is set and faiss sees any."""

    def __init__(self, documents: EmbeddingStore, view: View, gpu: bool):
        self._documents, self._view = documents, view
        documents.array_of(view)
        self._gpu = gpu and bool(faiss.get_num_gpus())
        self._held: Any = None
        if len(documents) * view.dim * 4 <= HELD_BYTES:
            self._held = faiss.IndexFlatIP(view.dim)
            for block in documents.single(view):
                self._held.add(np.ascontiguousarray(block))
            self._on_gpu = faiss.index_cpu_to_all_gpus(self._held) if self._gpu else self._held

    def find(self, asked: Asked, k: int) -> Found:
        queries, k = asked.single_at(self._view), min(k, len(self._documents))
        if self._held is not None:
            return (self._on_gpu if k <= _GPU_MOST else self._held).search(queries, k)
        best, start = Best(len(asked), k), 0
        for block in self._documents.single(self._view):
            scores, positions = faiss.knn(
                queries, np.ascontiguousarray(block), min(k, len(block)), faiss.METRIC_INNER_PRODUCT
            )
            best.add(torch.from_numpy(scores), torch.from_numpy(positions + start))
            start += len(block)
        return best.found()


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
