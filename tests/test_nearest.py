"""The bf16 scan finds what all scores in float64 give: near ties, long and short vectors, and equal documents."""

import numpy as np
import pytest
import torch

from colmrl import nearest as scanning
from colmrl.nearest import Halved, nearest

rng = np.random.default_rng(0)


def clustered(count, dim, spread, centres=40):
    middle = np.random.default_rng(1).normal(size=(centres, dim))
    return (middle[rng.integers(centres, size=count)] + rng.normal(scale=spread, size=(count, dim))).astype(np.float32)


@pytest.fixture
def small(monkeypatch):
    """The same with tiles of 64."""
    monkeypatch.setattr(scanning, "_TILE", 64)
    monkeypatch.setattr(scanning, "_SEED", 512)
    monkeypatch.setattr(scanning, "_GROUP", 4)
    monkeypatch.setattr(scanning, "_QUERIES", 50)


@pytest.mark.parametrize("count", [512, 1024, 1100, 2049])
@pytest.mark.parametrize("spread", [0.02, 0.7])
@pytest.mark.parametrize("lengths", [False, True])
def test_the_best_are_those_of_all_scores(small, count, spread, lengths):
    documents, queries = clustered(count, 24, spread), clustered(120, 24, spread)
    if lengths:
        documents *= rng.uniform(0.1, 30, size=(count, 1)).astype(np.float32)
    found = nearest(torch.from_numpy(queries), Halved.of(torch.from_numpy(documents)), 20)
    assert found is not None
    scores, positions, _ = found
    exact = queries.astype(np.float64) @ documents.T.astype(np.float64)
    best = -np.sort(-exact, axis=1)[:, :20]
    bound = 1e-5 * np.abs(best).max()
    assert np.abs(scores.numpy() - best).max() < bound
    assert np.abs(np.take_along_axis(exact, positions.numpy(), 1) - best).max() < bound
    assert all(len(set(row)) == 20 for row in positions.tolist())


def test_a_floor_leaves_out_only_what_is_below(small):
    documents, queries = clustered(1100, 24, 0.7), clustered(120, 24, 0.7)
    exact = queries.astype(np.float64) @ documents.T.astype(np.float64)
    best = -np.sort(-exact, axis=1)[:, :20]
    for rank in (0, 7, 19):
        floor = torch.from_numpy(best[:, rank]).float()
        found = nearest(torch.from_numpy(queries), Halved.of(torch.from_numpy(documents)), 20, floor)
        assert found is not None
        np.testing.assert_allclose(found[0][:, : rank + 1], best[:, : rank + 1], rtol=1e-5)
        assert rank == 19 or bool((found[0][:, 19] == -np.inf).any())  # not all were scored


def test_a_floor_that_no_document_reaches_leaves_none(small):
    documents, queries = clustered(1100, 24, 0.7), clustered(120, 24, 0.7)
    best = (queries @ documents.T).max(1)
    best[7:] *= 2  # of a step of rescored queries none, and of another some
    found = nearest(torch.from_numpy(queries), Halved.of(torch.from_numpy(documents)), 5, torch.from_numpy(best))
    assert found is not None and bool((found[0][7:] == -np.inf).all())
    np.testing.assert_allclose(found[0][:7, 0], best[:7], rtol=1e-5)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_vectors_that_are_not_finite_are_left_to_others(small, wrong):
    documents = clustered(1100, 24, 0.7)
    documents[5, 3] = wrong
    assert nearest(torch.from_numpy(documents[:60]), Halved.of(torch.from_numpy(documents)), 5) is None


@pytest.mark.parametrize("wrong", [0, np.nan, np.inf])
@pytest.mark.parametrize("floors", [False, True])
def test_queries_without_a_direction_are_left_to_others_and_only_they(small, wrong, floors):
    documents, queries = clustered(1100, 24, 0.7), clustered(120, 24, 0.7)
    floor = torch.from_numpy(-np.sort(-(queries @ documents.T))[:, 4]) if floors else None
    whole = nearest(torch.from_numpy(queries), Halved.of(torch.from_numpy(documents)), 5, floor)
    queries[[3, 70]] = wrong
    if floor is not None:
        floor[[3, 70]] = wrong
    found = nearest(torch.from_numpy(queries), Halved.of(torch.from_numpy(documents)), 5, floor)
    assert found is not None and whole is not None and bool(whole.told.all())
    assert (~found.told).nonzero()[:, 0].tolist() == [3, 70]
    assert all(torch.equal(one[found.told], other[found.told]) for one, other in zip(found, whole, strict=True))


def test_of_equal_documents_the_first_come_first(small):
    documents = clustered(700, 24, 0.5)
    documents /= np.linalg.norm(documents, axis=1, keepdims=True)
    documents[::3] = documents[0]
    found = nearest(torch.from_numpy(documents[:1]), Halved.of(torch.from_numpy(documents)), 100)
    assert found is not None
    scores, positions, _ = found
    assert positions[0].tolist() == list(range(0, 300, 3)) and len(set(scores[0].tolist())) == 1


def test_what_bf16_cannot_tell_apart_is_left_to_others(small, monkeypatch):
    documents, queries = clustered(700, 24, 0.5), clustered(60, 24, 0.5)
    below = Halved.of(torch.from_numpy(-np.abs(documents)))
    assert nearest(torch.from_numpy(np.abs(queries)), below, 5) is None  # no score above 0
    monkeypatch.setattr(scanning, "_MOST", 100)
    alike = Halved.of(torch.ones(700, 24))
    assert nearest(torch.ones(60, 24), alike, 5) is None


def test_threads_change_nothing(small):
    documents, queries = clustered(1300, 24, 0.5), torch.from_numpy(clustered(130, 24, 0.5))
    halved, threads = Halved.of(torch.from_numpy(documents)), torch.get_num_threads()
    found = []
    for number in (1, 3):
        torch.set_num_threads(number)
        found.append(nearest(queries, halved, 7))
    torch.set_num_threads(threads)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_a_machine_without_amx_scans_in_fp32(monkeypatch):
    assert not scanning.pays(255, 10**6, 10) and not scanning.pays(4096, 8191, 10)
    assert not scanning.pays(4096, 10**6, 257)
    for amx in (True, False):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda amx=amx: {"amx_bf16": amx})
        assert scanning.pays(4096, 10**6, 100) is amx
