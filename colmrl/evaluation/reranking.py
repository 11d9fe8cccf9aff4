"""Judge rerankers on candidates: each list reordered by their scores, beside the order in which it came and others.

Scores are written down query by query, so that a run that was killed goes on where it stopped and ends with the same
files. Equal scores keep the order in which the candidates came.
"""

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from colmrl.data.records import Collection, Qrels, relevant
from colmrl.errors import InputError
from colmrl.evaluation.baselines import Orders, bm25_orders, by_score, random_orders
from colmrl.evaluation.metrics import mean, of_orders
from colmrl.files import whole_lines
from colmrl.progress import track
from colmrl.reranking.candidates import Candidates
from colmrl.reranking.reranker import Reranker
from colmrl.reranking.runs import write_run

log = logging.getLogger(__name__)
SHUFFLES = 20  # that random order is the mean of
RANDOM = "random order"

Scores = dict[str, tuple[float, ...]]  # query id → of its candidates, in their order
Values = dict[str, float]  # metric → mean over the queries


@dataclass(frozen=True)
class Judged:
    """One system's numbers, and its orders (of random order, whose numbers are of many, the first)."""

    system: str
    values: Values
    orders: Orders


def metrics_of(candidates: Candidates, k: int | None = None) -> tuple[str, ...]:
    """What is reported: Recall@K, where K = min(10, `k`) (None: the candidates of the longest list), and the others."""
    depth = min(10, k or candidates.most)
    return tuple(
        dict.fromkeys(
            [f"recall_at_{depth}", "mrr_at_10", "mrr_at_100", "map_at_10", "ndcg_at_5", "ndcg_at_10", "recall_at_10"]
        )
    )


def validate(
    reranker: Reranker, candidates: Candidates, collection: Collection, k: int | None = None
) -> dict[str, float]:
    """Recall@K (as above), MRR@10, nDCG@10 and the others, in memory: what training watches."""
    orders = ordered(candidates, dict(scored(reranker, candidates, collection)))
    return mean(of_orders(orders, candidates.qrels, metrics_of(candidates, k)))


def scored(
    reranker: Reranker, candidates: Candidates, collection: Collection, done: int = 0
) -> Iterator[tuple[str, tuple[float, ...]]]:
    """Query id and the scores of its candidates; the first `done` queries are left out."""
    for query in track(list(candidates.of)[done:], "reranking", len(candidates) - done):
        documents = [collection.documents.named(name) for name in candidates.of[query]]
        found = reranker.score(collection.queries.named(query), documents)
        yield query, tuple(map(float, _checked(found, reranker.name, query)))


def _checked(found: Float[np.ndarray, " d"], name: str, query: str) -> Float[np.ndarray, " d"]:
    if not np.isfinite(found).all():
        raise InputError(f"{name}: scores of query {query!r} are not all numbers: train it again (lower learning rate)")
    return found


def ordered(candidates: Candidates, scores: Mapping[str, Sequence[float]]) -> Orders:
    """Each list by falling score."""
    return {query: by_score(names, scores[query]) for query, names in candidates.of.items()}


def score_all(
    reranker: Reranker, candidates: Candidates, collection: Collection, path: Path, stamp: str
) -> tuple[Scores, float | None]:
    """All scores, kept a line a query in `path`, from which a later call goes on; and the seconds a query took, of
    those that were scored now. `stamp`: of the reranker; an InputError where `path` is of another or other candidates.
    """
    header = json.dumps({"of": _stamp(candidates, stamp)})
    scores = _kept(path, header, candidates)
    done = len(scores)
    if done:
        log.info("%s: goes on after %d of %d queries", path, done, len(candidates))
    started = time.perf_counter()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as out:
        if not out.tell():
            out.write(header + "\n")
        for query, found in scored(reranker, candidates, collection, done):
            scores[query] = found
            out.write(json.dumps([query, found], ensure_ascii=False) + "\n")
            out.flush()
    now = len(candidates) - done
    return scores, (time.perf_counter() - started) / now if now else None


def _stamp(candidates: Candidates, stamp: str) -> str:
    digest = hashlib.sha256(json.dumps([stamp, candidates.mode]).encode())
    for query, names in candidates.of.items():
        digest.update(json.dumps([query, names]).encode())
    return digest.hexdigest()[:32]


def _kept(path: Path, header: str, candidates: Candidates) -> Scores:
    """What an earlier run wrote."""
    lines = whole_lines(path)
    if lines and lines[0].decode() != header:
        raise InputError(f"{path}: is of other candidates or another model: remove it, or choose another --out")
    try:
        scores = {query: tuple(map(float, found)) for query, found in map(json.loads, lines[1:])}
        whole = all(len(found) == len(candidates.of[query]) for query, found in scores.items())
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({error}): remove it, and judge again") from None
    if not whole or list(scores) != list(candidates.of)[: len(scores)]:
        raise InputError(f"{path}: its lines are not of the candidates, in their order: remove it, and judge again")
    return scores


def save_scores(path: Path, candidates: Candidates, scores: Mapping[str, Sequence[float]], tag: str) -> None:
    """The reranked lists as a TREC run file, which mining takes as a teacher (mine.filters: {teacher: {scores: …}})."""
    ranked = {
        query: sorted(zip(names, scores[query], strict=True), key=lambda pair: -pair[1])
        for query, names in candidates.of.items()
    }
    write_run(path, ranked, tag)


def beside(candidates: Candidates, collection: Collection, seed: int, names: Sequence[str]) -> list[Judged]:
    """What a reranker is compared with on the same lists: as they came, at random, by BM25."""
    systems: list[Judged] = []
    qrels = candidates.qrels
    if candidates.mode != "ground_truth":
        came = {query: tuple(of_query) for query, of_query in candidates.of.items()}
        label = "position order" if candidates.mode == "shown" else "first stage"
        systems.append(Judged(label, mean(of_orders(came, qrels, names)), came))
    drawn = [mean(of_orders(random_orders(candidates, seed + n), qrels, names)) for n in range(SHUFFLES)]
    at_random = {name: sum(one[name] for one in drawn) / len(drawn) for name in names}
    systems.append(Judged(RANDOM, at_random, random_orders(candidates, seed)))
    by_words = bm25_orders(candidates, collection)
    if by_words is not None:
        systems.append(Judged("BM25", mean(of_orders(by_words, qrels, names)), by_words))
    return systems


def by_position(candidates: Candidates, orders: Orders, qrels: Qrels) -> list[dict[str, Any]]:
    """Of the queries with one answer among their candidates: how often it comes first, and its mean reciprocal rank, by
    where it stood. A judge without position bias, given lists in random order, does equally well at each.
    """
    found: dict[int, list[int]] = {}
    for query, names in candidates.of.items():
        places = [place for place, name in enumerate(names, 1) if name in relevant(qrels[query])]
        if len(places) == 1:
            found.setdefault(places[0], []).append(orders[query].index(names[places[0] - 1]) + 1)
    return [
        {
            "position": place,
            "queries": len(ranks),
            "accuracy": sum(rank == 1 for rank in ranks) / len(ranks),
            "mrr": sum(1 / rank for rank in ranks) / len(ranks),
        }
        for place, ranks in sorted(found.items())
    ]
