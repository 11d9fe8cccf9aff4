"""Ranked documents for each query, at a view: FAISS for single vectors, exact MaxSim for multi-vectors."""

from pathlib import Path

from colmrl.search.multi_vector import search_multi
from colmrl.search.ranking import Ranking
from colmrl.search.single_vector import search_single
from colmrl.store import EmbeddingStore
from colmrl.view import View


def search(store: str | Path, view: View, k: int, gpu: bool = False) -> Ranking:
    """The best `k` documents (all, if there are fewer) of a store for each of its queries."""
    queries, documents = EmbeddingStore(Path(store) / "queries"), EmbeddingStore(Path(store) / "documents")
    run = search_single if view.head == "single" else search_multi
    return run(queries, documents, view, k, gpu)
