"""Exact search over a whole store: FAISS Flat (arXiv:2401.08281) for single vectors, MaxSim for multi-vectors.

Letters: q queries, k ranks.
"""

from collections.abc import Iterator
from typing import Any

import faiss
import numpy as np
import torch

from colmrl.nearest import Halved, nearest, pays
from colmrl.scoring import maxsim_top
from colmrl.search.asked import Asked
from colmrl.search.best import Best, Found
from colmrl.store import EmbeddingStore
from colmrl.view import View

HELD_BYTES = 1 << 33  # of single vectors kept in memory between searches; more are read from the store each time
_READ_BYTES = 1 << 28  # of single vectors scanned at a time, where they are not kept
_GPU_MOST = 2048  # ranks that faiss gives on a GPU


class ExactSingle:
    """Inner products with all documents; on all GPUs where `gpu` is set and faiss sees any."""

    def __init__(self, documents: EmbeddingStore, view: View, gpu: bool):
        self._documents, self._view, self._scan = documents, view, Scan()
        documents.array_of(view)
        self._gpu = gpu and bool(faiss.get_num_gpus())
        self._held: np.ndarray | None = None
        if len(documents) * view.dim * 4 <= HELD_BYTES:
            self._held = np.empty((len(documents), view.dim), np.float32)
            start = 0
            for block in documents.single(view):
                self._held[start : start + len(block)] = block
                start += len(block)
        self._on_gpu: Any = None
        if self._gpu and self._held is not None:
            index = faiss.IndexFlatIP(view.dim)
            index.add(self._held)
            self._on_gpu = faiss.index_cpu_to_all_gpus(index)

    def find(self, asked: Asked, k: int) -> Found:
        queries, k = asked.single_at(self._view), min(k, len(self._documents))
        if self._on_gpu is not None and k <= _GPU_MOST:
            return self._on_gpu.search(queries, k)
        if self._held is not None:
            return self._scan.best(queries, self._held, k, again=True)
        best, start = Best(len(asked), k), 0
        for block in _together(self._documents.single(self._view), _READ_BYTES):
            scores, positions = self._scan.best(queries, block, min(k, len(block)))
            best.add(torch.from_numpy(scores), torch.from_numpy(positions + start))
            start += len(block)
        return best.found()


class Scan:
    """A scan on the CPU: by FAISS in fp32, or, where that is sooner, in bf16 with the same result."""

    def __init__(self) -> None:
        self._halved: Halved | None = None

    def best(self, queries: np.ndarray, documents: np.ndarray, k: int, again: bool = False) -> Found:
        """`again`: the same documents are scanned each time."""
        if pays(len(queries), len(documents), k):
            halved = self._halved or Halved.of(torch.from_numpy(documents))
            self._halved = halved if again else None
            found = nearest(torch.from_numpy(queries), halved, k)
            if found is not None:
                return found[0].numpy(), found[1].numpy()
        return faiss.knn(queries, documents, k, faiss.METRIC_INNER_PRODUCT)


def _together(blocks: Iterator[np.ndarray], most_bytes: int) -> Iterator[np.ndarray]:
    """Small ones as one."""
    some, held = [], 0
    for block in blocks:
        some.append(block)
        held += block.nbytes
        if held >= most_bytes:
            yield np.concatenate(some)
            some, held = [], 0
    if some:
        yield np.concatenate(some)


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
