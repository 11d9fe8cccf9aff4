"""Candidates to rerank, a few documents a query, and which of them are right.

ground_truth   the query's answers and as many random documents as asked for, shuffled (of sequences, leaving one out,
               the target and random items that the user has not had)
retrieval      the best of a first stage: a TREC run file, or a store searched at a view or by a funnel
shown          what people were shown, in that order (Qilin)

Numbers of different modes are of different tasks: they never stand in one table.
"""

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from colmrl.config import Config
from colmrl.data.reading import known_answers
from colmrl.data.records import Collection, Qrels, relevant
from colmrl.errors import InputError
from colmrl.reranking.runs import read_run, write_run

log = logging.getLogger(__name__)
Mode = Literal["ground_truth", "retrieval", "shown"]


@dataclass(frozen=True)
class Candidates:
    """`of`: query id → document ids in the order of the first stage (ground_truth: in a drawn one); `scores`: that
    stage's, in the same order, where it has any. `qrels`: of the same queries, with all of their judgements. `source`:
    what messages and tables call the first stage.
    """

    mode: Mode
    source: str
    of: Mapping[str, tuple[str, ...]]
    scores: Mapping[str, tuple[float, ...]] | None
    qrels: Qrels

    def __len__(self) -> int:
        return len(self.of)

    @property
    def most(self) -> int:
        """Candidates of any query."""
        return max(map(len, self.of.values()), default=0)

    def only(self, queries: Iterable[str]) -> "Candidates":
        """Of these queries, in this order."""
        names = list(queries)
        scores = None if self.scores is None else {name: self.scores[name] for name in names}
        of, qrels = {name: self.of[name] for name in names}, {name: self.qrels[name] for name in names}
        return replace(self, of=of, scores=scores, qrels=qrels)

    def drawn(self, queries: int | None, seed: int) -> "Candidates":
        """Of so many queries, drawn; they keep their order."""
        if queries is None or queries >= len(self):
            return self
        kept = np.sort(np.random.default_rng(seed).choice(len(self), queries, replace=False))
        names = list(self.of)
        return self.only(names[i] for i in kept)

    def save_run(self, path: str | Path, tag: str = "candidates") -> Path:
        """As a TREC run file; without scores, by falling whole numbers."""
        scores = self.scores or {query: range(len(names), 0, -1) for query, names in self.of.items()}
        write_run(
            Path(path),
            {query: zip(names, map(float, scores[query]), strict=True) for query, names in self.of.items()},
            tag,
        )
        return Path(path)


def open_candidates(config: Config, collection: Collection, split: str) -> Candidates:
    """What section `rerank` says. Without a mode: as shown, where the split has such lists; else of the first stage
    that is given; else ground_truth.
    """
    settings = config.rerank
    given = [name for name in ("run", "store") if getattr(settings, name)]
    mode = settings.mode or ("retrieval" if given else "shown" if split in collection.top_ranked else "ground_truth")
    if given and mode != "retrieval":
        raise InputError(f"rerank.{given[0]}: is of rerank.mode=retrieval, not {mode}: leave one of the two out")
    match mode:
        case "ground_truth":
            found = ground_truth(collection, split, settings.sampled, config.seed)
        case "shown":
            found = shown(collection, split)
        case "retrieval":
            if len(given) != 1:
                said = "both given" if given else "neither given"
                raise InputError(f"rerank.run, rerank.store: {said}: mode retrieval needs one first stage")
            if settings.run:
                found = from_run(settings.run, collection, split, settings.top_k)
            else:
                found = from_store(settings.store or "", collection, split, settings.view, settings.top_k)
    return found.drawn(settings.queries, config.seed)


def from_run(path: str | Path, collection: Collection, split: str, k: int) -> Candidates:
    """The best `k` a query by the scores of a TREC run file, equal ones in the order of its lines. Queries that the
    split does not judge are left out and counted.
    """
    path, qrels = Path(path), _answerable(collection, split)
    found, others = scores_of_run(path, collection, qrels)
    missing = [name for name in qrels if name not in found]
    if missing:
        said = f"{len(missing)} of the {len(qrels)} judged queries of split {split!r} have no line ({missing[0]!r})"
        raise InputError(f"{path}: {said}: search for them too, or choose another split")
    if others:
        log.info("%s: %d queries that split %r does not judge are left out", path, others, split)
    return _best("retrieval", str(path), found, collection, qrels, k)


def scores_of_run(path: Path, collection: Collection, qrels: Qrels) -> tuple[dict[str, dict[str, float]], int]:
    """Judged query → document → score, in the order of the lines of a TREC run file, and how many other queries it has.
    InputError for ids that the data does not have, and for a pair that stands twice.
    """
    found: dict[str, dict[str, float]] = {}
    others: set[str] = set()
    for line in read_run(path):
        for name, records, kind in (
            (line.query, collection.queries, "query"),
            (line.document, collection.documents, "document"),
        ):
            if name not in records.position:
                raise InputError(
                    f"{path}:{line.number}: {kind} {name!r} is not in {collection.source}: give the run of this data"
                )
        if line.query not in qrels:
            others.add(line.query)
            continue
        of_query = found.setdefault(line.query, {})
        if line.document in of_query:
            said = f"query {line.query!r} and document {line.document!r} stand on an earlier line"
            raise InputError(f"{path}:{line.number}: {said}: keep one")
        of_query[line.document] = line.score
    return found, len(others)


