import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from colmrl import scoring
from colmrl.coding import CodedItems, code
from colmrl.scoring import MultiVectors, _best_in_blocks, dot, maxsim, truncate


def items(counts, dim, seed):
    generator = torch.Generator().manual_seed(seed)
    return [F.normalize(torch.randn(count, dim, generator=generator, dtype=torch.float64), dim=-1) for count in counts]


def naive_maxsim(queries, documents):
    """Three loops, as ColBERT's formula reads; the mean over query vectors."""
    scores = torch.zeros(len(queries), len(documents), dtype=torch.float64)
    for i, query in enumerate(queries):
        for j, document in enumerate(documents):
            total = 0.0
            for vector in query:
                total += max(float(vector @ other) for other in document)
            scores[i, j] = total / len(query)
    return scores


counts = st.lists(st.integers(1, 6), min_size=1, max_size=5)


@settings(deadline=None, max_examples=40)
@given(counts, counts, st.integers(1, 8), st.integers(0, 99))
def test_maxsim_equals_the_naive_triple_loop(query_counts, document_counts, dim, seed):
    queries, documents = items(query_counts, dim, seed), items(document_counts, dim, seed + 100)
    expected = naive_maxsim(queries, documents)
    packed = MultiVectors.pack(queries), MultiVectors.pack(documents)
    assert torch.allclose(maxsim(*packed), expected)
    learning = MultiVectors(packed[0].vectors.clone().requires_grad_(), packed[0].offsets)
    assert torch.allclose(maxsim(learning, packed[1]), expected)
    blocks, _ = _best_in_blocks(packed[0].vectors, packed[1])  # the GPU's path
    assert torch.allclose(blocks, torch.stack([(d @ packed[0].vectors.T).amax(0) for d in documents]))


def test_padding_does_not_change_maxsim_even_where_every_similarity_is_negative():
    query = MultiVectors.pack([torch.tensor([[1.0, 0.0]])])
    short, long = torch.tensor([[-1.0, 0.0]]), torch.tensor([[-0.6, 0.8], [-0.8, 0.6]])
    documents = MultiVectors.pack([short, long])
    assert maxsim(query, documents).tolist() == [[-1.0, pytest.approx(-0.6)]]
    assert _best_in_blocks(query.vectors, documents)[0][:, 0].tolist() == [-1.0, pytest.approx(-0.6)]


def test_maxsim_of_small_blocks_equals_one_block(monkeypatch):
    queries, documents = MultiVectors.pack(items([3, 1], 4, 0)), MultiVectors.pack(items([5, 2, 7, 1], 4, 1))
    whole, _ = _best_in_blocks(queries.vectors, documents)
    monkeypatch.setattr("colmrl.scoring._BLOCK_BYTES", 1)
    assert torch.allclose(_best_in_blocks(queries.vectors, documents)[0], whole)


def naive_with_gradients(queries, documents):
    rows = [torch.stack([(q @ d.T).max(1).values.mean() for d in documents]) for q in queries]
    return torch.stack(rows)


def gradients(score):
    leaves = [item.requires_grad_() for item in items([2, 3], 4, 0) + items([3, 1, 4], 4, 1)]
    score(leaves[:2], leaves[2:]).pow(2).sum().backward()
    return [leaf.grad for leaf in leaves]


def packed_maxsim(queries, documents):
    return maxsim(MultiVectors.pack(queries), MultiVectors.pack(documents))


@pytest.mark.parametrize("blocks", [False, True])
def test_the_gradient_of_maxsim_equals_the_naive_one(blocks, monkeypatch):
    if blocks:  # as on a GPU
        monkeypatch.setattr(scoring, "_best_one_by_one", _best_in_blocks)
    for mine, theirs in zip(gradients(packed_maxsim), gradients(naive_with_gradients), strict=True):
        assert torch.allclose(mine, theirs)


def fused_reference(queries, documents, query_offsets, document_offsets):
    """What late_interaction_kernels.maxsim_varlen says it does: packed vectors, offsets, a sum over query vectors."""
    each = zip(query_offsets[:-1].tolist(), query_offsets[1:].tolist(), strict=True)
    spans = list(zip(document_offsets[:-1].tolist(), document_offsets[1:].tolist(), strict=True))
    rows = [[(queries[a:b] @ documents[c:d].T).amax(1).sum() for c, d in spans] for a, b in each]
    return torch.stack([torch.stack(row) for row in rows])


def test_late_interaction_kernels_are_used_on_a_gpu_for_gradients_and_16_bits_only(monkeypatch):
    calls = []
    monkeypatch.setattr(scoring, "_fused", lambda: lambda *given: calls.append(1) or fused_reference(*given))
    queries, documents = MultiVectors.pack(items([2, 3], 4, 0)), MultiVectors.pack(items([3, 1, 4], 4, 1))
    expected = naive_maxsim(queries.unpack(), documents.unpack())
    assert torch.allclose(maxsim(queries, documents), expected) and not calls  # on a CPU
    monkeypatch.setattr(scoring, "_on_gpu", lambda vectors: True)
    assert torch.allclose(maxsim(queries, documents), expected) and not calls  # exact: not in 16 bits
    for mine, theirs in zip(gradients(packed_maxsim), gradients(naive_with_gradients), strict=True):
        assert torch.allclose(mine, theirs)
    assert len(calls) == 1
    halves = [MultiVectors(one.vectors.half(), one.offsets) for one in (queries, documents)]
    assert torch.allclose(maxsim(*halves).double(), expected, atol=1e-2)
    assert len(calls) == 2
    monkeypatch.setattr(scoring, "_fused", lambda: None)
    assert torch.allclose(maxsim(queries, documents), expected)


