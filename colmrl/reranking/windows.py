"""More candidates than one prompt holds: windows that slide from the back to the front (RankGPT, arXiv:2304.09542).

A window of `size` is sorted, then moves `stride` towards the front, so that its best size - stride go on with it. What
one pass promises of a judge that sorts every window rightly: the best size - stride of all candidates come first, in
their right order, wherever they stood; the rest are better sorted than before, no more.
"""

import random
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from colmrl.errors import InputError


def spans(count: int, size: int, stride: int) -> list[tuple[int, int]]:
    """Where windows start and end, in the order in which they are sorted; the last one starts at the front."""
    if count > size and stride >= size:
        raise InputError(
            f"rerank.stride: {stride}: windows of {size} (rerank.candidates) pass nothing on: give less, e.g. "
            f"{max(1, size // 2)}"
        )
    made = [(max(0, count - size), count)]
    while made[-1][0] > 0:
        start, end = made[-1]
        made.append((max(0, start - stride), max(end - stride, size)))
    return made


def slide(
    count: int, size: int, stride: int, judge: Callable[[Sequence[int]], Float[np.ndarray, " w"]]
) -> Float[np.ndarray, " d"]:
    """Scores of the candidates 0 … count-1 in their first order, higher is better.

    `judge`: scores of these candidates among each other, in the order given. Where all fit into one window, its scores;
    else 1 - rank / count after the last window, since scores of two windows cannot be compared.
    """
    if count <= size:
        return np.asarray(judge(range(count)), dtype=np.float32) if count else np.zeros(0, np.float32)
    order = np.arange(count)
    for start, end in spans(count, size, stride):
        window = order[start:end]
        scores = judge(window.tolist())
        order[start:end] = window[np.argsort(-scores, kind="stable")]
    made = np.empty(count, np.float32)
    made[order] = 1 - np.arange(count, dtype=np.float32) / count
    return made


def arrangements(names: Sequence[str], count: int, seed: str) -> list[list[int]]:
    """`count` orders of the candidates, drawn from their names and not from the order in which they come.

    Each shuffle is turned by equal steps before another is drawn, so that a candidate stands in as many different
    places as can be, evenly spread (with as many arrangements as candidates: once in each).
    """
    rng, size, made = random.Random(seed), len(names), list[list[int]]()
    by_name = sorted(range(size), key=names.__getitem__)
    while len(made) < count:
        turns = min(size, count - len(made))
        shuffled = rng.sample(by_name, size)
        for turn in range(turns):
            start = turn * size // turns
            made.append(shuffled[start:] + shuffled[:start])
    return made
