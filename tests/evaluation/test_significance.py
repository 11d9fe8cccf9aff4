"""p-values and intervals beside scipy's."""

import numpy as np
import pytest
from scipy.stats import bootstrap, permutation_test

from colmrl.evaluation.significance import difference, randomisation_p

FIRST = [0.5, 0.2, 1.0, 0.0, 0.3, 0.63, 0.43, 0.1]
SECOND = [0.6, 0.2, 0.9, 0.4, 0.5, 0.9, 0.5, 0.1]


def apart_in_mean(a, b, axis):
    return (a - b).mean(axis)


def scipy_p(first, second, resamples=10_000):
    found = permutation_test(
        (second, first), apart_in_mean, permutation_type="samples", vectorized=True, n_resamples=resamples, rng=1
    )
    return found.pvalue


@pytest.mark.parametrize(
    "first, second", [(FIRST, SECOND), (SECOND, FIRST), (FIRST, FIRST[::-1]), ([0.1, 0.2], [0.4, 0.1])]
)
def test_few_queries_have_scipys_exact_p(first, second):
    found = difference(first, second)
    assert found.p_randomisation == pytest.approx(scipy_p(first, second), abs=1e-12)
    assert found.mean == pytest.approx(np.mean(second) - np.mean(first))


def test_a_hand_made_case():
    """Three wins by the same amount, nothing else: of eight sign flips, two are as far from zero."""
    found = difference([0, 0, 0], [0.5, 0.5, 0.5])
    assert found.p_randomisation == 2 / 8 and (found.wins, found.ties, found.losses) == (3, 0, 0)
    assert difference(FIRST, FIRST).p_randomisation == difference(FIRST, FIRST).p_bootstrap == 1
    assert (difference(FIRST, SECOND).wins, difference(FIRST, SECOND).ties) == (5, 2)


@pytest.mark.parametrize("shift", [0.0, 0.02, 0.04])
def test_many_queries_have_scipys_p_and_interval_within_what_drawing_gives(shift):
    rng = np.random.default_rng(3)
    first = rng.random(200)
    second = first + rng.normal(shift, 0.2, 200)
    found = difference(first.tolist(), second.tolist())
    assert found.p_randomisation == pytest.approx(scipy_p(first, second), abs=0.02)
    assert found.p_bootstrap == pytest.approx(found.p_randomisation, abs=0.03)
    of_scipy = bootstrap((second - first,), np.mean, method="percentile", n_resamples=10_000, rng=1)
    interval = of_scipy.confidence_interval
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=0.002)


def test_the_same_seed_gives_the_same_numbers_and_blocks_do_not_matter(monkeypatch):
    rng = np.random.default_rng(0)
    first, second = rng.random(40).tolist(), rng.random(40).tolist()
    found = difference(first, second, seed=5)
    assert found == difference(first, second, seed=5) != difference(first, second, seed=6)
    monkeypatch.setattr("colmrl.evaluation.significance._BLOCK", 40 * 128)
    assert difference(first, second, seed=5) == found
    assert 0 < randomisation_p(np.array(first)) < 0.001
