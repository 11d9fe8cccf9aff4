"""What is asked: queries with the vectors of both heads at full dims and precision, cut to whatever a view needs.

Letters: q queries, h dims, n vectors.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from colmrl.errors import InputError
from colmrl.scoring import MultiVectors, truncate
from colmrl.store import EmbeddingStore
from colmrl.view import Head, View


@runtime_checkable
class Embedded(Protocol):
    """What a model gives (`models.retriever.Embeddings`)."""

    @property
    def single(self) -> Tensor | None: ...

    @property
    def multi(self) -> MultiVectors | None: ...


@dataclass(frozen=True)
class Asked:
    """Queries to be ranked for; a head whose vectors are not there is None."""

    ids: list[str]
    single: Float[np.ndarray, "q h"] | None
    multi: MultiVectors | None

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def of_store(cls, store: EmbeddingStore, rows: Sequence[int] | None = None) -> "Asked":
        """All records of a store as queries, or those at `rows`; every head that it keeps in full."""
        full = {head: _largest(store, head) for head in ("single", "multi")}
        rows = range(len(store)) if rows is None else rows
        single = full["single"] and store.single_rows(full["single"], rows)
        multi = full["multi"] and store.multi_rows(full["multi"], rows)
        return cls([store.ids[row] for row in rows], single, multi)

    @classmethod
    def of_embeddings(cls, ids: Sequence[str], embeddings: Embedded) -> "Asked":
        """What a model made of queries just now."""
        single = embeddings.single.float().cpu().numpy() if embeddings.single is not None else None
        multi = embeddings.multi.to("cpu") if embeddings.multi is not None else None
        return cls(list(ids), single, multi and MultiVectors(multi.vectors.float(), multi.offsets, multi.positions))

    def rows(self, rows: Sequence[int]) -> "Asked":
        """These queries, in this order."""
        places = torch.as_tensor(rows, dtype=torch.int64)
        return Asked(
            [self.ids[row] for row in rows],
            self.single[places.numpy()] if self.single is not None else None,
            self.multi.select(places) if self.multi is not None else None,
        )

    def single_at(self, view: View) -> Float[np.ndarray, "q dim"]:
        """Cut to a view's dim and normalised; queries are never rounded."""
        self._check(view, self.single.shape[1] if self.single is not None else 0)
        return truncate(torch.from_numpy(self.single), view.dim).numpy()

    def multi_at(self, view: View) -> MultiVectors:
        """Cut to a view's dim and normalised; all vectors, never rounded."""
        self._check(view, self.multi.vectors.shape[1] if self.multi is not None else 0)
        assert self.multi is not None
        return self.multi.truncate(view.dim)

    def _check(self, view: View, kept: int) -> None:
        if view.dim > kept:
            have = f"{kept} dims of" if kept else "none of"
            raise InputError(
                f"view {str(view)!r}: queries have {have} the {view.head} head: encode with --views {view}"
            )


def _largest(store: EmbeddingStore, head: Head) -> View | None:
    """The view in which all that a store keeps of a head is read."""
    views = [view for view in store.views() if view.head == head and view.vectors is None]
    return max(views, key=lambda view: view.dim, default=None)
