import numpy as np
import pytest
import torch

from colmrl.errors import InputError
from colmrl.scoring import MultiVectors
from colmrl.search import Asked, Plan
from colmrl.search.plan import Stage
from colmrl.view import View


def test_a_plan_is_read_and_written_the_same():
    for text in ("single@64", "single@64/1000+single@256:int8/200+multi@128", "single@64+multi@32x8:binary"):
        assert str(Plan.parse(text)) == text
    funnel = Plan.parse("single@64/1000 + multi@128")
    assert funnel == Plan((Stage(View("single", 64), 1000), Stage(View("multi", 128)))) and funnel.view == View(
        "multi", 128
    )
    assert Plan.of(View("single", 64)) == Plan.parse("single@64") and Plan.of(funnel) is funnel


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("single@64/10", "nothing comes after the last stage"),
        ("single@64/0+multi@8", "/0: not a number of documents"),
        ("single@64/ten+multi@8", "/ten: not a number of documents"),
        ("single@64/+multi@8", "not a number of documents"),
        ("single@64+", "view '': not of the form"),
    ],
)
def test_a_plan_that_is_none_says_why(text, said):
    with pytest.raises(InputError, match=said):
        Plan.parse(text)


def test_queries_are_cut_normalised_and_never_rounded():
    rng = np.random.default_rng(0)
    single = rng.standard_normal((3, 8)).astype(np.float32)
    items = [torch.randn(n, 8) for n in (2, 1, 4)]
    asked = Asked(["a", "b", "c"], single, MultiVectors.pack(items)).rows([2, 0])
    assert asked.ids == ["c", "a"] and len(asked) == 2
    expected = single[[2, 0], :4] / np.linalg.norm(single[[2, 0], :4], axis=1, keepdims=True)
    np.testing.assert_allclose(asked.single_at(View.parse("single@4:binary")), expected, rtol=1e-6)
    cut = asked.multi_at(View.parse("multi@4x2:int8"))
    torch.testing.assert_close(cut.vectors, torch.nn.functional.normalize(torch.cat([items[2], items[0]])[:, :4]))
    assert cut.counts.tolist() == [4, 2]


def test_a_head_or_dims_that_the_queries_lack_are_named():
    asked = Asked(["a"], np.ones((1, 8), dtype=np.float32), None)
    with pytest.raises(InputError, match="queries have none of the multi head"):
        asked.multi_at(View("multi", 4))
    with pytest.raises(InputError, match="queries have 8 dims of the single head"):
        asked.single_at(View("single", 16))
