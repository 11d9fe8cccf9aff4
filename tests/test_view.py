import pytest
from hypothesis import given
from hypothesis import strategies as st

from colmrl.errors import InputError
from colmrl.view import TrainedViews, View, parse_views


@given(
    st.sampled_from(["single", "multi"]),
    st.integers(1, 9999),
    st.none() | st.integers(1, 999),
    st.sampled_from(["fp32", "fp16", "int8", "binary"]),
)
def test_a_view_survives_being_written_and_read(head, dim, vectors, precision):
    view = View(head, dim, None if head == "single" else vectors, precision)
    assert View.parse(str(view)) == view
    assert not set(view.slug) & set("@:/")


@pytest.mark.parametrize("text", ["", "single", "single@", "single@0", "double@64", "single@64x4", "multi@64:fp8", "x"])
def test_what_is_no_view_is_refused_with_an_example(text):
    with pytest.raises(InputError, match=r"(multi|single)@"):
        View.parse(text)


@pytest.mark.parametrize(
    ("text", "vectors", "size"),
    [
        ("single@256", 1, 1024),
        ("single@256:fp16", 1, 512),
        ("single@256:int8", 1, 260),  # and one fp32 scale
        ("single@100:binary", 1, 13),  # 12.5 bytes, rounded up
        ("multi@128:fp16", 1764, 451_584),  # × 1e6 pages = 420 GiB, as the literature says of ColPali-sized pages
        ("multi@64x32:fp16", 32, 4096),
        ("multi@64x32:int8", 20.5, 20.5 * 68),
    ],
)
def test_bytes_follow_from_the_view(text, vectors, size):
    assert View.parse(text).bytes_per_document(vectors) == size


def test_repeated_views_are_kept_once_in_order():
    assert list(map(str, parse_views("multi@64,single@32,multi@64"))) == ["multi@64", "single@32"]
    assert list(map(str, parse_views(["multi@64", " ", "single@32", "multi@64"]))) == ["multi@64", "single@32"]


def test_an_untrained_dim_is_refused_and_the_trained_ones_named():
    trained = TrainedViews((128, 64), (32,))
    trained.check(View.parse("single@64:binary"))
    with pytest.raises(InputError, match=r"single@48.*not trained.*single@128, single@64, multi@32"):
        trained.check(View.parse("single@48"))


def test_a_head_that_the_model_has_not_is_said():
    with pytest.raises(InputError, match=r"multi@32' asks for a multi head, which the model has not.*single@64$"):
        TrainedViews((64,), ()).check(View.parse("multi@32"))


def test_a_view_keeps_all_vectors_in_fp32_unless_it_says_otherwise():
    assert vars(View("multi", 64)) == vars(View.parse(" multi@64 ")) == vars(View.parse("multi@64:fp32"))
    assert View("multi", 64) == View("multi", 64, None, "fp32") and View("multi", 64).slug == "multi-64"
    assert View("single", 64).bytes_per_document() == 256
    assert View("multi", 64, 32, "int8").slug == "multi-64x32-int8"


def test_the_largest_view_of_each_head_that_was_trained_is_known():
    assert TrainedViews((32, 128), (16, 64)).full() == [View("single", 128), View("multi", 64)]
    assert TrainedViews((), (8,)).full() == [View("multi", 8)] and TrainedViews((8,), ()).full() == [View("single", 8)]
    with pytest.raises(InputError, match=r"^view 'multi@64' was not trained: choose from single@64, multi@32$"):
        TrainedViews((64,), (32,)).check(View("multi", 64))
