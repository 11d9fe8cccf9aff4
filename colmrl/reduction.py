"""What a view does to vectors: fewer of them (pooling), fewer dims (a prefix, normalised), fewer bits (rounding)."""

import itertools

import numpy as np
from jaxtyping import Float

from colmrl.view import Precision, View


def pool_tokens(vectors: Float[np.ndarray, "n h"], budget: int) -> Float[np.ndarray, "m h"]:
    """At most `budget` normalised vectors: the means of hierarchical Ward clusters (token pooling, arXiv:2409.14683),
    in the order their first tokens stand.

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


def as_view(vectors: np.ndarray, view: View) -> Float[np.ndarray, "n dim"]:
    """Stored vectors cut to a view's dim, normalised, and rounded to its precision; fp32, as scores take them."""
    cut = np.array(vectors[:, : view.dim], dtype=np.float32)
    cut /= np.maximum(np.linalg.norm(cut, axis=1, keepdims=True), 1e-12)
    return rounded(cut, view.precision)


def rounded(vectors: Float[np.ndarray, "n h"], precision: Precision) -> Float[np.ndarray, "n h"]:
    """What a vector is after it was kept in this precision. int8: one scale a vector; binary: signs, unit length."""
    match precision:
        case "fp32":
            return vectors
        case "fp16":
            return vectors.astype(np.float16).astype(np.float32)
        case "int8":
            scale = np.maximum(np.abs(vectors).max(1, keepdims=True), 1e-12) / 127
            return np.rint(vectors / scale) * scale
        case "binary":
            return np.where(vectors > 0, 1.0, -1.0).astype(np.float32) / np.float32(np.sqrt(vectors.shape[1]))


def pool_records(vectors: np.ndarray, offsets: np.ndarray, budget: int) -> tuple[np.ndarray, np.ndarray]:
    """Each record's vectors pooled to the budget; new vectors and offsets."""
    pooled = [
        pool_tokens(np.asarray(vectors[start:stop], dtype=np.float32), budget)
        for start, stop in itertools.pairwise(offsets)
    ]
    return np.concatenate(pooled), np.concatenate([[0], np.cumsum([len(p) for p in pooled])]).astype(np.int64)
