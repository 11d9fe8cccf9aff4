"""Ranked documents for each query, at a view: FAISS for single vectors, exact MaxSim for multi-vectors."""

from colmrl.search.multi_vector import search_multi
from colmrl.search.ranking import Ranking
from colmrl.search.single_vector import search_single
from colmrl.store import EmbeddingStore
from colmrl.view import View


def search(
    queries: EmbeddingStore,
    documents: EmbeddingStore,
    view: View,
    k: int,
    gpu: bool = False,
    only: set[str] | None = None,
) -> Ranking:
    """The best `k` documents (all, if there are fewer) for each query, or for those whose ids are in `only`."""
    kept = [row for row, name in enumerate(queries.ids) if only is None or name in only]
    run = search_single if view.head == "single" else search_multi
    return run(queries, kept, documents, view, k, gpu)
