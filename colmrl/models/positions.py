"""Where on its page each visual token looks: (row, column) of the middle of its patch, in units of the longer side of
the picture's grid, so that both are in 0..1 and the page keeps its shape. A record's p-th picture lies 2p further down,
away from the others; tokens of text are at (-1, -1).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

TEXT = -1.0
_APART = 2.0  # rows from a record's picture to the next


class Grid(NamedTuple):
    """How a picture's tokens lie: `rows` × `columns`, row by row (`tile` None); or in tiles of `tile` × `tile`, one
    after another, and of more than one tile the whole picture once more, as a last tile.
    """

    rows: int
    columns: int
    tile: int | None = None

    @property
    def tokens(self) -> int:
        """How many there are."""
        tile, whole = (self.tile or 0) ** 2, self.rows * self.columns
        return whole + tile * (0 < tile < whole)

    def positions(self) -> Float[Tensor, "n 2"]:
        if self.tile is None:
            return self._spread(self.rows, self.columns)
        every = self._spread(self.rows, self.columns).reshape(self.rows, self.columns, 2)
        tiles = every.unfold(0, self.tile, self.tile).unfold(1, self.tile, self.tile)
        cut = tiles.permute(0, 1, 3, 4, 2).reshape(-1, 2)
        if len(cut) == self.tile**2:
            return cut
        return torch.cat([cut, self._spread(self.tile, self.tile)])

    @classmethod
    def of(cls, positions: Float[Tensor, "n 2"]) -> "Grid":
        """The grid that a first picture's positions are of."""
        longest = 0.5 / positions.amin(0).min()
        rows, columns = ((positions.amin(0) + positions.amax(0)) * longest).round().int().tolist()
        more = len(positions) - rows * columns
        return cls(rows, columns, round(more**0.5) if more else None)

    def _spread(self, rows: int, columns: int) -> Float[Tensor, "n 2"]:
        """The middles of so many rows and columns that divide the picture evenly."""
        longest = max(self.rows, self.columns)
        down = (torch.arange(rows) + 0.5) * (self.rows / rows / longest)
        across = (torch.arange(columns) + 0.5) * (self.columns / columns / longest)
        return torch.cartesian_prod(down, across)


def positions_of(
    ids: Int[Tensor, "1 n"], image_token: int, pictures: Sequence[Float[Tensor, "_ 2"]]
) -> Float[Tensor, "1 n 2"]:
    """Of a record's tokens, from the positions on each of its pictures."""
    positions = torch.full((*ids.shape, 2), TEXT)
    if pictures:
        shift = torch.tensor([_APART, 0.0])
        positions[ids == image_token] = torch.cat([each + place * shift for place, each in enumerate(pictures)])
    return positions


def by_picture(positions: Float[Tensor, "n 2"]) -> list[tuple[Int[Tensor, " m"], Float[Tensor, "m 2"]]]:
    """Of each picture in a record: which of its tokens see it, and where on it."""
    seen = (positions[:, 0] // _APART).int()
    pictures = []
    for place in range(int(seen.max()) + 1):
        tokens = (seen == place).nonzero()[:, 0]
        pictures.append((tokens, positions[tokens] - torch.tensor([_APART * place, 0.0])))
    return pictures


def visual(positions: Float[Tensor, "n 2"]) -> Float[Tensor, "m 2"]:
    """Those of visual tokens."""
    return positions[positions[:, 0] != TEXT]
