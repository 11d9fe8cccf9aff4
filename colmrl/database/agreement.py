"""Whether a database finds what exact search finds: the same queries asked of both, one at a time."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from colmrl.config import Config
from colmrl.database.address import Address
from colmrl.database.connecting import connect
from colmrl.database.searching import open_database
from colmrl.search import Asked, Plan, Ranking, Searcher, open_searcher
from colmrl.search.building import drawn, queries_of
from colmrl.store import EmbeddingStore
from colmrl.view import View

_BEST = 10
_EQUAL = 1e-6  # of scores
_CANDIDATES = 100  # of a funnel's first stage, where the settings leave them to us


@dataclass(frozen=True)
class Agreement:
    """`recall`: how many of ten are among exact search's ten best at the last view, or as good as the tenth;
    `difference`: the most, of scores that both gave.
    """

    plan: Plan
    queries: int
    recall: float
    difference: float
    query_ms: float
    exact_ms: float


def agreements(
    config: Config, store: str | Path, views: Sequence[View], address: Address, token: str | None, queries: int
) -> list[Agreement]:
    """Of each view, and of funnels from the first single view to each multi one."""
    documents, collection = EmbeddingStore(Path(store) / "documents"), connect(address, token)
    config = replace(config, index=replace(config.index, queries=queries))
    single = [view for view in views if view.head == "single"][:1]
    most = config.index.candidates or _CANDIDATES
    funnels = [f"{one}/{most}+{view}" for one in single for view in views if view.head == "multi"]
    plans = [*map(Plan.of, views), *map(Plan.parse, funnels)]
    found, known = [], {}
    try:
        for plan in plans:
            asked = drawn(queries_of(Path(store)), documents, plan.view, config)
            if asked.single is None and len(plan.stages) > 1:
                continue  # documents in the place of queries have the vectors of one head
            if plan.view not in known:
                known[plan.view] = _ranked(open_searcher(documents, Plan.of(plan.view), config.index.gpu), asked)
            _, searcher = open_database(documents, plan, address, token, config.index.gpu, opened=collection)
            (ours, ms), (exact, exact_ms) = _ranked(searcher, asked), known[plan.view]
            apart = _apart([ranking.run() for ranking in ours], [ranking.run() for ranking in exact])
            found.append(Agreement(plan, len(asked), _recall(ours, exact), apart, ms, exact_ms))
    finally:
        collection.close()
    return found


def _ranked(searcher: Searcher, asked: Asked) -> tuple[list[Ranking], float]:
    """One query at a time; the median of milliseconds."""
    rankings, times = [], []
    for row in range(len(asked)):
        started = time.perf_counter()
        rankings.append(searcher.rank(asked.rows([row]), _BEST))
        times.append(time.perf_counter() - started)
    return rankings, 1e3 * statistics.median(times)


def _recall(ours: Sequence[Ranking], exact: Sequence[Ranking]) -> float:
    """Of equal scores any document is right."""
    shares = []
    for one, best in zip(ours, exact, strict=True):
        among = np.isin(one.positions, best.positions[best.positions >= 0])
        right = among | ((one.positions >= 0) & (one.scores >= best.scores[:, -1:] - _EQUAL))
        shares.append(right.sum() / max(1, (best.positions >= 0).sum()))
    return float(np.mean(shares))


def _apart(one: Sequence[dict[str, dict[str, float]]], other: Sequence[dict[str, dict[str, float]]]) -> float:
    both = [
        abs(score - theirs[query][name])
        for ours, theirs in zip(one, other, strict=True)
        for query, scores in ours.items()
        for name, score in scores.items()
        if name in theirs[query]
    ]
    return max(both, default=0.0)
