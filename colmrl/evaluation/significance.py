"""Whether a difference between two systems on the same queries is more than noise.

Paired randomisation (permutation) test: under the null hypothesis either system could have made either number of a
query, so the sign of each difference is a coin's (Smucker et al., CIKM 2007). Paired bootstrap: queries are drawn
again with replacement (Sakai, SIGIR 2006). Both two-sided, on the mean difference.
Letters: q queries, s resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

RESAMPLES = 10_000
_BLOCK = 1 << 24  # numbers held at a time
_EQUAL = 1e-9  # numbers of a query that differ by less are the same


@dataclass(frozen=True)
class Difference:
    """Of the second system to the first. `low`, `high`: of the mean, 95 % of the bootstrap's. `wins`: queries at which
    the second is better.
    """

    mean: float
    low: float
    high: float
    p_randomisation: float
    p_bootstrap: float
    wins: int
    ties: int
    losses: int


def difference(first: Sequence[float], second: Sequence[float], seed: int = 0) -> Difference:
    """Both in the same order of queries; the same seed gives the same numbers."""
    apart = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    apart[np.abs(apart) < _EQUAL] = 0
    drawn = _bootstrapped(apart, seed)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Difference(
        mean=float(apart.mean()),
        low=float(low),
        high=float(high),
        p_randomisation=randomisation_p(apart, seed),
        p_bootstrap=_two_sided(drawn) if apart.any() else 1.0,
        wins=int((apart > 0).sum()),
        ties=int((apart == 0).sum()),
        losses=int((apart < 0).sum()),
    )


def randomisation_p(apart: Float[np.ndarray, " q"], seed: int = 0) -> float:
    """The share of sign flips whose mean is at least as far from zero: of all flips where there are no more than
    `RESAMPLES`, else of so many drawn ones and the one that was seen.
    """
    seen = abs(apart.sum()) * (1 - 1e-12)
    if 2 ** len(apart) <= RESAMPLES:
        flips = (np.arange(2 ** len(apart))[:, None] >> np.arange(len(apart)) & 1) * 2.0 - 1
        return float((np.abs(flips @ apart) >= seen).mean())
    rng, as_far = np.random.default_rng(seed), 0
    for count in _blocks(len(apart)):
        flips = rng.integers(0, 2, (count, len(apart)), dtype=np.int8) * 2 - 1
        as_far += int((np.abs(flips @ apart) >= seen).sum())
    return (as_far + 1) / (RESAMPLES + 1)


def bootstrap_p(apart: Float[np.ndarray, " q"], seed: int = 0) -> float:
    """Two-sided, of differences a query."""
    return _two_sided(_bootstrapped(apart, seed)) if np.abs(apart).max() >= _EQUAL else 1.0


def _bootstrapped(apart: Float[np.ndarray, " q"], seed: int) -> Float[np.ndarray, " s"]:
    """The mean difference of each resample."""
    rng = np.random.default_rng(seed)
    parts = [apart[rng.integers(0, len(apart), (count, len(apart)))].mean(1) for count in _blocks(len(apart))]
    return np.concatenate(parts)


def _two_sided(drawn: Float[np.ndarray, " s"]) -> float:
    """Twice the share of resamples on the other side of zero."""
    smaller = min((drawn <= 0).sum(), (drawn >= 0).sum())
    return float(min(1.0, 2 * (smaller + 1) / (len(drawn) + 1)))


def _blocks(queries: int) -> list[int]:
    """How many resamples at a time."""
    most = max(1, _BLOCK // queries)
    return [min(most, RESAMPLES - start) for start in range(0, RESAMPLES, most)]
