"""The best of what is scored block by block. Letters: q queries, n documents of a block, k ranks."""

from typing import cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

Found = tuple[Float[np.ndarray, "q k"], Int[np.ndarray, "q k"]]  # falling scores and their documents, -inf and -1: none


class Best:
    """The `k` best documents so far of each of `queries`; of equal scores the one that was added first."""

    def __init__(self, queries: int, k: int, device: str = "cpu"):
        self._k = k
        self._scores = torch.empty(queries, 0, device=device)
        self._positions = torch.empty(queries, 0, dtype=torch.int64, device=device)

    def add(self, scores: Float[Tensor, "q n"], positions: Int[Tensor, "#q n"]) -> None:
        scores, positions = (
            torch.cat([self._scores, scores], 1),
            torch.cat([self._positions, positions.expand(len(scores), -1)], 1),
        )
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        self._scores = scores[:, : self._k]
        self._positions = positions.gather(1, order[:, : self._k])

    def floor(self) -> Float[Tensor, " q"] | None:
        """What another document has to reach; None while there are fewer than `k`."""
        return self._scores[:, -1] if self._scores.shape[1] == self._k else None

    def found(self) -> Found:
        positions = self._positions.masked_fill(self._scores == float("-inf"), -1)
        return self._scores.cpu().numpy(), positions.cpu().numpy()


def ranked(scores: Float[np.ndarray, "q n"], positions: Int[np.ndarray, "q n"], k: int) -> Found:
    """The best `k` of candidates that have been scored; absent ones (position -1) score -inf."""
    best = Best(len(scores), k)
    best.add(torch.from_numpy(np.where(positions < 0, -np.inf, scores).astype(np.float32)), torch.from_numpy(positions))
    return cast(Found, best.found())
