"""Which candidates go, said by arrays alone: one row a query, candidates by falling score.

Names and meaning are those of sentence-transformers' `mine_hard_negatives`. The margins are positive-aware
(NV-Retriever, arXiv:2407.15831): what scores like the answer often is one that nobody marked. `answer` is the *lowest*
score of a query's known answers, so that its harder answers are safe too. Equal counts as far enough.
Letters: q queries, k candidates, a pairs of a query and a known answer.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

Mask = Bool[np.ndarray, "q k"]
Scores = Float[np.ndarray, "q k"]


def known_answers(
    positions: Int[np.ndarray, "q k"], rows: Int[np.ndarray, " a"], answers: Int[np.ndarray, " a"]
) -> Mask:
    """Those that are among the `answers` of their row (position -1: no candidate)."""
    span = 2 + max(positions.max(initial=-1), answers.max(initial=-1))
    mine = np.arange(len(positions))[:, None] * span + positions + 1
    return np.isin(mine, rows * span + answers + 1)


def duplicates(
    left: Mask, contents: Int[np.ndarray, "q k"], rows: Int[np.ndarray, " a"], answers: Int[np.ndarray, " a"]
) -> Mask:
    """Those with the content of an answer, or of a better candidate that is left. Equal numbers: equal content."""
    of_answers = known_answers(contents, rows, answers)
    counted = left & ~of_answers
    apart = np.where(counted, contents, -1 - np.arange(contents.shape[1]))  # what does not count equals nothing
    order = np.argsort(apart, axis=1, kind="stable")
    ordered = np.take_along_axis(apart, order, axis=1)
    again = np.zeros_like(left)
    np.put_along_axis(again, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
    return of_answers | again


def range_min(left: Mask, ranks: int) -> Mask:
    """The first `ranks` of those that are left."""
    return _rank(left) < ranks


def range_max(left: Mask, ranks: int) -> Mask:
    """All but the first `ranks` of those that are left."""
    return _rank(left) >= ranks


def max_score(scores: Scores, bound: float) -> Mask:
    return scores > bound


def min_score(scores: Scores, bound: float) -> Mask:
    return scores < bound


def absolute_margin(scores: Scores, answer: Float[np.ndarray, " q"], margin: float) -> Mask:
    """Those above the answer's score - margin."""
    return scores + margin > answer[:, None]


def relative_margin(scores: Scores, answer: Float[np.ndarray, " q"], margin: float) -> Mask:
    """Those above the answer's score - margin × its size: with 0.05 at most 95% of a positive score are kept, and a
    negative one is no looser.
    """
    return scores > (answer - np.abs(answer) * margin)[:, None]


def best(left: Mask, n: int) -> Mask:
    """At most `n` of those that are left, to be kept: the first."""
    return left & ~range_max(left, n)


def drawn(left: Mask, n: int, lots: Float[np.ndarray, "q k"]) -> Mask:
    """At most `n` of those that are left, to be kept: those with the smallest lots."""
    order = np.argsort(np.where(left, lots, np.inf), axis=1, kind="stable")[:, :n]
    chosen = np.zeros_like(left)
    np.put_along_axis(chosen, order, np.True_, axis=1)
    return chosen & left


def _rank(left: Mask) -> Int[np.ndarray, "q k"]:
    """From 0, counted over those that are left."""
    return np.cumsum(left, axis=1) - 1
