"""What a view does to vectors: fewer of them (pooling), fewer dims (a prefix, normalised), fewer bits (rounding)."""

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int

from colmrl.scoring import MultiVectors, truncate
from colmrl.view import Precision, View


def pool_tokens(vectors: Float[np.ndarray, "n h"], budget: int) -> Float[np.ndarray, "m h"]:
    """At most `budget` normalised vectors: the means of hierarchical Ward clusters (token pooling, arXiv:2409.14683),
    in the order their first tokens stand.

    A document that has no more than `budget` vectors is returned as it is.
    """
    if len(vectors) <= budget:
        return vectors
    (labels,) = clusters(vectors, [budget])
    sums = np.zeros((labels.max() + 1, vectors.shape[1]), dtype=np.float32)
    np.add.at(sums, labels, vectors)
    return sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)


def clusters(vectors: Float[np.ndarray, "n h"], budgets: Sequence[int]) -> list[Int[np.ndarray, " n"]]:
    """For each budget, which of its Ward clusters every vector belongs to, numbered in the order of their first
    vectors; one tree for all budgets. Where there are no more vectors than the budget, each is its own.
    """
    tree = None
    found = []
    for budget in budgets:
        if budget >= len(vectors):
            labels = np.arange(len(vectors))
        elif budget == 1:
            labels = np.zeros(len(vectors), dtype=np.int64)
        else:
            from scipy.cluster.hierarchy import fcluster, linkage

            tree = linkage(vectors.astype(np.float64), method="ward") if tree is None else tree
            _, first, inverse = np.unique(
                fcluster(tree, budget, criterion="maxclust"), return_index=True, return_inverse=True
            )
            labels = np.argsort(np.argsort(first))[inverse]
        found.append(labels)
    return found


def pooled(documents: MultiVectors, budgets: Sequence[int]) -> dict[int, MultiVectors]:
    """Budget → the documents pooled to it as `pool_tokens` does, differentiable: which vectors share a cluster is not
    learnt, their means are.
    """
    if not budgets:
        return {}
    on_cpu = documents.vectors.detach().float().cpu().split(documents.counts.tolist())
    each = [clusters(item.numpy(), budgets) for item in on_cpu]
    made = {}
    for i, budget in enumerate(budgets):
        counts = torch.tensor([int(labels[i].max()) + 1 for labels in each])
        offsets = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
        places = torch.cat([torch.from_numpy(labels[i]) + start for labels, start in zip(each, offsets, strict=False)])
        sums = documents.vectors.new_zeros(int(offsets[-1]), documents.vectors.shape[1])
        sums = sums.index_add(0, places.to(sums.device), documents.vectors)
        made[budget] = MultiVectors(truncate(sums, sums.shape[1]), offsets.to(documents.offsets.device))
    return made


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
