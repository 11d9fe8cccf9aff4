"""What a search gives."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from colmrl.store import EmbeddingStore
from colmrl.view import View


@dataclass(frozen=True)
class Ranking:
    """For each query, documents by falling score. `positions` index `document_ids`."""

    query_ids: list[str]
    document_ids: list[str]
    scores: Float[np.ndarray, "q k"]
    positions: Int[np.ndarray, "q k"]

    def run(self) -> dict[str, dict[str, float]]:
        """query id → document id → score, as trec_eval takes it."""
        return {
            query_id: {self.document_ids[p]: float(s) for p, s in zip(positions, scores, strict=True)}
            for query_id, positions, scores in zip(self.query_ids, self.positions, self.scores, strict=True)
        }


def query_view(view: View, queries: EmbeddingStore) -> View:
    """How queries are embedded for a view of documents: all their vectors, as precise as they are kept."""
    return View(view.head, view.dim, None, queries.manifest.dtype)
