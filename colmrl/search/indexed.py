"""Search by an index that `colmrl index` built.

single: FAISS finds; what its codes made coarse is decided by the exact scores of the best `candidates`.
multi: each query token finds its nearest tokens, a document is credited with the best of them for each query token,
counted from the worst that was found (as XTR imputes, arXiv:2304.01982); exact MaxSim of the best `candidates`
decides (PLAID, arXiv:2205.09707, without its own codes).
"""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from jaxtyping import Float, Int

from colmrl.config import IndexType
from colmrl.search.asked import Asked
from colmrl.search.best import Found
from colmrl.search.faiss_types import LOSSY, ON_GPU, set_probes
from colmrl.search.index_files import check_index, read_facts, read_index
from colmrl.search.rescoring import rescore
from colmrl.store import EmbeddingStore
from colmrl.view import View

_GPU_MOST = 2048  # ranks that faiss gives on a GPU
_QUERIES = 32  # a block of multi-vector queries
_TOKENS = 10  # found for each query token, times candidates


@dataclass(frozen=True)
class Opened:
    """How an index is searched."""

    probes: int
    candidates: int
    gpu: bool


class IndexedSingle:
    """One vector a document; row i of the index is document i."""

    def __init__(self, documents: EmbeddingStore, view: View, kind: IndexType, index: Any, opened: Opened):
        self._documents, self._view, self._kind, self._opened = documents, view, kind, opened
        self._index, self._on_gpus = index, _on_gpus(index, kind, opened.gpu)

    def find(self, asked: Asked, k: int) -> Found:
        refined = self._kind in LOSSY
        depth = min(max(k, self._opened.candidates) if refined else k, len(self._documents))
        if self._kind == "hnsw":
            set_probes(self._index, self._kind, max(self._opened.probes, depth))
        index = self._on_gpus if depth <= _GPU_MOST else self._index
        scores, positions = index.search(asked.single_at(self._view), depth)
        if refined:
            return rescore(self._documents, self._view, asked, positions, min(k, depth), self._opened.gpu)
        return np.where(positions < 0, np.float32(-np.inf), scores), positions


class IndexedMulti:
    """All tokens of all documents; a token's id is its document."""

    def __init__(self, documents: EmbeddingStore, view: View, kind: IndexType, index: Any, opened: Opened):
        self._documents, self._view, self._opened = documents, view, opened
        self._index = _on_gpus(index, kind, opened.gpu)
        self._credit = np.zeros(len(documents), dtype=np.float32)
        self._gain = np.zeros(len(documents), dtype=np.float32)

    def find(self, asked: Asked, k: int) -> Found:
        queries = asked.multi_at(self._view)
        depth = min(max(k, self._opened.candidates), len(self._documents))
        tokens = min(_TOKENS * depth, self._index.ntotal)
        positions = np.full((len(asked), depth), -1, dtype=np.int64)
        for start in range(0, len(queries), _QUERIES):
            block = queries.slice(start, min(start + _QUERIES, len(queries)))
            scores, found = self._index.search(block.vectors.numpy(), tokens)
            for row, (first, last) in enumerate(itertools.pairwise(block.offsets.tolist()), start):
                best = self._best(scores[first:last], found[first:last], depth)
                positions[row, : len(best)] = best
        return rescore(self._documents, self._view, asked, positions, min(k, depth), self._opened.gpu)

    def _best(
        self, scores: Float[np.ndarray, "t n"], found: Int[np.ndarray, "t n"], depth: int
    ) -> Int[np.ndarray, " m"]:
        """The documents with most credit, of those found by any of a query's tokens t."""
        seen = []
        for token_scores, documents in zip(scores, found, strict=True):
            documents = documents[: np.count_nonzero(documents >= 0)]
            gain = token_scores[: len(documents)]
            self._gain[documents[::-1]] = (gain - gain[-1:])[::-1]  # falling scores: a document's best is written last
            self._credit[documents] += self._gain[documents]  # once, however often the document is found
            seen.append(documents)
        names = np.unique(np.concatenate(seen))
        credit = self._credit[names]
        self._credit[names] = 0
        return names[np.argpartition(-credit, depth - 1)[:depth]] if len(names) > depth else names


def open_index(
    folder: Path, documents: EmbeddingStore, view: View, gpu: bool, probes: int | None, candidates: int | None
) -> IndexedSingle | IndexedMulti:
    """A finder by the index in a folder; None for its own `probes` and `candidates`."""
    manifest, _ = read_facts(folder)
    check_index(folder, manifest, documents, view)
    opened = Opened(probes or manifest.probes or 1, candidates or manifest.candidates or 1, gpu)
    return open_finder(documents, view, manifest.type, read_index(folder, manifest), opened)


def open_finder(
    documents: EmbeddingStore, view: View, kind: IndexType, index: Any, opened: Opened
) -> IndexedSingle | IndexedMulti:
    set_probes(index, kind, opened.probes)
    return (IndexedSingle if view.head == "single" else IndexedMulti)(documents, view, kind, index, opened)


def _on_gpus(index: Any, kind: IndexType, gpu: bool) -> Any:
    """The index on all GPUs where `gpu` is set, faiss sees any, and its type is one that they know."""
    return faiss.index_cpu_to_all_gpus(index) if gpu and kind in ON_GPU and faiss.get_num_gpus() else index
