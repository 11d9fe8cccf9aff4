"""Search by a plan: its first stage over the whole corpus, exactly or by an index, each later one over candidates."""

from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from colmrl.search.asked import Asked
from colmrl.search.best import Found
from colmrl.search.exact import exact
from colmrl.search.indexed import open_index
from colmrl.search.plan import Plan
from colmrl.search.ranking import Ranking
from colmrl.search.rescoring import rescore
from colmrl.store import EmbeddingStore
from colmrl.view import View

_CANDIDATES = 100  # that a stage passes on where neither plan nor setting says


@runtime_checkable
class Searcher(Protocol):
    """Opened once, used for any number of blocks of queries."""

    def rank(self, asked: Asked, k: int) -> Ranking:
        """The best `k` documents (all, if there are fewer) for each query; where fewer are found, the rest have
        position -1 and score -inf.
        """
        ...


@runtime_checkable
class Finder(Protocol):
    """What answers a plan's first stage."""

    def find(self, asked: Asked, k: int) -> Found: ...


class Staged:
    """The one searcher: a plan with a finder for its first stage."""

    def __init__(self, documents: EmbeddingStore, plan: Plan, first: Finder, candidates: int, gpu: bool):
        self._documents, self._plan, self._first = documents, plan, first
        self._candidates, self._gpu = candidates, gpu

    def rank(self, asked: Asked, k: int) -> Ranking:
        k = min(k, len(self._documents))
        keep = [stage.keep or max(k, self._candidates) for stage in self._plan.stages[:-1]] + [k]
        scores, positions = self._first.find(asked, min(keep[0], len(self._documents)))
        for stage, most in zip(self._plan.stages[1:], keep[1:], strict=True):
            scores, positions = rescore(self._documents, stage.view, asked, positions, most, self._gpu)
        missing = ((0, 0), (0, k - scores.shape[1]))  # where a stage passes on fewer than are asked for
        scores = np.pad(scores, missing, constant_values=-np.inf)
        return Ranking(asked.ids, self._documents.ids, scores, np.pad(positions, missing, constant_values=-1))


def open_searcher(
    documents: EmbeddingStore,
    plan: Plan,
    gpu: bool = False,
    index: Path | None = None,
    probes: int | None = None,
    candidates: int | None = None,
) -> Searcher:
    """`index`: a folder that colmrl index wrote of the plan's first view; None: exact search. `probes`, `candidates`:
    None for the index's own.
    """
    for stage in plan.stages:
        documents.array_of(stage.view)
    first = open_first(documents, plan.stages[0].view, gpu, index, probes, candidates)
    return staged(documents, plan, first, gpu, candidates)


def open_first(
    documents: EmbeddingStore, view: View, gpu: bool, index: Path | None, probes: int | None, candidates: int | None
) -> Finder:
    """What answers the first stage of any plan that begins with `view`."""
    return open_index(index, documents, view, gpu, probes, candidates) if index else exact(documents, view, gpu)


def staged(documents: EmbeddingStore, plan: Plan, first: Finder, gpu: bool, candidates: int | None) -> Searcher:
    """A plan whose first stage is open already."""
    return Staged(documents, plan, first, candidates or _CANDIDATES, gpu)
