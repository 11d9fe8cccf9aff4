import numpy as np
import pytest
from conftest import search_store

from colmrl.store import EmbeddingStore
from colmrl.view import View


def vectors(store, kind, view):
    kept = EmbeddingStore(store / kind)
    if view.head == "single":
        return list(np.concatenate(list(kept.single(view))))
    return [item.numpy() for shard in kept.multi(view) for item in shard.unpack()]


def brute_force(store, view):
    """q × d scores, with numpy alone."""
    queries = vectors(store, "queries", View(view.head, view.dim))
    documents = vectors(store, "documents", view)
    if view.head == "single":
        return np.array([[query @ document for document in documents] for query in queries])
    return np.array([[(query @ document.T).max(1).mean() for document in documents] for query in queries])


@pytest.mark.parametrize(
    "text", ["single@128", "single@32:int8", "single@128:binary", "multi@64", "multi@16x4", "multi@64x4:binary"]
)
@pytest.mark.parametrize("k", [7, 1000])
def test_search_equals_brute_force(store, text, k):
    view = View.parse(text)
    ranking = search_store(store, view, k)
    expected = brute_force(store, view)
    depth = min(k, expected.shape[1])
    assert ranking.positions.shape == (len(expected), depth)
    best = -np.sort(-expected, axis=1)[:, :depth]
    np.testing.assert_allclose(ranking.scores, best, atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(expected, ranking.positions, 1), best, atol=1e-5)
    assert all(len(set(row)) == depth for row in ranking.positions)


def test_a_run_names_queries_and_documents(store):
    ranking = search_store(store, View("single", 32), 3)
    run = ranking.run()
    assert list(run) == EmbeddingStore(store / "queries").ids and all(len(ranked) == 3 for ranked in run.values())
    assert set(run["train-q0"]) <= set(EmbeddingStore(store / "documents").ids)
    for view in (View("single", 32), View("multi", 16)):
        some = search_store(store, view, 3, {"train-q7", "train-q40"}).run()
        whole = search_store(store, view, 3).run()
        assert some == {name: pytest.approx(whole[name], abs=1e-6) for name in ("train-q7", "train-q40")}
