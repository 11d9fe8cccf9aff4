"""What a collection in a database is to us, whichever way it is reached; and what it says of itself.

Letters: n vectors of a document or query, h dims.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol, runtime_checkable
from uuid import UUID, uuid5

import numpy as np
from jaxtyping import Float
from pydantic import TypeAdapter

from colmrl.database.address import Where
from colmrl.errors import InputError
from colmrl.store import EmbeddingStore
from colmrl.view import View

FORMAT = 1
OVERSAMPLING = 3.0  # candidates by quantised vectors, over those that are asked for; then scored by the vectors
_IDS = UUID("6f1d7c7e-5c1a-4a53-9a2b-0c0f5a3b8e21")  # any, but always this one: a document's point is always the same


@dataclass(frozen=True)
class About:
    """What a collection was made of. `stamp`: of the store that it holds; None while it is being written."""

    fingerprint: str
    views: tuple[str, ...]
    pooling: str
    position_weight: float
    stamp: str | None = None
    format: int = FORMAT

    @classmethod
    def of(cls, documents: EmbeddingStore, views: Sequence[View]) -> "About":
        made = documents.manifest
        return cls(made.fingerprint, tuple(map(str, views)), made.pooling, made.position_weight)

    @classmethod
    def read(cls, stated: Any, place: object) -> "About":
        try:
            if stated["format"] != FORMAT:
                raise InputError(
                    f"{place}: format {stated['format']} is not {FORMAT}: export into another --collection"
                )
            return _ABOUT.validate_python(stated)
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{place}: was not made by colmrl export index: give another --collection, that one is left alone"
            ) from None

    def stated(self) -> dict[str, Any]:
        return json.loads(json.dumps(asdict(self)))

    def at(self, stamp: str | None) -> "About":
        return replace(self, stamp=stamp)


_ABOUT = TypeAdapter(About)


@dataclass(frozen=True)
class Point:
    """A document. `hash`: of all that is in it, so that what has changed is known; `payload` carries both."""

    id: str
    hash: str
    vectors: dict[str, Float[np.ndarray, "*n h"]]  # a view's slug → a vector, or several
    payload: dict[str, Any]

    @property
    def key(self) -> str:
        return point_key(self.id)

    @property
    def kept(self) -> dict[str, Any]:
        return {**self.payload, "id": self.id, "hash": self.hash}


@dataclass(frozen=True)
class Stage:
    """One search in the database: a query's vectors at a view, and how many documents it passes on."""

    view: View
    vectors: Float[np.ndarray, "*n h"]
    keep: int


@runtime_checkable
class Collection(Protocol):
    """Of documents; every call that fails for what the user gave is an InputError that names the place."""

    def about(self) -> About | None:
        """None: there is no such collection."""
        ...

    def create(self, about: About, views: Sequence[View]) -> None: ...

    def state(self, about: About) -> None:
        """Replace what it says of itself."""
        ...

    def hashes(self) -> Iterator[tuple[str, str]]:
        """Id and hash of each document."""
        ...

    def upsert(self, points: Sequence[Point]) -> None:
        """Returns when they are there to stay."""
        ...

    def delete(self, ids: Sequence[str]) -> None: ...

    def settle(self) -> None:
        """After many changes: have it build what makes searching fast."""
        ...

    def find(self, stages: Sequence[Stage], where: Where, k: int) -> list[tuple[str, float]]:
        """Ids and scores (multi: sums over query vectors) of the last stage's best, each stage over what the one before
        it passed on.
        """
        ...

    def size_bytes(self) -> int | None:
        """On disk, where that can be known."""
        ...

    def close(self) -> None: ...


def point_key(name: str) -> str:
    """A document's point: Qdrant takes UUIDs."""
    return str(uuid5(_IDS, name))


def quantised(view: View) -> bool:
    """Whether the database keeps codes too, and looks at them first."""
    return view.precision in ("int8", "binary")
