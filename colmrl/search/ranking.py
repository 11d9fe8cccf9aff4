"""What a search gives."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class Ranking:
    """For each query, documents by falling score. `positions` index `document_ids`; where fewer are found than asked
    for, the rest have position -1 and score -inf.
    """

    query_ids: list[str]
    document_ids: list[str]
    scores: Float[np.ndarray, "q k"]
    positions: Int[np.ndarray, "q k"]

    def run(self) -> dict[str, dict[str, float]]:
        """query id → document id → score, as trec_eval takes it."""
        return {
            query_id: {self.document_ids[p]: float(s) for p, s in zip(positions, scores, strict=True) if p >= 0}
            for query_id, positions, scores in zip(self.query_ids, self.positions, self.scores, strict=True)
        }