def from_store(
    store: str | Path, collection: Collection, split: str, plan: str | None, k: int, gpu: bool = True
) -> Candidates:
    """The best `k` a query of a store of this data at a view or by a funnel (None: the store's first view)."""
    from colmrl.search import Plan, search
    from colmrl.store import EmbeddingStore, check_same_data

    store, qrels = Path(store), _answerable(collection, split)
    documents, queries = EmbeddingStore(store / "documents"), EmbeddingStore(store / "queries")
    check_same_data(documents, collection.documents, collection.source)
    check_same_data(queries, collection.queries, collection.source)
    way = Plan.parse(plan) if plan else Plan.of(documents.views()[0])
    ranking = search(queries, documents, way, k + bool(collection.itself), gpu, set(qrels))
    return _best("retrieval", f"{store} at {way}", ranking.run(), collection, qrels, k)


def shown(collection: Collection, split: str) -> Candidates:
    """What people were shown, first shown first. Queries without a known answer are left out."""
    if split not in collection.top_ranked:
        there = ", ".join(sorted(collection.top_ranked)) or "none"
        said = f"split {split!r}: has no lists that were shown"
        raise InputError(f"{collection.source}: {said} (there are {there}): choose another rerank.mode or split")
    qrels, lists = _answerable(collection, split), collection.top_ranked[split]
    of = {query: names for query, names in lists.items() if query in qrels}
    if not of:
        raise InputError(f"{collection.source}: split {split!r}: no list that was shown has a click: choose another")
    kept = {query: qrels[query] for query in of}
    return Candidates("shown", f"{collection.source}, as shown", of, None, kept)


def ground_truth(collection: Collection, split: str, negatives: int, seed: int) -> Candidates:
    """Each query's answers and `negatives` random documents, in random order; what is drawn depends on the seed and
    the query alone. Never drawn: known answers of the query, and what its user had before (`meta["history"]`).
    """
    qrels, known = _answerable(collection, split), known_answers(collection, split)
    of: dict[str, tuple[str, ...]] = {}
    for query, judged in qrels.items():
        right = sorted(relevant(judged))
        never = known[query] | set(collection.queries.named(query).meta.get("history", ()))
        rng = generator(seed, query)
        names = right + _drawn(collection.documents.ids, never, negatives, rng, query)
        of[query] = tuple(names[i] for i in rng.permutation(len(names)))
    return Candidates("ground_truth", f"answers and {negatives} random", of, None, qrels)


def generator(seed: int, name: str) -> np.random.Generator:
    """For what is drawn for one query: the same whatever else is drawn."""
    return np.random.default_rng([seed, *hashlib.blake2b(name.encode(), digest_size=8).digest()])


def _drawn(ids: Sequence[str], never: set[str], count: int, rng: np.random.Generator, query: str) -> list[str]:
    """So many different ones."""
    if len(ids) - len(never) < 2 * count:  # most of the corpus: draw from what is left of it
        left = [name for name in ids if name not in never]
        if count > len(left):
            said = f"{count}: query {query!r} has only {len(left)} documents that are no answers"
            raise InputError(f"rerank.sampled: {said}: lower it")
        return [left[int(i)] for i in rng.choice(len(left), count, replace=False)]
    drawn: dict[str, None] = {}
    while len(drawn) < count:
        names = [ids[int(i)] for i in rng.integers(len(ids), size=count)]
        drawn.update((name, None) for name in names if name not in never)
    return list(drawn)[:count]


def _answerable(collection: Collection, split: str) -> dict[str, Mapping[str, int]]:
    """The judgements of the queries that have an answer."""
    qrels = {query: judged for query, judged in collection.judged(split).items() if relevant(judged)}
    if not qrels:
        raise InputError(f"{collection.source}: split {split!r}: no score above 0: nothing can be found")
    return qrels


def _best(
    mode: Mode, source: str, run: Mapping[str, Mapping[str, float]], collection: Collection, qrels: Qrels, k: int
) -> Candidates:
    """The best `k`, in the judgements' order; a query is no candidate of itself."""
    of: dict[str, tuple[str, ...]] = {}
    scores: dict[str, tuple[float, ...]] = {}
    for query in qrels:
        found = {name: score for name, score in run[query].items() if name != collection.itself.get(query)}
        best = sorted(found.items(), key=lambda item: -item[1])[:k]
        of[query], scores[query] = tuple(name for name, _ in best), tuple(score for _, score in best)
    return Candidates(mode, source, of, scores, qrels)
