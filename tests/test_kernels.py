"""The CPU's inner loop: cutting, grouping, threads, memory, rounding."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from colmrl import kernels
from colmrl.coding import CodedItems, Codes, code
from colmrl.kernels import Documents, Queries
from colmrl.scoring import MultiVectors, maxsim, maxsim_top


def vectors(count, dim=16, seed=0):
    return F.normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)), dim=-1)


def packed(counts, dim=16, seed=0):
    return MultiVectors(vectors(sum(counts), dim, seed), torch.tensor([0, *counts]).cumsum(0))


def as_queries(items):
    return Queries(items.vectors, items.offsets.tolist())


def as_documents(items):
    return Documents(lambda low, high: items.vectors[low:high], items.offsets.tolist())


def plain_maxsim(queries, documents):
    """The formula, in doubles."""
    rows = [[(q.double() @ d.double().T).amax(1).mean() for d in documents.unpack()] for q in queries.unpack()]
    return torch.tensor(rows)


counts = st.lists(st.integers(1, 12), min_size=1, max_size=6)


@settings(deadline=None, max_examples=30)
@given(counts, counts, st.integers(1, 30), st.integers(1, 60), st.integers(1, 20), st.booleans())
def test_how_documents_are_cut_and_queries_grouped_does_not_change_scores(asked, given, rows, task, columns, even):
    documents = packed([given[0]] * len(given) if even else given, seed=1)
    queries = packed(asked)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("_ROWS", rows), ("_FEW_ROWS", 1), ("_TASK_ROWS", task), ("_QUERY_VECTORS", columns)):
            patch.setattr(kernels, name, value)
        found, expected = maxsim(queries, documents).double(), plain_maxsim(queries, documents)
        torch.testing.assert_close(found, expected, rtol=0, atol=16 * 2.0**-24)  # what 16 products in fp32 may err by
        scores, slack = kernels.bounded_mean_best(as_queries(queries), as_documents(documents))
    assert ((scores - plain_maxsim(queries, documents)).abs() <= slack).all()


def always_in_bf16(patch):
    patch.setattr(kernels, "_BF16_PAYS", 1)
    patch.setattr(kernels, "_BF16_WORK", 0)
    patch.setattr("colmrl.scoring._MANY", 0)


def threads_of_a_new_thread():
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(torch.get_num_threads).result()


def test_scores_are_the_same_bits_in_every_run_and_on_every_number_of_threads(monkeypatch):
    monkeypatch.setattr(kernels, "_TASK_ROWS", 200)
    always_in_bf16(monkeypatch)
    generator = torch.Generator().manual_seed(2)
    documents = packed(torch.randint(1, 90, (60,), generator=generator).tolist(), 64)
    queries = packed([24] * 8, 64, seed=1)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 1, 2, 3):
            torch.set_num_threads(threads)
            with torch.inference_mode(threads == 3):
                found.append((maxsim(queries, documents), *maxsim_top(queries, [documents], 5, "bf16")))
            assert torch.get_num_threads() == threads_of_a_new_thread() == threads
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_an_error_in_a_thread_is_raised_and_the_number_of_threads_is_put_back():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(ZeroDivisionError):
            kernels.spread(lambda n: 1 // n, [1, 0])
        assert torch.get_num_threads() == threads_of_a_new_thread() == 2
    finally:
        torch.set_num_threads(before)


class Largest(TorchDispatchMode):
    """Bytes of the largest tensor that any operation makes, of other shapes than `but`."""

    def __init__(self, *but):
        super().__init__()
        self.but, self.bytes = but, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for one in result if isinstance(result, tuple | list) else [result]:
            if isinstance(one, torch.Tensor) and not one._is_view() and one.shape not in self.but:
                self.bytes = max(self.bytes, one.nbytes)
        return result


@pytest.mark.parametrize("precision", ["fp32", "int8", "binary"])
def test_memory_beside_the_scores_does_not_grow_with_the_documents(precision, monkeypatch):
    monkeypatch.setattr(kernels, "_TASK_BYTES", 1 << 18)
    monkeypatch.setattr(kernels, "_PRODUCT_BYTES", 1 << 18)
    queries, dim = packed([16] * 20, 32), 32
    most = {}
    for count in (300, 1200):
        documents = CodedItems(code(vectors(20 * count, dim, 1), precision), torch.arange(0, 20 * count + 1, 20))
        with Largest((len(queries), count), (count + 1,)) as largest:
            maxsim(queries, documents)
        most[count] = largest.bytes
    assert 0 < most[1200] <= most[300] <= 1 << 18 < 300 * 320 * 4  # all best matches of the fewer documents


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "binary"])
@pytest.mark.parametrize("dim", [24, 16])
def test_coded_documents_score_as_decoded_ones_and_are_never_decoded_whole(precision, dim, monkeypatch):
    counts = torch.randint(1, 70, (80,), generator=torch.Generator().manual_seed(5))
    offsets = F.pad(counts.cumsum(0), (1, 0))
    kept = code(vectors(int(counts.sum()), 24, 3), precision)
    documents = CodedItems(Codes(kept.values, kept.scales, precision, 24, dim), offsets)
    decoded = MultiVectors(documents.codes.decode(), offsets)
    queries = packed([5, 1, 9], dim, seed=4)
    lengths, decode = [], Codes.decode
    monkeypatch.setattr(Codes, "decode", lambda self: lengths.append(len(self)) or decode(self))
    monkeypatch.setattr(kernels, "_ROWS", 128)
    scores = maxsim(queries, documents)
    torch.testing.assert_close(scores.double(), plain_maxsim(queries, decoded), atol=1e-5, rtol=0)
    assert max(lengths) <= 128 and sum(lengths) == len(decoded.vectors)
    top, positions = maxsim_top(queries, [documents], 7)
    assert torch.equal(top, scores.sort(descending=True, stable=True).values[:, :7])
    assert torch.equal(scores.gather(1, positions), top)


def test_bf16_scores_are_right_where_every_similarity_is_negative():
    query, documents = -vectors(1).abs(), packed([3, 1, 40, 40, 2], seed=1)
    documents = MultiVectors(documents.vectors.abs(), documents.offsets)
    exact = plain_maxsim(MultiVectors.pack([query]), documents)
    scores, slack = kernels.bounded_mean_best(Queries(query, [0, 1]), as_documents(documents))
    assert (exact < 0).all() and ((scores - exact).abs() <= slack).all()
    assert (slack < 0.02).all()


def rounding_together(sign, dim=128):
    """A vector each of whose entries bf16 rounds towards `sign`, by nearly as much as it ever does."""
    entry = 1 + 2.0**-8 * (1 + sign * 0.01)  # bf16 has 1 and 1 + 2^-7
    return torch.full((1, dim), entry) / math.sqrt(dim * 1.0)


def test_the_bound_of_bf16_holds_where_all_roundings_add_up_and_is_not_far_off():
    dim = 64  # whose root is a power of two: entries keep their digits
    down = rounding_together(-1, dim)
    near_one = F.normalize(torch.rand(50, dim, generator=torch.Generator().manual_seed(0)) + 0.5, dim=1)
    items = torch.cat([down, rounding_together(1, dim), near_one])
    documents = MultiVectors(items, torch.arange(len(items) + 1))
    exact = plain_maxsim(documents, documents)
    scores, slack = kernels.bounded_mean_best(as_queries(documents), as_documents(documents))
    used = (scores - exact).abs() / slack
    assert (used <= 1).all()
    assert used[0, 0] > 0.5


def test_top_k_scanned_in_bf16_is_that_of_fp32_where_scores_are_closer_than_bf16_tells(monkeypatch):
    always_in_bf16(monkeypatch)
    generator = torch.Generator().manual_seed(0)
    queries = packed([6, 3, 8], 64, seed=1)
    base = vectors(8, 64, 7)
    near = [
        F.normalize(base + 10.0 ** -(3 + i % 3) * torch.randn(8, 64, generator=generator), dim=1) for i in range(90)
    ]
    far = [vectors(5, 64, 100 + i) for i in range(60)]
    documents = MultiVectors.pack([one for pair in zip(near, far + far[:30], strict=True) for one in pair])
    exact = maxsim(queries, documents)
    order = exact.sort(descending=True, stable=True).indices[:, :20]
    rounded, _ = kernels.bounded_mean_best(as_queries(queries), as_documents(documents))
    assert not torch.equal(rounded.sort(descending=True, stable=True).indices[:, :20], order)  # bf16 alone is wrong
    shards = [documents.slice(0, 100), documents.slice(100, 180)]
    for pieces in ([documents], shards):
        scores, positions = maxsim_top(queries, pieces, 20, "bf16")
        assert torch.equal(positions, order)
        torch.testing.assert_close(scores, exact.gather(1, order), rtol=0, atol=1e-6)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 99), st.integers(1, 12), st.integers(1, 40), st.integers(1, 9))
def test_bf16_and_fp32_find_the_same(seed, k, count, shard):
    generator = np.random.default_rng(seed)
    documents = packed(generator.integers(1, 6, count).tolist(), 8, seed)
    queries = packed([3, 2], 8, seed + 1)
    shards = [documents.slice(start, min(start + shard, count)) for start in range(0, count, shard)]
    with pytest.MonkeyPatch.context() as patch:
        always_in_bf16(patch)
        found = [maxsim_top(queries, shards, k, precision) for precision in ("fp32", "bf16")]
    torch.testing.assert_close(found[0][0], found[1][0], rtol=0, atol=1e-6)
    assert torch.equal(found[0][1], found[1][1])


def test_once_there_are_best_ones_only_those_that_can_reach_them_are_scored_again(monkeypatch):
    always_in_bf16(monkeypatch)
    again, of_pairs = [], kernels.mean_best_of_pairs

    def counted(queries, documents, wanted):
        again.append(int(wanted.sum()))
        return of_pairs(queries, documents, wanted)

    monkeypatch.setattr(kernels, "mean_best_of_pairs", counted)
    queries = packed([4] * 3, 64, seed=1)
    near = MultiVectors.pack([F.normalize(one + 0.3 * vectors(4, 64, 9), dim=1) for one in queries.unpack()] * 2)
    far = packed([5] * 40, 64, seed=2)
    expected = maxsim_top(queries, [near, far, far], 2)
    found = maxsim_top(queries, [near, far, far], 2, "bf16")
    assert torch.equal(found[1], expected[1]) and again[0] == 3 * 2 and not any(again[2:])


def test_documents_of_few_vectors_are_scanned_in_fp32(monkeypatch):
    monkeypatch.setattr("colmrl.scoring._exact_if_best", None)
    maxsim_top(packed([24] * 8, 64, seed=1), [packed([8] * 400, 64)], 2, "bf16")
    with pytest.raises(TypeError):
        maxsim_top(packed([24] * 32, 64, seed=1), [packed([400] * 65, 64)], 2, "bf16")


def test_of_equal_scores_the_first_document_is_given_also_across_shards(monkeypatch):
    always_in_bf16(monkeypatch)
    one = vectors(4)
    documents, queries = MultiVectors.pack([one, -one, one, one, one]), MultiVectors.pack([one])
    for precision in ("fp32", "bf16"):
        _, positions = maxsim_top(queries, [documents.slice(0, 2), documents.slice(2, 5)], 3, precision)
        assert positions.tolist() == [[0, 2, 3]]


def test_top_k_of_fewer_documents_is_all_of_them_and_of_blocks_that_of_the_whole(monkeypatch):
    documents, queries = packed([3, 1, 2, 5, 4], seed=1), packed([2, 4])
    scores = maxsim(queries, documents)
    best, positions = maxsim_top(queries, [documents], 9)
    assert torch.equal(positions, scores.sort(descending=True).indices)
    assert torch.equal(best, scores.sort(descending=True).values)
    monkeypatch.setattr("colmrl.scoring._TOP_BYTES", 1)
    assert torch.equal(maxsim_top(queries, [documents], 2)[1], positions[:, :2])
