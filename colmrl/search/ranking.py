"""What a search gives."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from colmrl.view import View


@dataclass(frozen=True)
class Ranking:
    """For each query, documents by falling score. `positions` index `document_ids`."""

    query_ids: list[str]
    document_ids: list[str]
    scores: Float[np.ndarray, "q k"]
    positions: Int[np.ndarray, "q k"]

    def run(self, query_ids: set[str] | None = None) -> dict[str, dict[str, float]]:
        """query id → document id → score, as trec_eval takes it; for some queries, or for all."""
        return {
            query_id: {self.document_ids[p]: float(s) for p, s in zip(positions, scores, strict=True)}
            for query_id, positions, scores in zip(self.query_ids, self.positions, self.scores, strict=True)
            if query_ids is None or query_id in query_ids
        }


def query_view(view: View) -> View:
    """How queries are embedded for a view of documents: all their vectors, not rounded; they are not stored."""
    return View(view.head, view.dim, None, "fp16" if view.precision == "fp16" else "fp32")
