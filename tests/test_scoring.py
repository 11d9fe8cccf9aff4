import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from colmrl import scoring
from colmrl.coding import CodedItems, code
from colmrl.scoring import MultiVectors, _best_in_blocks, maxsim, truncate


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
