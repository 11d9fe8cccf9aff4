"""Fewer vectors a document: hierarchical Ward clustering of its token vectors (token pooling, arXiv:2409.14683)."""

import numpy as np
from jaxtyping import Float


def pool_tokens(vectors: Float[np.ndarray, "n h"], budget: int) -> Float[np.ndarray, "m h"]:
    """At most `budget` normalised vectors: the means of Ward clusters, in the order their first tokens stand.

    A document that has no more than `budget` vectors is returned as it is.
    """
    if len(vectors) <= budget:
        return vectors
    if budget == 1:
        labels = np.zeros(len(vectors), dtype=np.int64)
    else:
        from scipy.cluster.hierarchy import fcluster, linkage

        labels = fcluster(linkage(vectors.astype(np.float64), method="ward"), budget, criterion="maxclust")
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))
    sums = np.zeros((len(first), vectors.shape[1]), dtype=np.float32)
    np.add.at(sums, rank[inverse], vectors)
    return sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
