"""Each filter against the plainest loop that says the same."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from colmrl.mining import filters

unhurried = hypothesis_settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def candidates(draw):
    """(left, numbers, rows, answers): numbers are contents, or positions where unique."""
    rows, depth = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    grid = st.lists(st.lists(st.integers(0, 4), min_size=depth, max_size=depth), min_size=rows, max_size=rows)
    left = np.array(draw(grid)) > 0
    pairs = draw(st.lists(st.tuples(st.integers(0, rows - 1), st.integers(0, 4)), min_size=1, max_size=5))
    return left, np.array(draw(grid)), np.array([row for row, _ in pairs]), np.array([name for _, name in pairs])


@unhurried
@given(candidates())
def test_known_answers_are_those_of_the_row(drawn):
    _, numbers, rows, answers = drawn
    found = filters.known_answers(numbers - 1, rows, answers)  # -1 among them: no candidate, never an answer
    pairs = set(zip(rows.tolist(), answers.tolist(), strict=True))
    expected = [[(row, name) in pairs for name in names] for row, names in enumerate((numbers - 1).tolist())]
    assert found.tolist() == expected


@unhurried
@given(candidates())
def test_a_duplicate_is_one_of_an_answer_or_of_a_better_candidate_that_is_left(drawn):
    left, contents, rows, answers = drawn
    found = filters.duplicates(left, contents, rows, answers)
    for row, line in enumerate(contents.tolist()):
        seen = {name for at, name in zip(rows, answers, strict=True) if at == row}
        for place, content in enumerate(line):
            if left[row, place]:
                assert found[row, place] == (content in seen)
                seen.add(content)


@unhurried
@given(candidates(), st.integers(0, 6))
def test_ranks_are_counted_over_what_is_left(drawn, ranks):
    left = drawn[0]
    for row, line in enumerate(left):
        places = np.flatnonzero(line).tolist()
        assert np.flatnonzero(line & ~filters.range_min(left, ranks)[row]).tolist() == places[ranks:]
        assert np.flatnonzero(line & ~filters.range_max(left, ranks)[row]).tolist() == places[:ranks]
        assert np.flatnonzero(filters.best(left, ranks)[row]).tolist() == places[:ranks]


def test_an_equal_score_is_far_enough():
    scores, answer = np.array([[0.75, 0.5, 0.25]], dtype=np.float32), np.array([0.75], dtype=np.float32)
    assert filters.max_score(scores, 0.5).tolist() == [[True, False, False]]
    assert filters.min_score(scores, 0.5).tolist() == [[False, False, True]]
    assert filters.absolute_margin(scores, answer, 0.25).tolist() == [[True, False, False]]
    assert filters.absolute_margin(scores, answer, 0).tolist() == [[False, False, False]]
    assert filters.relative_margin(scores, answer * 2, 0.5).tolist() == [[False, False, False]]
    assert filters.relative_margin(scores, answer, 0.5).tolist() == [[True, True, False]]


@pytest.mark.parametrize(("score", "gone"), [(-0.19, True), (-0.20, True), (-0.215, False)])
def test_the_relative_margin_points_down_for_negative_scores_too(score, gone):
    answer = np.array([-0.2], dtype=np.float32)
    assert filters.relative_margin(np.array([[score]], dtype=np.float32), answer, 0.05)[0, 0] == gone


@unhurried
@given(candidates(), st.integers(1, 4), st.integers(0, 9))
def test_drawn_are_as_many_as_there_are_at_most_n_with_the_smallest_lots(drawn, n, seed):
    left = drawn[0]
    lots = np.random.default_rng(seed).random(left.shape)
    kept = filters.drawn(left, n, lots)
    for row in range(len(left)):
        places = sorted(np.flatnonzero(left[row]), key=lambda place: lots[row, place])[:n]
        assert np.flatnonzero(kept[row]).tolist() == sorted(places)
