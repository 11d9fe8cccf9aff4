"""Retriever of the Python API: what it gives is what a store gives and what search scores by."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import search_store
from PIL import Image

import colmrl
from colmrl.api.records import _listed, _record
from colmrl.data.beir import read_corpus, read_queries
from colmrl.data.records import Document, Query
from colmrl.errors import InputError
from colmrl.models.retriever import Retriever as Model
from colmrl.store import EmbeddingStore
from colmrl.view import View

VIEWS = ["single@128", "single@32", "single@32:fp16", "single@128:int8", "single@32:binary"]
VIEWS += ["multi@64", "multi@16", "multi@16:int8", "multi@64x4", "multi@16x4:int8", "multi@64x5:binary"]


@pytest.fixture(scope="module")
def retriever(checkpoint):
    return colmrl.Retriever.from_pretrained(checkpoint, device="cpu")


@pytest.fixture(scope="module")
def documents(sample):
    return read_corpus(sample / "train")[:10]  # the store's first shard


def test_documents_at_a_view_are_bit_for_bit_what_the_store_reads(retriever, documents, store):
    kept = EmbeddingStore(store / "documents")
    given = retriever.encode_documents(documents, view=VIEWS)
    assert list(given) == VIEWS
    for name in VIEWS:
        view = View.parse(name)
        stored = next(kept.single(view) if view.head == "single" else kept.multi(view))
        if view.head == "single":
            assert given[name].dtype == torch.float32 and np.array_equal(given[name].numpy(), stored)
        else:
            assert [len(one) for one in given[name]] == stored.counts.tolist()
            assert torch.equal(torch.cat(given[name]), stored.vectors)


@pytest.mark.parametrize("view", ["single@32", "single@128:int8", "multi@16", "multi@64x4", "multi@64:binary"])
def test_similarity_is_what_search_scores_by(view, retriever, store, sample):
    queries = retriever.encode_queries(list(read_queries(sample / "train")), view=view)
    documents = retriever.encode_documents(list(read_corpus(sample / "train")), view=view)
    scores = retriever.similarity(queries, documents)
    ranking = search_store(store, View.parse(view), 5)
    np.testing.assert_allclose(scores.gather(1, torch.from_numpy(ranking.positions)), ranking.scores, atol=1e-5)


def test_similarity_is_the_dot_product_and_the_mean_of_maxima(retriever, documents):
    both = ["single@32", "multi@16x4"]
    queries = retriever.encode_queries(["a red circle", "blue"], view=both, convert_to_numpy=True)
    found = retriever.encode_documents(documents, view=both, convert_to_numpy=True)
    single = queries["single@32"] @ found["single@32"].T
    np.testing.assert_allclose(retriever.similarity(queries["single@32"], found["single@32"]), single, atol=1e-6)
    naive = [[(q @ d.T).max(1).mean() for d in found["multi@16x4"]] for q in queries["multi@16x4"]]
    np.testing.assert_allclose(retriever.similarity(queries["multi@16x4"], found["multi@16x4"]), naive, atol=1e-6)


def test_similarity_at_a_smaller_view_is_that_of_embeddings_at_it(retriever, documents):
    queries, texts = ["single@128", "single@32:binary", "multi@64", "multi@16:int8"], ["a red circle", "blue"]
    asked, found = retriever.encode_queries(texts, view=queries), retriever.encode_documents(documents, view=queries)
    for large, small in (("single@128", "single@32:binary"), ("multi@64", "multi@16:int8")):
        cut = retriever.similarity(asked[large], found[large], view=small)
        assert torch.allclose(cut, retriever.similarity(asked[small], found[small]), atol=1e-6)
        assert not torch.allclose(cut, retriever.similarity(asked[large], found[large]), atol=1e-3)


def test_a_picture_is_the_same_by_path_by_pil_in_a_dict_and_as_a_record(retriever, documents):
    path = documents[0].images[0]
    with Image.open(path) as opened:
        given = [path, Path(path), opened, Image.open(path).convert("RGB"), {"image": [opened]}, {"images": path}]
        made = retriever.encode_documents([*given, Document("own", images=(path,))], view="multi@64")
        asked = retriever.encode_queries([opened, Path(path), {"image": path, "id": "q"}], view="single@128")
    assert all(torch.allclose(one, made[0], atol=1e-5) for one in made)
    assert torch.allclose(asked, asked[:1].expand(3, -1), atol=1e-5)
    with_text = retriever.encode_documents({"text": "a red circle", "title": "One", "image": path}, view="multi@64")
    own = retriever.encode_documents(Document("own", "a red circle", "One", (path,)), view="multi@64")
    assert torch.equal(with_text, own) and len(with_text) > len(made[0])


def test_a_query_that_names_a_picture_is_a_text(retriever):
    texts = retriever.encode_queries(["logo.png", Query("q", "logo.png"), {"text": "logo.png"}], view="multi@64")
    assert all(torch.allclose(one, texts[0], atol=1e-5) for one in texts)


def test_both_heads_come_from_one_forward_pass(retriever, documents, monkeypatch):
    calls = []
    whole = Model.forward
    monkeypatch.setattr(Model, "forward", lambda self, *given: calls.append(1) or whole(self, *given))
    retriever.encode_documents(documents, view=["single@128", "single@32", "multi@64", "multi@64x4"])
    assert len(calls) == 1
    retriever.encode_documents(documents, batch_size=4)
    assert len(calls) == 4


def test_one_is_given_back_as_one_and_none_as_none(retriever):
    assert retriever.encode_queries("a red circle").shape == (128,)
    assert retriever.encode_queries(["a red circle"]).shape == (1, 128)
    assert retriever.encode_queries("a red circle", view="multi@16").ndim == 2
    assert isinstance(retriever.encode_queries("blue", convert_to_numpy=True), np.ndarray)
    assert retriever.encode_queries([], view="single@32").shape == (0, 32)
    assert retriever.encode_documents([], view=["multi@16"]) == {"multi@16": []}
    query = retriever.encode_queries("blue", view="multi@16")
    assert retriever.similarity(query, [query, query[:2]], view="multi@16").shape == (1, 2)
    assert retriever.views == ["single@128", "single@32", "multi@64", "multi@16"]


def test_dtype_is_as_if_the_checkpoint_said_it(retriever, checkpoint, documents, tmp_path):
    said = shutil.copytree(checkpoint, tmp_path / "said")
    description = json.loads((said / "colmrl.json").read_text())
    description["model"]["dtype"] = "bf16"
    (said / "colmrl.json").write_text(json.dumps(description))
    own = colmrl.Retriever.from_pretrained(said, device="cpu").encode_documents(documents[:3])
    for dtype in ("bf16", torch.bfloat16):
        made = colmrl.Retriever.from_pretrained(checkpoint, "cpu", dtype).encode_documents(documents[:3])
        assert torch.equal(made, own)
    assert not torch.equal(own, retriever.encode_documents(documents[:3]))


def ask(retriever, name):
    return getattr(retriever, f"encode_{name}")


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("documents", ["a text", "nowhere.png"], r"documents\[1\]: 'nowhere.png': .* no such file: .*'text'"),
        ("documents", [{"txt": "a"}], r"documents\[0\]: 'txt': .* did you mean 'text'\?"),
        ("queries", [{"title": "a"}], r"queries\[0\]: 'title': no such field of a query: give text"),
        ("documents", [{"image": 3}], r"documents\[0\]: image: int: not a picture"),
        ("documents", [{"text": ""}], r"documents\[0\]'?: nothing left"),
        ("documents", [Path("nowhere.png")], r"documents\[0\]'?: nowhere.png: no such image"),
    ],
)
def test_what_cannot_be_embedded_is_said_with_its_place(name, given, said, retriever):
    with pytest.raises(InputError, match=said):
        ask(retriever, name)(given)


def test_what_is_no_record_is_refused():
    for kind in (Query, Document):
        with pytest.raises(InputError, match=r"queries\[1\]: int: not a text"):
            _record(kind, 3, "queries[1]")
    with pytest.raises(InputError, match="NoneType: not a text"):
        _listed(None)


def test_embeddings_that_do_not_go_together_are_refused(retriever, documents):
    views = ["single@128", "single@32", "multi@64", "multi@64x4"]
    asked, found = retriever.encode_queries(["blue"], view=views[:3]), retriever.encode_documents(documents, view=views)
    for queries, others, view, said in (
        (asked["single@128"], found["multi@64"], None, "single vectors and multi-vectors"),
        (asked["single@128"], found["single@32"], None, "128 dims and 32"),
        (asked["single@32"], found["single@32"], "single@128", "queries are single@32"),
        (asked["multi@64"], found["multi@64"], "single@32", "queries are multi@64"),
        (asked["multi@64"], found["multi@64"], "multi@64x4", "pool them by encode_documents"),
        (["blue"], found["single@32"], None, "not embeddings"),
        (torch.zeros(1, 2, 3, 4), found["single@32"], None, "of shape 1×2×3×4"),
    ):
        with pytest.raises(InputError, match=said):
            retriever.similarity(queries, others, view)
    assert retriever.similarity(asked["multi@64"], found["multi@64x4"], view="multi@64x4").shape == (1, 10)
    with pytest.raises(InputError, match="was not trained"):
        retriever.encode_queries("blue", view="multi@63")
    with pytest.raises(InputError, match="dtype: int8: unknown: give fp32, bf16, fp16"):
        colmrl.Retriever.from_pretrained("nowhere", dtype="int8")


def test_importing_colmrl_is_light_and_names_what_there_is():
    code = (
        "import sys, colmrl\n"
        "assert not {'torch', 'numpy', 'transformers', 'colmrl.api'} & set(sys.modules)\n"
        "assert {'Retriever', 'Store', 'open_store', 'encode', 'train'} <= set(dir(colmrl))\n"
        "assert not hasattr(colmrl, 'retriever')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
