"""Single vectors: FAISS, exact inner product (faiss, arXiv:2401.08281) at a view."""

from collections.abc import Sequence
from typing import Any

import faiss
import numpy as np

from colmrl.search.ranking import Ranking, query_view
from colmrl.store import EmbeddingStore
from colmrl.view import View

_GPU_MOST = 2048  # ranks that faiss gives on a GPU


def search_single(
    queries: EmbeddingStore, rows: Sequence[int], documents: EmbeddingStore, view: View, k: int, gpu: bool = False
) -> Ranking:
    """Exact search for the queries at `rows`; on all GPUs where `gpu` is set and faiss sees any."""
    index: Any = faiss.IndexFlatIP(view.dim)
    for block in documents.single(view):
        index.add(np.ascontiguousarray(block))
    k = min(k, len(documents))
    if gpu and k <= _GPU_MOST and faiss.get_num_gpus():
        index = faiss.index_cpu_to_all_gpus(index)
    vectors = np.concatenate(list(queries.single(query_view(view, queries))))[list(rows)]
    scores, positions = index.search(np.ascontiguousarray(vectors), k)
    return Ranking([queries.ids[row] for row in rows], documents.ids, scores, positions)
