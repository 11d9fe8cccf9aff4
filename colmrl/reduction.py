"""What a view does to vectors: fewer of them (pooling), fewer dims (a prefix, normalised), fewer bits (rounding)."""

import itertools
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int

from colmrl.coding import code
from colmrl.scoring import MultiVectors, truncate
from colmrl.view import View

Method = Literal["ward", "mean", "random"]


def pool_tokens(
    vectors: Float[np.ndarray, "n h"],
    budget: int,
    positions: Float[np.ndarray, "n 2"] | None = None,
    method: Method = "ward",
    position_weight: float = 0.0,
) -> Float[np.ndarray, "m h"]:
    """At most `budget` normalised vectors: the means of `clusters` (token pooling, arXiv:2409.14683), in the order
    their first tokens stand.

    A document that has no more than `budget` vectors is returned as it is.
    """
    return pool_to_each(vectors, [budget], positions, method, position_weight)[0]


def pool_to_each(
    vectors: Float[np.ndarray, "n h"],
    budgets: Sequence[int],
    positions: Float[np.ndarray, "n 2"] | None = None,
    method: Method = "ward",
    position_weight: float = 0.0,
) -> list[np.ndarray]:
    """The same for several budgets, by one tree."""
    smaller = [budget for budget in budgets if budget < len(vectors)]
    made = iter(clusters(vectors, smaller, positions, method, position_weight))
    return [_means(vectors, next(made)) if budget < len(vectors) else vectors for budget in budgets]


def _means(vectors: Float[np.ndarray, "n h"], labels: Int[np.ndarray, " n"]) -> Float[np.ndarray, "m h"]:
    sums = np.zeros((labels.max() + 1, vectors.shape[1]), dtype=np.float32)
    np.add.at(sums, labels[labels >= 0], vectors[labels >= 0])
    return sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)


def clusters(
    vectors: Float[np.ndarray, "n h"],
    budgets: Sequence[int],
    positions: Float[np.ndarray, "n 2"] | None = None,
    method: Method = "ward",
    position_weight: float = 0.0,
) -> list[Int[np.ndarray, " n"]]:
    """For each budget, which cluster every vector belongs to, numbered in the order of their first vectors; -1: none.
    Where there are no more vectors than the budget, each is its own.

    ward: hierarchical clusters that grow least in variance, of vectors and, `position_weight` as large, positions;
    one tree for all budgets. mean: runs of as equal length as can be. random: single vectors, the baseline.
    """
    n, tree = len(vectors), None
    found = []
    for budget in budgets:
        if budget >= n:
            labels = np.arange(n)
        elif method == "mean" or (budget == 1 and method == "ward"):
            labels = np.arange(n) * budget // n
        elif method == "random":
            labels = np.full(n, -1)
            drawn = np.random.default_rng(n).choice(n, budget, replace=False)
            labels[np.sort(drawn)] = np.arange(budget)
        else:
            from scipy.cluster.hierarchy import fcluster

            tree = _ward(vectors, positions, position_weight) if tree is None else tree
            _, first, inverse = np.unique(
                fcluster(tree, budget, criterion="maxclust"), return_index=True, return_inverse=True
            )
            labels = np.argsort(np.argsort(first))[inverse]
        found.append(labels)
    return found


def _ward(
    vectors: Float[np.ndarray, "n h"], positions: Float[np.ndarray, "n 2"] | None, position_weight: float
) -> Float[np.ndarray, "merges 4"]:
    """Scipy's tree. Distances by one product of matrices: at 768 vectors, with them the tree takes 0.6 of the time."""
    from scipy.cluster.hierarchy import linkage

    placed = [] if positions is None or not position_weight else [position_weight * positions]
    features = torch.from_numpy(np.concatenate([vectors, *placed], axis=1, dtype=np.float64))
    apart = torch.cdist(features, features, compute_mode="use_mm_for_euclid_dist").numpy()
    return linkage(apart[~np.tri(len(apart), dtype=bool)], method="ward")


def pooled(documents: MultiVectors, budgets: Sequence[int], position_weight: float = 0.0) -> dict[int, MultiVectors]:
    """Budget → the documents pooled to it as `pool_tokens` does by Ward, differentiable: which vectors share a cluster
    is not learnt, their means are.
    """
    if not budgets:
        return {}
    counts = documents.counts.tolist()
    on_cpu = documents.vectors.detach().float().cpu().split(counts)
    places = (
        documents.positions.float().cpu().split(counts) if documents.positions is not None else [None] * len(counts)
    )
    each = [
        clusters(item.numpy(), budgets, place.numpy() if place is not None else None, "ward", position_weight)
        for item, place in zip(on_cpu, places, strict=True)
    ]
    made = {}
    for i, budget in enumerate(budgets):
        counts = torch.tensor([int(labels[i].max()) + 1 for labels in each])
        offsets = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
        rows = torch.cat([torch.from_numpy(labels[i]) + start for labels, start in zip(each, offsets, strict=False)])
        sums = documents.vectors.new_zeros(int(offsets[-1]), documents.vectors.shape[1])
        sums = sums.index_add(0, rows.to(sums.device), documents.vectors)
        made[budget] = MultiVectors(truncate(sums, sums.shape[1]), offsets.to(documents.offsets.device))
    return made


def as_view(vectors: np.ndarray, view: View) -> Float[np.ndarray, "n dim"]:
    """Vectors cut to a view's dim, normalised, and rounded to its precision; fp32, as scores take them."""
    return (
        code(truncate(torch.tensor(vectors[:, : view.dim], dtype=torch.float32), view.dim), view.precision)
        .decode()
        .numpy()
    )


def pool_records(
    vectors: np.ndarray,
    offsets: np.ndarray,
    budget: int,
    positions: np.ndarray | None = None,
    method: Method = "ward",
    position_weight: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Each record's vectors pooled to the budget; new vectors and offsets."""
    return pool_records_to_each(vectors, offsets, [budget], positions, method, position_weight)[0]


def pool_records_to_each(
    vectors: np.ndarray,
    offsets: np.ndarray,
    budgets: Sequence[int],
    positions: np.ndarray | None = None,
    method: Method = "ward",
    position_weight: float = 0.0,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The same for several budgets: each record's tree is made once."""
    made = [
        pool_to_each(
            np.asarray(vectors[start:stop], dtype=np.float32),
            budgets,
            np.asarray(positions[start:stop]) if positions is not None else None,
            method,
            position_weight,
        )
        for start, stop in itertools.pairwise(offsets)
    ]
    return [
        (np.concatenate(each), np.concatenate([[0], np.cumsum([len(one) for one in each])]).astype(np.int64))
        for each in zip(*made, strict=True)
    ]
