"""Some queries with their candidates and known answers, as arrays.

Letters: q queries, k candidates, p pairs of a query and a positive, a pairs of a query and a known answer.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

# row in the block, row in the store of documents
Positives = tuple[Int[np.ndarray, " p"], Int[np.ndarray, " p"]]
Known = tuple[Int[np.ndarray, " a"], Int[np.ndarray, " a"]]


@dataclass(frozen=True)
class Block:
    """`positions` and `scores` as the search gave them (-1: fewer were found); `left`: those that no step removed.
    `positives`: one pair a triple, of each query at least one and those of a query together. `known`: what is never a
    negative: positives, answers of others who ask the same, and the query itself. `judged` and `judged_positives`: a
    teacher's scores, NaN where it has none.
    """

    query_ids: list[str]
    positions: Int[np.ndarray, "q k"]
    scores: Float[np.ndarray, "q k"]
    left: Bool[np.ndarray, "q k"]
    positives: Positives
    positive_scores: Float[np.ndarray, " p"]
    known: Known
    judged: Float[np.ndarray, "q k"] | None = None
    judged_positives: Float[np.ndarray, " p"] | None = None

    def without(self, removed: Bool[np.ndarray, "q k"]) -> "Block":
        return replace(self, left=self.left & ~removed)

    def lowest(self, positive_scores: Float[np.ndarray, " p"]) -> Float[np.ndarray, " q"]:
        """Of each query's positives, those without a score left out; -inf where none has one, so that nothing passes a
        margin that cannot be measured.
        """
        starts = np.flatnonzero(np.diff(self.positives[0], prepend=-1))
        lowest = np.fmin.reduceat(positive_scores, starts)
        return np.where(np.isnan(lowest), np.float32(-np.inf), lowest)
