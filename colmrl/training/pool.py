"""What one process's queries are compared with: the candidates of all processes, and which of them count as what.

Letters: q queries of this process, Q queries and d candidates of all, n explicit negatives, c = 1 + n, k known answers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from colmrl.models.retriever import Embeddings
from colmrl.processes import processes, rank
from colmrl.reduction import pooled
from colmrl.scoring import MultiVectors
from colmrl.training.gather import (
    gather_counts,
    gather_embeddings,
    gather_multi,
    gather_padded,
    gather_rows,
)


@dataclass(frozen=True)
class Side:
    """Queries or documents; `budgets`: number of vectors → the documents' multi-vectors pooled to it."""

    full: Embeddings
    budgets: Mapping[int, MultiVectors]

    def select(self, places: Int[Tensor, " n"]) -> "Side":
        return Side(self.full.select(places), {size: m.select(places) for size, m in self.budgets.items()})


@dataclass(frozen=True)
class Pool:
    """What one process's queries and positives are compared with.

    `answers`: where the positive of each query of all processes stands among the candidates; `own`: where this
    process's queries stand among all queries. `known`: candidate j answers query i; `known_queries`: positive i answers
    query j of all. `negatives`: a query's explicit negatives among the candidates, -1 for none; `teacher`: the triples'
    scores of its positive and of those, NaN for none. `share`: what the mean over this process's queries counts for,
    1 where all processes have as many.
    """

    queries: Side
    positives: Side
    candidates: Side
    all_queries: Side
    answers: Int[Tensor, " Q"]
    own: Int[Tensor, " q"]
    known: Bool[Tensor, "q d"]
    known_queries: Bool[Tensor, "q Q"]
    negatives: Int[Tensor, "q n"]
    teacher: Float[Tensor, "q c"]
    share: float = 1.0


def make_pool(
    embedded: Embeddings, batch: Mapping[str, Any], budgets: Sequence[int], position_weight: float = 0.0
) -> Pool:
    """From the embeddings of a batch's chunks, in their order, and the batch itself (`batches.Collator`)."""
    place = batch["order"]
    count = int(batch["queries"])
    queries = Side(embedded.select(place[:count]), {})
    documents = embedded.select(place[count:])
    local = Side(documents, pooled(documents.multi, budgets, position_weight) if documents.multi is not None else {})
    numbers, sizes = gather_counts(count), gather_counts(len(place) - count)
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    answers = [torch.arange(n, device=place.device) + start for n, start in zip(numbers, starts, strict=True)]
    mine = torch.arange(count, device=place.device)
    keys = gather_rows(batch["candidates"])
    negatives = batch["negatives"]
    return Pool(
        queries=queries,
        positives=local.select(mine),
        candidates=_gather(local),
        all_queries=_gather(queries),
        answers=torch.cat(answers),
        own=mine + sum(numbers[: rank()]),
        known=_among(batch["known"], keys),
        known_queries=_among(gather_padded(batch["known"], -1), batch["candidates"][:count]).T,
        negatives=torch.where(negatives >= 0, negatives + starts[rank()], -1),
        teacher=batch["teacher"],
        share=count * processes() / sum(numbers),
    )


def _gather(side: Side) -> Side:
    if processes() == 1:
        return side
    return Side(gather_embeddings(side.full), {size: gather_multi(m) for size, m in side.budgets.items()})


def _among(known: Int[Tensor, "rows k"], keys: Int[Tensor, " columns"]) -> Bool[Tensor, "rows columns"]:
    """Whether each column's key is one of a row's."""
    found = torch.zeros(len(known), len(keys), dtype=torch.bool, device=keys.device)
    for column in known.T:
        found |= column[:, None] == keys
    return found
