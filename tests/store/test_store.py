import shutil

import numpy as np
import pytest
import torch
from conftest import VISION, search_store
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage

from colmrl.configure import replace
from colmrl.data.beir import read_corpus
from colmrl.encoding import embed, encode
from colmrl.errors import InputError
from colmrl.models.retriever import Retriever
from colmrl.reduction import pool_tokens
from colmrl.scoring import MultiVectors, truncate
from colmrl.store import EmbeddingStore
from colmrl.view import View


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.npy"))}


@pytest.fixture
def copy(store, tmp_path):
    return shutil.copytree(store, tmp_path / "store")


def again(copy, checkpoint, make, sample, *overrides):
    return encode(make(copy, *overrides), checkpoint, sample / "train", copy)


def test_stored_prefixes_are_the_models_own_embeddings(store, checkpoint, sample):
    model = Retriever.load(checkpoint).eval()
    documents = read_corpus(sample / "train")
    kept = EmbeddingStore(store / "documents")
    assert kept.ids == [d.id for d in documents] and len(kept.manifest.shards) == 5
    with torch.no_grad():
        alone = [model(model.inputs.documents([d])) for d in documents]
    for dim in (128, 32):
        stored = np.concatenate(list(kept.single(View("single", dim))))
        own = torch.cat([truncate(e.single, dim) for e in alone]).numpy()
        np.testing.assert_allclose(stored, own, atol=1e-5)
    for dim in (64, 16):
        stored = torch.cat([shard.vectors for shard in kept.multi(View("multi", dim))])
        own = torch.cat([e.multi.truncate(dim).vectors for e in alone])
        assert torch.allclose(stored, own, atol=1e-5)


@pytest.mark.parametrize("family", [*VISION, "qwen3", "bert"])
def test_encoding_is_the_same_in_any_batch(family, tiny, settings, tmp_path, sample):
    extra = ["model.document_fields=[text]"] if family not in VISION else []
    model = Retriever.create(settings(tmp_path, *extra, family=family)).eval()
    documents = read_corpus(sample / "train")[:5]
    if family not in VISION:
        from colmrl.data.records import Document

        documents = [Document(str(n), text="red circle " * (n + 1)) for n in range(5)]
    one, five = (embed(model, "documents", documents, size) for size in (1, 5))
    assert torch.allclose(one.single, five.single, atol=1e-5)
    assert torch.equal(one.multi.offsets, five.multi.offsets)
    assert torch.allclose(one.multi.vectors, five.multi.vectors, atol=1e-5)


def test_missing_and_truncated_shards_are_made_again_byte_equal(copy, checkpoint, settings, sample):
    before = contents(copy)
    (copy / "documents/single-00001.npy").unlink()
    truncated = copy / "documents/multi-00003.npy"
    truncated.write_bytes(truncated.read_bytes()[:-100])
    (copy / "queries/multi-00000.offsets.npy").write_bytes(b"")
    with pytest.raises(InputError, match=r"single-00001.npy: of shard 1, is missing"):
        EmbeddingStore(copy / "documents")
    untouched = (copy / "documents/single-00000.npy").stat().st_mtime_ns
    again(copy, checkpoint, settings, sample)
    assert contents(copy) == before
    assert (copy / "documents/single-00000.npy").stat().st_mtime_ns == untouched


def test_a_store_of_another_checkpoint_data_or_size_is_refused(copy, checkpoint, settings, sample, tmp_path):
    before = contents(copy)
    other = shutil.copytree(checkpoint, tmp_path / "other")
    model = Retriever.load(other)
    torch.nn.init.normal_(model.multi.projection.weight)
    model.save(other)
    with pytest.raises(InputError, match="another fingerprint"):
        again(copy, other, settings, sample)
    with pytest.raises(
        InputError, match=r"another content_hash .the data.s records changed.: .* add what is new to it with --append"
    ):
        encode(settings(copy), checkpoint, sample / "test", copy)
    changed = shutil.copytree(sample / "train", tmp_path / "data")
    rows = (changed / "queries.jsonl").read_text().replace("red", "blue")
    (changed / "queries.jsonl").write_text(rows)
    with pytest.raises(InputError, match="another content_hash"):
        encode(settings(copy), checkpoint, changed, copy)
    with pytest.raises(InputError, match="another shard_size"):
        again(copy, checkpoint, settings, sample, "encode.shard_size=7")
    assert contents(copy) == before


