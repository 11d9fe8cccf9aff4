"""What can be chosen: the views that a store keeps, some that are made on reading, and some funnels; each with its
price in bytes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from colmrl.errors import InputError
from colmrl.search import Plan
from colmrl.store import EmbeddingStore
from colmrl.view import Precision, View

Kind = Literal["kept", "made", "funnel"]
_ROUNDED: tuple[Precision, ...] = ("fp16", "int8", "binary")
_BUDGETS = (64, 32, 16, 8, 4)
_PASSED_ON = 100  # documents, from a funnel's first stage
_POOLED_AT_ONCE = 1_000_000  # vectors of a corpus; to pool more takes minutes


@dataclass(frozen=True)
class Offer:
    """`kind`: kept as it is; rounded or pooled on reading; or a funnel."""

    plan: Plan
    kind: Kind
    bytes_per_document: float


def bytes_of(documents: EmbeddingStore, plan: Plan) -> float:
    """Of a document's vectors at all stages; InputError where the store cannot give one."""
    views = [stage.view for stage in plan.stages]
    for view in views:
        documents.array_of(view)
    return sum(view.bytes_per_document(documents.vectors_per_record(view)) for view in views)


def offers(documents: EmbeddingStore) -> list[Offer]:
    """Not all that can be asked for, which would be too many to choose from."""
    kept = documents.views()
    made = list(dict.fromkeys(view for view in _made(documents) if view not in kept))
    of_kind: dict[Kind, list[Plan]] = {
        "kept": [Plan.of(view) for view in kept],
        "made": [Plan.of(view) for view in made],
        "funnel": _funnels(kept),
    }
    return [Offer(plan, kind, bytes_of(documents, plan)) for kind, plans in of_kind.items() for plan in plans]


def _made(documents: EmbeddingStore) -> Iterator[View]:
    for spec in documents.manifest.arrays:
        whole = View(spec.head, spec.dim, spec.vectors, spec.precision)
        candidates = [replace(whole, precision=precision) for precision in _ROUNDED]
        if spec.head == "multi" and spec.vectors is None and documents.counts(spec).sum() <= _POOLED_AT_ONCE:
            candidates += [replace(whole, vectors=budget) for budget in _BUDGETS]
        yield from (view for view in candidates if _served(documents, view))


def _funnels(kept: list[View]) -> list[Plan]:
    """From the smallest and the largest single vector to the largest multi-vectors."""
    singles = sorted((view for view in kept if view.head == "single"), key=lambda view: view.bytes_per_document())
    multis = [view for view in kept if view.head == "multi"]
    if not singles or not multis:
        return []
    last = max(multis, key=lambda view: (view.vectors is None, view.dim, view.bytes_per_document()))
    return [Plan.parse(f"{first}/{_PASSED_ON}+{last}") for first in dict.fromkeys((singles[0], singles[-1]))]


def _served(documents: EmbeddingStore, view: View) -> bool:
    try:
        documents.array_of(view)
    except InputError:
        return False
    return True
