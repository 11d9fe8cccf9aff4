import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from colmrl.coding import CodedItems, Codes, code


def test_precisions_round_as_their_formulas_say():
    vectors = torch.tensor([[0.6, -0.8, 0.0], [1.0, 0.004, -0.003]])
    assert code(vectors, "fp32").decode() is vectors
    assert torch.equal(code(vectors, "fp16").decode(), vectors.half().float())
    int8 = code(vectors, "int8")
    assert int8.values.dtype == torch.int8
    np.testing.assert_allclose(int8.decode()[0], [95 * 0.8 / 127, -0.8, 0], rtol=1e-6)
    np.testing.assert_allclose(int8.decode()[1], [1, 1 / 127, 0], rtol=1e-6)
    np.testing.assert_allclose(code(vectors, "binary").decode() * np.sqrt(3), [[1, -1, -1], [1, 1, -1]], rtol=1e-6)


@given(st.integers(1, 6), st.integers(1, 40), st.integers(0, 99))
def test_bits_are_those_that_numpy_packs(count, dim, seed):
    vectors = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    packed = code(torch.from_numpy(vectors), "binary")
    assert (packed.values.numpy() == np.packbits(vectors > 0, axis=1)).all()
    for prefix in {1, dim // 2 + 1, dim}:
        read = Codes(packed.values, None, "binary", dim, prefix).decode().numpy()
        np.testing.assert_allclose(read, np.where(vectors[:, :prefix] > 0, 1, -1) / np.sqrt(prefix), rtol=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_prefix_is_cut_and_then_normalised(precision):
    vectors = torch.nn.functional.normalize(torch.randn(5, 12, generator=torch.Generator().manual_seed(0)), dim=1)
    codes = code(vectors, precision)
    read = Codes(codes.values, codes.scales, precision, 12, 7).decode().double()
    whole = codes.decode().double()[:, :7]
    torch.testing.assert_close(read, whole / whole.norm(dim=1, keepdim=True), atol=1e-6, rtol=0)


def test_items_are_selected_and_sliced_with_their_scales():
    vectors = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    items = CodedItems(code(vectors, "int8"), torch.tensor([0, 2, 3, 9]))
    decoded = items.codes.decode()
    assert torch.equal(items.select(torch.tensor([2, 0])).codes.decode(), torch.cat([decoded[3:], decoded[:2]]))
    assert items.slice(1, 3).offsets.tolist() == [0, 1, 7]
    assert torch.equal(items.slice(1, 3).codes.decode(), decoded[2:])