@pytest.mark.parametrize("installed", [(), ("triton",), ("late_interaction_kernels",)])
def test_late_interaction_kernels_are_found_only_with_triton(installed, monkeypatch, tmp_path):
    monkeypatch.setattr(scoring, "find_spec", lambda name: name if name in installed else None)
    assert scoring._fused.__wrapped__() is None
    (tmp_path / "late_interaction_kernels.py").write_text("maxsim_varlen = len")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(scoring, "find_spec", lambda name: name)
    assert scoring._fused.__wrapped__() is len


def test_coded_documents_in_padded_blocks_score_as_decoded_ones(monkeypatch):
    monkeypatch.setattr(scoring, "_on_gpu", lambda vectors: True)
    monkeypatch.setattr(scoring, "_BLOCK_BYTES", 1)
    queries, documents = (MultiVectors.pack([i.float() for i in items(c, 8, s)]) for c, s in (([2, 3], 0), ([3, 1], 1)))
    coded = CodedItems(code(documents.vectors, "int8"), documents.offsets)
    decoded = MultiVectors(coded.codes.decode(), coded.offsets)
    assert torch.allclose(maxsim(queries, coded), naive_maxsim(queries.unpack(), decoded.unpack()).float(), atol=1e-6)


def test_an_item_without_vectors_is_refused():
    with pytest.raises(AssertionError, match="without vectors"):
        MultiVectors(torch.zeros(2, 3), torch.tensor([0, 2, 2]))


def test_slices_and_packs_agree():
    parts = items([2, 1, 3], 4, 0)
    packed = MultiVectors.pack(parts)
    assert all(torch.equal(a, b) for a, b in zip(packed.slice(1, 3).unpack(), parts[1:], strict=True))


def test_truncated_vectors_are_unit_prefixes():
    vectors = torch.randn(3, 8)
    cut = truncate(vectors, 5)
    assert torch.allclose(cut.norm(dim=1), torch.ones(3))
    assert torch.allclose(F.cosine_similarity(cut, vectors[:, :5]), torch.ones(3))


def placed(counts, seed):
    """Items with the place of each vector, and both as lists."""
    some = [item.float() for item in items(counts, 6, seed)]
    places = [torch.rand(count, 2, generator=torch.Generator().manual_seed(seed)) for count in counts]
    packed = MultiVectors.pack(some)
    return MultiVectors(packed.vectors, packed.offsets, torch.cat(places)), some, places


def assert_are(packed, some, places):
    assert len(packed) == len(some) and packed.counts.tolist() == [len(item) for item in some]
    assert all(torch.equal(one, item) for one, item in zip(packed.unpack(), some, strict=True))
    assert packed.offsets.tolist() == [sum(map(len, some[:n])) for n in range(len(some) + 1)]
    assert packed.positions is None if places is None else torch.equal(packed.positions, torch.cat(places))


def test_items_that_are_picked_cut_and_joined_keep_their_vectors_and_places():
    packed, some, places = placed([3, 1, 4, 2], 0)
    other, others, beside = placed([2, 5], 1)
    assert_are(packed.select(torch.tensor([2, 0, 2])), [some[n] for n in (2, 0, 2)], [places[n] for n in (2, 0, 2)])
    assert_are(packed.slice(1, 3), some[1:3], places[1:3])
    assert_are(MultiVectors.cat([packed, other]), some + others, places + beside)
    assert_are(packed.to("cpu"), some, places)
    assert_are(packed.truncate(2), [F.normalize(item[:, :2], dim=-1) for item in some], places)
    plain = MultiVectors(packed.vectors, packed.offsets)
    assert_are(MultiVectors.cat([plain, other]), some + others, None)
    assert_are(plain.select(torch.tensor([3, 1])), [some[3], some[1]], None)
    assert_are(plain.slice(0, 2).to("cpu"), some[:2], None)


def test_offsets_or_places_of_other_vectors_are_refused():
    vectors, offsets = torch.ones(3, 2), torch.tensor([0, 1, 3])
    for wrong in (torch.tensor([1, 2, 3]), torch.tensor([0, 1, 2]), torch.tensor([0, 1, 4])):
        with pytest.raises(AssertionError):
            MultiVectors(vectors, wrong)
    with pytest.raises((AssertionError, TypeError)):  # jaxtyping's, where shapes are checked
        MultiVectors(vectors, offsets, torch.ones(2, 2))


def test_dot_is_each_query_by_each_document():
    queries, documents = torch.tensor([[1.0, 2.0], [0.0, 1.0], [3.0, 0.0]]), torch.tensor([[1.0, 0.0], [2.0, 5.0]])
    assert dot(queries, documents).tolist() == [[1.0, 12.0], [0.0, 5.0], [3.0, 6.0]]


@pytest.mark.parametrize("block_bytes", [1, 130, 1 << 28])
def test_the_best_match_in_a_padded_block_is_named_by_its_place_among_all(block_bytes, monkeypatch):
    monkeypatch.setattr(scoring, "_BLOCK_BYTES", block_bytes)
    queries, documents = MultiVectors.pack(items([3, 1], 4, 0)), MultiVectors.pack(items([5, 2, 7, 1], 4, 1))
    best, places = _best_in_blocks(queries.vectors, documents)
    for number, document in enumerate(documents.unpack()):
        found = (queries.vectors @ document.T).argmax(1)
        assert torch.equal(places[number], found + documents.offsets[number])
        assert torch.allclose(best[number], (queries.vectors * documents.vectors[places[number]]).sum(1))
