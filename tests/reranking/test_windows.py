"""Sliding windows, and in which orders candidates are shown."""

import itertools

import numpy as np
import pytest

from colmrl.errors import InputError
from colmrl.reranking.windows import arrangements, slide, spans


def perfect(worth):
    return lambda places: np.array([worth[place] for place in places], dtype=np.float32)


def order(scores):
    return np.argsort(-scores, kind="stable").tolist()


def test_windows_go_from_the_back_to_the_front_and_leave_nothing_out():
    assert spans(8, 4, 2) == [(4, 8), (2, 6), (0, 4)]  # figure 3 of RankGPT
    assert spans(23, 10, 5) == [(13, 23), (8, 18), (3, 13), (0, 10)]
    for count, size in itertools.product(range(1, 40), range(2, 12)):
        for stride in range(1, size):
            windows = spans(count, size, stride)
            assert {i for start, end in windows for i in range(start, end)} == set(range(count))
            assert windows[0][1] == count and windows[-1][0] == 0
            assert all(end - start == min(size, count) for start, end in windows)


@pytest.mark.parametrize(("count", "size", "stride"), [(100, 20, 10), (23, 10, 5), (9, 8, 3), (30, 4, 1), (12, 4, 2)])
def test_a_perfect_judge_brings_the_best_to_the_front_in_their_right_order(count, size, stride):
    rng = np.random.default_rng(0)
    for _ in range(30):
        worth = rng.permutation(count)
        best = order(worth)[: size - stride]
        assert order(slide(count, size, stride, perfect(worth)))[: size - stride] == best


def test_a_perfect_judge_sorts_what_fits_into_one_window():
    for worth in itertools.permutations(range(5)):
        assert order(slide(5, 5, 9, perfect(worth))) == order(np.array(worth))


def test_as_many_passes_as_needed_sort_everything():
    worth = np.random.default_rng(1).permutation(40)
    shown = list(range(40))
    for _ in range(40 // 5):
        scores = slide(40, 10, 5, perfect([worth[i] for i in shown]))
        shown = [shown[i] for i in order(scores)]
    assert shown == order(worth)


def test_the_judge_sees_what_earlier_windows_brought_forward():
    asked = []

    def judge(places):
        asked.append(list(places))
        return np.array([float(place == 7) for place in places], dtype=np.float32)

    assert order(slide(8, 4, 2, judge))[0] == 7
    assert asked == [[4, 5, 6, 7], [2, 3, 7, 4], [0, 1, 7, 2]]


def test_windows_that_pass_nothing_on_are_refused():
    with pytest.raises(InputError, match=r"rerank.stride: 10: windows of 10"):
        slide(11, 10, 10, perfect(range(11)))
    assert len(slide(10, 10, 10, perfect(range(10)))) == 10
    assert len(slide(0, 10, 10, perfect(()))) == 0


def test_with_as_many_arrangements_as_candidates_each_stands_once_in_each_place():
    names = ["d", "a", "c", "b", "e"]
    made = arrangements(names, 5, "seed")
    assert all(sorted(one) == [0, 1, 2, 3, 4] for one in made)
    assert all(sorted(place) == [0, 1, 2, 3, 4] for place in zip(*made, strict=True))


def test_arrangements_are_of_the_names_however_the_candidates_come():
    names = [f"doc-{i}" for i in range(7)]
    told = [[names[i] for i in one] for one in arrangements(names, 9, "q")]
    for shuffled in (names[::-1], names[3:] + names[:3]):
        assert [[shuffled[i] for i in one] for one in arrangements(shuffled, 9, "q")] == told
    assert [[names[i] for i in one] for one in arrangements(names, 9, "other")] != told
    assert len({tuple(one) for one in told}) == 9
