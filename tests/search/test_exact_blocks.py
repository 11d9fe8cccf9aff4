"""Exact search reads vectors as it needs them; what it holds, and in how many pieces it reads, changes nothing."""

import numpy as np
import pytest
from faiss import knn
from stores import clustered, unit, write_store

from colmrl import nearest
from colmrl.search import Asked, exact
from colmrl.store import EmbeddingStore
from colmrl.view import View

VIEW = View("single", 16)


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    made = clustered(0, 300, 12)
    store = write_store(tmp_path_factory.mktemp("made") / "store", made)
    scores = unit(made["queries"][0][:, :16]) @ unit(made["documents"][0][:, :16]).T
    return EmbeddingStore(store / "documents"), Asked.of_store(EmbeddingStore(store / "queries")), scores


@pytest.mark.parametrize("rows", [1, 33, 64, 1000])
def test_blocks_of_any_size_give_what_numpy_gives(opened, monkeypatch, rows):
    documents, asked, scores = opened
    monkeypatch.setattr(exact, "_BLOCK_BYTES", rows * 4 * VIEW.dim)
    monkeypatch.setattr(exact, "_MANY", 1)
    for k in (1, 7, 300, 999):
        found, positions = exact.ExactSingle(documents, VIEW, False).find(asked, k)
        order = np.argsort(-scores, axis=1)[:, :k]
        np.testing.assert_array_equal(positions, order)
        np.testing.assert_allclose(found, np.take_along_axis(scores, order, 1), atol=1e-6)


def test_vectors_are_held_only_where_few_queries_come_again(opened, monkeypatch):
    documents, asked, _ = opened
    monkeypatch.setattr(exact, "_MANY", len(asked))
    finder = exact.ExactSingle(documents, VIEW, False)
    finder.find(asked, 5)
    finder.find(asked.rows([0]), 5)  # what is left over of many
    first = finder.find(asked.rows([3]), 5) if "_held" not in vars(finder) else None
    assert first is not None and "_held" in vars(finder)
    again = finder.find(asked.rows([3]), 5)
    read = exact.ExactSingle(documents, VIEW, False).find(asked.rows([3]), 5)
    for one, other in zip(again, read, strict=True):
        np.testing.assert_array_equal(one, other)


def test_in_bf16_blocks_are_searched_for_what_beats_those_before(tmp_path, monkeypatch):
    made = clustered(0, 700, 300)
    store = write_store(tmp_path / "store", made)
    documents, asked = EmbeddingStore(store / "documents"), Asked.of_store(EmbeddingStore(store / "queries"))
    scores = unit(made["queries"][0][:, :16]) @ unit(made["documents"][0][:, :16]).T
    scans = []
    monkeypatch.setattr(exact, "_BLOCK_BYTES", 200 * 4 * VIEW.dim)
    monkeypatch.setattr(exact, "_MANY", 1)
    for name, value in (("_TILE", 16), ("_SEED", 64), ("_GROUP", 2)):
        monkeypatch.setattr(nearest, name, value)
    monkeypatch.setattr(exact, "pays", lambda queries, count, k: count >= 64)
    monkeypatch.setattr(exact, "nearest", lambda *asked: scans.append(asked[3]) or nearest.nearest(*asked))
    found, positions = exact.ExactSingle(documents, VIEW, False).find(asked, 9)
    order = np.argsort(-scores, axis=1)[:, :9]
    np.testing.assert_array_equal(positions, order)
    np.testing.assert_allclose(found, np.take_along_axis(scores, order, 1), atol=1e-6)
    assert scans[0] is None and len(scans) > 2 and all(floor is not None for floor in scans[1:])


def test_a_query_of_zeros_is_scanned_in_fp32_beside_the_others(tmp_path, monkeypatch):
    made = clustered(0, 700, 300)
    documents = EmbeddingStore(write_store(tmp_path / "store", made) / "documents")
    for name, value in (("_TILE", 16), ("_SEED", 64), ("_GROUP", 2)):
        monkeypatch.setattr(nearest, name, value)
    monkeypatch.setattr(exact, "pays", lambda queries, count, k: True)
    block, queries = next(iter(documents.single(VIEW))).copy(), unit(made["queries"][0][:, :16]).astype(np.float32)
    queries[[0, 5]] = 0
    scans = []
    monkeypatch.setattr(exact.faiss, "knn", lambda asked, *rest: scans.append(len(asked)) or knn(asked, *rest))
    scores, _ = exact._scanned(queries, block, 9, None)
    assert scans == [2]
    np.testing.assert_allclose(scores, -np.sort(-(queries @ block.T), axis=1)[:, :9], atol=1e-6)
