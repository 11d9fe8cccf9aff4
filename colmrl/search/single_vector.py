"""Single vectors: FAISS, exact inner product (faiss, arXiv:2401.08281) at a view."""

import logging
from typing import Any

import faiss
import numpy as np

from colmrl.search.ranking import Ranking, query_view
from colmrl.store import EmbeddingStore
from colmrl.view import View

log = logging.getLogger(__name__)


def search_single(queries: EmbeddingStore, documents: EmbeddingStore, view: View, k: int, gpu: bool = False) -> Ranking:
    """Exact search; on all GPUs where `gpu` is set and faiss sees any."""
    index: Any = faiss.IndexFlatIP(view.dim)
    for block in documents.single(view):
        index.add(np.ascontiguousarray(block))
    if gpu and faiss.get_num_gpus():
        index = faiss.index_cpu_to_all_gpus(index)
    blocks = [
        index.search(np.ascontiguousarray(block), min(k, len(documents))) for block in queries.single(query_view(view))
    ]
    scores, positions = (np.concatenate(part) for part in zip(*blocks, strict=True))
    return Ranking(queries.ids, documents.ids, scores, positions)
