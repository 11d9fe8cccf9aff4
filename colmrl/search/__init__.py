"""Ranked documents for each query, at a view or by a plan: exactly, or by an index."""

from pathlib import Path

from colmrl.search.asked import Asked
from colmrl.search.plan import Plan
from colmrl.search.ranking import Ranking
from colmrl.search.searcher import Searcher, open_searcher
from colmrl.store import EmbeddingStore
from colmrl.view import View

__all__ = ["Asked", "Plan", "Ranking", "Searcher", "open_searcher", "search"]


def search(
    queries: EmbeddingStore,
    documents: EmbeddingStore,
    view: View | Plan,
    k: int,
    gpu: bool = False,
    only: set[str] | None = None,
    index: Path | None = None,
) -> Ranking:
    """The best `k` documents (all, if there are fewer) for each query, or for those whose ids are in `only`."""
    kept = [row for row, name in enumerate(queries.ids) if only is None or name in only]
    return open_searcher(documents, Plan.of(view), gpu, index).rank(Asked.of_store(queries, kept), k)
