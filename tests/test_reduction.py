"""Pooling against scipy and plain formulas; what training and encoding pool is one thing."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage

from colmrl.reduction import clusters, pool_records, pool_tokens, pooled
from colmrl.scoring import MultiVectors

METHODS = ("ward", "mean", "random")


def drawn(count, seed, dim=8):
    """Unit vectors, and as many positions."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), rng.random((count, 2), dtype=np.float32)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def groups(labels):
    return {tuple(np.flatnonzero(labels == label)) for label in np.unique(labels) if label >= 0}


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 60), st.integers(1, 20), st.floats(0, 3), st.integers(0, 99))
def test_ward_pools_to_the_means_of_scipys_clusters_of_vectors_and_weighted_positions(count, budget, weight, seed):
    vectors, positions = drawn(count, seed)
    tokens = pool_tokens(vectors, budget, positions, "ward", weight)
    if count <= budget:
        assert tokens is vectors
        return
    features = np.concatenate([vectors, weight * positions], axis=1).astype(np.float64)
    expected = fcluster(linkage(features, method="ward"), budget, criterion="maxclust")
    means = [vectors[expected == label].sum(0) for label in dict.fromkeys(expected)]
    np.testing.assert_allclose(tokens, unit(np.stack(means)), atol=1e-5)
    assert len(tokens) <= budget


def test_positions_decide_where_vectors_do_not():
    vectors = np.tile(np.float32([[1, 0], [0.999, 0.04]]), (4, 1))  # two kinds in turns
    positions = np.float32([[i // 4, i % 4 / 4] for i in range(8)])  # two rows
    kinds, rows = [{(0, 2, 4, 6), (1, 3, 5, 7)}, {(0, 1, 2, 3), (4, 5, 6, 7)}]
    assert groups(clusters(vectors, [2], positions, "ward", 0.01)[0]) == kinds
    assert groups(clusters(vectors, [2], positions, "ward", 1.0)[0]) == rows
    assert groups(clusters(vectors, [2], None, "ward", 1.0)[0]) == kinds


@given(st.integers(1, 80), st.integers(1, 20))
def test_mean_pools_consecutive_runs_whose_lengths_differ_by_one_at_most(count, budget):
    vectors, _ = drawn(count, 0)
    (labels,) = clusters(vectors, [budget], method="mean")
    lengths = np.bincount(labels)
    assert (np.diff(labels) >= 0).all() and len(lengths) == min(count, budget) and np.ptp(lengths) <= 1
    runs = np.split(vectors, np.cumsum(lengths)[:-1])
    np.testing.assert_allclose(
        pool_tokens(vectors, budget, method="mean"), unit(np.stack([r.sum(0) for r in runs])), atol=1e-5
    )


@given(st.integers(1, 80), st.integers(1, 20), st.integers(0, 9))
def test_random_keeps_some_vectors_as_they_are_the_same_ones_for_as_many_vectors(count, budget, seed):
    vectors, _ = drawn(count, seed)
    kept = pool_tokens(vectors, budget, method="random")
    (labels,), (again,) = (clusters(drawn(count, each)[0], [budget], method="random") for each in (seed, seed + 1))
    assert np.array_equal(labels, again)
    np.testing.assert_allclose(kept, vectors[labels >= 0], atol=1e-6)
    assert len(kept) == min(count, budget) and np.array_equal(labels[labels >= 0], np.arange(len(kept)))


def test_random_draws_every_place_about_as_often():
    places = np.concatenate(
        [np.flatnonzero(clusters(drawn(n, 0)[0], [5], method="random")[0] >= 0) / n for n in range(50, 250)]
    )
    assert abs(places.mean() - 0.5) < 0.03 and abs(places.std() - 12**-0.5) < 0.03


@pytest.mark.parametrize("method", METHODS)
def test_records_are_pooled_one_by_one_in_their_order(method):
    parts = [drawn(count, count) for count in (30, 3, 17)]
    vectors, positions = (np.concatenate(each) for each in zip(*parts, strict=True))
    offsets = np.cumsum([0, 30, 3, 17])
    found, bounds = pool_records(vectors.astype(np.float16), offsets, 5, positions, method, 0.7)
    expected = [pool_tokens(v.astype(np.float16).astype(np.float32), 5, p, method, 0.7) for v, p in parts]
    assert np.array_equal(found, np.concatenate(expected)) and bounds.dtype == np.int64
    assert bounds.tolist() == np.cumsum([0, *map(len, expected)]).tolist()
    assert len(expected[1]) == 3


@pytest.mark.parametrize("weight", [0.0, 0.8])
def test_training_pools_as_encoding_does_with_gradients_of_the_means(weight):
    parts = [drawn(count, count) for count in (30, 3, 17)]
    vectors = torch.from_numpy(np.concatenate([v for v, _ in parts])).double().requires_grad_()
    positions = torch.from_numpy(np.concatenate([p for _, p in parts]))
    offsets = torch.tensor([0, 30, 33, 50])
    made = pooled(MultiVectors(vectors, offsets, positions), [1, 6], weight)
    for budget, items in made.items():
        expected, bounds = pool_records(
            vectors.detach().numpy(), offsets.numpy(), budget, positions.numpy(), "ward", weight
        )
        np.testing.assert_allclose(items.vectors.detach().numpy(), expected, atol=1e-5)
        assert items.offsets.tolist() == bounds.tolist()
    assert torch.autograd.gradcheck(
        lambda v: pooled(MultiVectors(v, offsets, positions), [6], weight)[6].vectors, vectors
    )


def test_positions_change_what_training_pools():
    vectors, positions = drawn(40, 1)
    items = MultiVectors(torch.from_numpy(vectors), torch.tensor([0, 40]), torch.from_numpy(positions))
    without, with_them = (pooled(items, [6], weight)[6].vectors for weight in (0.0, 3.0))
    assert without.shape != with_them.shape or not torch.allclose(without, with_them)