def test_only_the_views_asked_for_are_kept(checkpoint, settings, sample, store, tmp_path):
    config = replace(settings(tmp_path), encode={"views": ("single@32:fp16", "multi@16x4:fp16")})
    out = encode(config, checkpoint, sample / "train", tmp_path / "small")
    small, full = EmbeddingStore(out / "documents"), EmbeddingStore(store / "documents")
    names = {p.name for p in (out / "documents").glob("*-00000*.npy")}
    assert names == {"single-fp16-00000.npy", "multi-x4-fp16-00000.npy", "multi-x4-fp16-00000.offsets.npy"}
    assert list(map(str, small.views())) == ["single@32:fp16", "multi@16x4:fp16"]
    single = np.concatenate(list(small.single(View.parse("single@32:fp16"))))
    np.testing.assert_allclose(single, np.concatenate(list(full.single(View("single", 32)))), atol=2e-3)
    pooled = torch.cat([s.vectors for s in small.multi(View.parse("multi@16x4:fp16"))])
    while_reading = torch.cat([s.vectors for s in full.multi(View.parse("multi@16x4"))])
    assert torch.allclose(pooled, while_reading, atol=2e-3)  # pooled at full width, then cut: here as there
    assert small.vectors_per_record(View.parse("multi@16x4:fp16")) == 4
    with pytest.raises(InputError, match=r"'single@128:fp16'.*keeps single@32:fp16, multi@16x4:fp16"):
        small.array_of(View.parse("single@128:fp16"))
    with pytest.raises(InputError, match=r"'multi@16:fp16'"):
        small.array_of(View.parse("multi@16:fp16"))
    with pytest.raises(InputError, match=r"'single@32'"):
        small.array_of(View.parse("single@32"))
    for text in ("single@32:int8", "multi@16x4:binary", "single@32:fp16"):  # queries are kept in fp16 as well
        assert len(search_store(out, View.parse(text), 3).query_ids) == 96
    asked = replace(config, encode={"views": ("multi@16x99:fp16",)})
    much = encode(asked, checkpoint, sample / "train", tmp_path / "much")
    with pytest.raises(InputError, match="no document has more than 24 vectors"):
        EmbeddingStore(much / "documents").array_of(View.parse("multi@16x99:fp16"))


@pytest.mark.parametrize("precision", ["fp16", "int8", "binary"])
def test_what_is_kept_in_a_precision_is_what_is_rounded_to_it_while_reading(
    precision, checkpoint, settings, sample, store, tmp_path
):
    names = [f"single@128:{precision}", f"multi@64:{precision}", f"multi@64x4:{precision}"]
    config = replace(settings(tmp_path), encode={"views": tuple(names)})
    out = encode(config, checkpoint, sample / "train", tmp_path / "small")
    kept, full = EmbeddingStore(out / "documents"), EmbeddingStore(store / "documents")
    single, multi, pooled = map(View.parse, names)
    assert (np.concatenate(list(kept.single(single))) == np.concatenate(list(full.single(single)))).all()
    for view in (multi, pooled):
        for here, there in zip(kept.multi(view), full.multi(view), strict=True):
            assert torch.equal(here.offsets, there.offsets)
            step = 0 if view is multi else 0.005  # means of the model's own vectors, or of stored ones
            torch.testing.assert_close(here.vectors, there.vectors, atol=step, rtol=0)
        count = kept.vectors_per_record(view)
        values = [p for p in (out / "documents").glob(f"{kept.array_of(view).name}-0*.npy") if p.suffixes[0] == ".npy"]
        scales = list((out / "documents").glob(f"{kept.array_of(view).name}-0*.scales.npy"))
        stated = view.bytes_per_document(count) * len(kept)
        assert sum(np.load(p).nbytes for p in values + scales) == pytest.approx(stated)
    part = View("multi", 16, None, precision)  # a prefix of codes: cut, then normalised
    signs = np.concatenate([np.sign(s.vectors) for s in full.multi(View.parse("multi@16"))])
    short = np.concatenate([s.vectors.numpy() for s in kept.multi(part)])
    np.testing.assert_allclose(np.linalg.norm(short, axis=1), 1, atol=2e-3)
    close = np.concatenate([s.vectors.numpy() for s in full.multi(View.parse("multi@16"))])
    assert (np.sign(short) == signs).all() if precision == "binary" else np.abs(short - close).max() < 0.05


@pytest.mark.parametrize("name", ["multi@64", "multi@16", "multi@64x4", "multi@16:int8", "multi@64x4:binary"])
def test_some_rows_are_the_same_as_all_of_them_picked(name, store):
    kept, view = EmbeddingStore(store / "documents"), View.parse(name)
    whole = MultiVectors.cat(list(kept.multi(view)))
    rows = np.array([33, 2, 2, 47, 10, 9])
    some, picked = kept.multi_rows(view, rows), whole.select(torch.from_numpy(rows))
    assert torch.equal(some.offsets, picked.offsets) and torch.allclose(some.vectors, picked.vectors, atol=1e-6)
    if view.vectors is None:
        assert some.positions is not None and torch.equal(some.positions, picked.positions)
    single = View("single", 32)
    np.testing.assert_array_equal(kept.single_rows(single, rows), np.concatenate(list(kept.single(single)))[rows])


def test_impossible_views_are_refused_with_what_is_possible(store):
    documents = EmbeddingStore(store / "documents")
    with pytest.raises(InputError, match=r"single@48.*not trained.*single@128, single@32, multi@64, multi@16"):
        documents.array_of(View.parse("single@48"))
    with pytest.raises(InputError, match="no document has more than 24 vectors"):
        documents.array_of(View.parse("multi@64x25"))
    with pytest.raises(InputError, match="not a store"):
        EmbeddingStore(store)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 12), st.integers(1, 14), st.integers(0, 99))
def test_pooled_vectors_are_the_normalised_means_of_ward_clusters(count, budget, seed):
    vectors = np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    pooled = pool_tokens(vectors, budget)
    if count <= budget:
        assert pooled is vectors
        return
    labels = fcluster(linkage(vectors.astype(float), "ward"), budget, "maxclust") if budget > 1 else np.ones(count)
    means = [vectors[labels == label].mean(0) for label in dict.fromkeys(labels)]
    np.testing.assert_allclose(pooled, [m / np.linalg.norm(m) for m in means], atol=1e-5)
    assert len(pooled) <= budget
