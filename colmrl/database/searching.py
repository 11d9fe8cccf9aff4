"""Asking a database: a plan's stages at views that it holds are its own work (Qdrant's prefetch and MaxSim), later ones
are scored exactly from the store. Letters: q queries, k ranks.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from colmrl.database.address import Address, Where
from colmrl.database.collection import About, Collection
from colmrl.database.collection import Stage as Asking
from colmrl.database.connecting import connect
from colmrl.errors import InputError
from colmrl.search import Asked, Plan
from colmrl.search.best import Found
from colmrl.search.plan import Stage
from colmrl.search.searcher import Staged
from colmrl.store import EmbeddingStore
from colmrl.view import View

_CANDIDATES = 100  # that a stage passes on where neither plan nor setting says


class DatabaseFinder:
    """The first stages of a plan; rows are those of the store, scores ours: of multi-vectors, means over a query's."""

    def __init__(
        self,
        collection: Collection,
        documents: EmbeddingStore,
        stages: Sequence[Stage],
        candidates: int = _CANDIDATES,
        where: Where | None = None,
    ):
        self._collection, self._stages, self._where = collection, stages, where or {}
        self._candidates = candidates
        self._rows = {name: row for row, name in enumerate(documents.ids)}

    def find(self, asked: Asked, k: int) -> Found:
        scores = np.full((len(asked), k), -np.inf, dtype=np.float32)
        positions = np.full((len(asked), k), -1, dtype=np.int64)
        vectors = [_vectors(asked, stage.view) for stage in self._stages]
        keep = [stage.keep or max(k, self._candidates) for stage in self._stages[:-1]] + [k]
        for query in range(len(asked)):
            asking = [
                Asking(stage.view, each[query], most)
                for stage, each, most in zip(self._stages, vectors, keep, strict=True)
            ]
            found = self._collection.find(asking, self._where, k)
            tokens = len(asking[-1].vectors) if asking[-1].view.head == "multi" else 1
            for rank, (name, score) in enumerate(found):
                positions[query, rank], scores[query, rank] = self._rows[name], score / tokens
        return scores, positions


def open_database(
    documents: EmbeddingStore,
    plan: Plan | None,
    address: Address,
    token: str | None = None,
    gpu: bool = False,
    candidates: int | None = None,
    opened: Collection | None = None,
) -> tuple[Plan, Staged]:
    """A searcher, and its plan (None: the first view that the database holds). Raises InputError where the collection
    is not what the store holds now, or the plan's first view is none of its.
    """
    collection = opened or connect(address, token)
    about = _check_current(address, collection.about(), documents)
    held = [View.parse(name) for name in about.views]
    plan = plan or Plan.of(held[0])
    own = [stage for place, stage in enumerate(plan.stages) if all(s.view in held for s in plan.stages[: place + 1])]
    if not own:
        raise InputError(
            f"{address}: holds {', '.join(about.views)}, not {plan.stages[0].view}: begin with one of these, or export "
            "again into another --collection"
        )
    for stage in plan.stages[len(own) :]:
        documents.array_of(stage.view)
    most = candidates or _CANDIDATES
    finder = DatabaseFinder(collection, documents, own, most, address.where)
    rest = Plan((own[-1], *plan.stages[len(own) :]))
    return plan, Staged(documents, rest, finder, most, gpu)


def _check_current(address: Address, about: About | None, documents: EmbeddingStore) -> About:
    store = documents.folder.parent
    if about is None:
        raise InputError(
            f"{address}: no such collection: colmrl export index --store {store} --to {address.place} --views … "
            f"--collection {address.collection}"
        )
    if about.fingerprint != documents.manifest.fingerprint:
        raise InputError(f"{address}: is of another checkpoint than {store}: name the collection of this store")
    if about.stamp != documents.stamp:
        said = "is not finished" if about.stamp is None else f"is of {store} as it was"
        views = ",".join(about.views)
        again = f"colmrl export index --store {store} --to {address.place} --views {views}"
        raise InputError(f"{address}: {said}: {again} --collection {address.collection}")
    return about


def _vectors(asked: Asked, view: View) -> list[Float[np.ndarray, "..."]]:
    """Of each query."""
    if view.head == "single":
        return list(asked.single_at(view))
    return [item.numpy() for item in asked.multi_at(view).unpack()]
