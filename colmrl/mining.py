"""Hard negatives: search with the model, then keep what is close but, as far as can be told, not an answer.

Two filters, in order: known positives never; and positive-aware (NV-Retriever, arXiv:2407.15831): a candidate is
kept only if it scores at least relative_margin × |its positive's score| below its positive, since what scores like
the answer often is one that nobody marked.
"""

import json
import logging
import random
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch

from colmrl import provenance
from colmrl.config import Config
from colmrl.configure import to_dict
from colmrl.data.reading import read_collection
from colmrl.data.records import Qrels, Triple, relevant
from colmrl.data.triples import write_triples
from colmrl.errors import InputError
from colmrl.files import write_text
from colmrl.runtime import use_torch
from colmrl.scoring import MultiVectors, maxsim
from colmrl.search import search
from colmrl.search.ranking import Ranking, query_view
from colmrl.store import EmbeddingStore, check_same_data, read_manifest
from colmrl.view import View

log = logging.getLogger(__name__)


def mine(config: Config, store: str | Path, out: str | Path) -> Path:
    """Mine triples for a split's queries from a store; writes `out` and, beside it, `out`.report.json.

    Raises InputError where `out` exists, or the data does not fit the store.
    """
    store, out = Path(store), Path(out)
    if out.exists():
        raise InputError(f"{out}: exists already: choose another --out, or remove it")
    manifest = read_manifest(store / "documents")
    root = config.data.path or manifest.data
    collection = read_collection(root, config.data, manifest.show)
    documents, queries, qrels = collection.documents, collection.queries, collection.judged(config.data.train_split)
    corpus = EmbeddingStore(store / "documents")
    asked = EmbeddingStore(store / "queries")
    check_same_data(corpus, documents, root)
    check_same_data(asked, queries, root)
    use_torch(config)
    view = View.parse(config.mine.view) if config.mine.view else corpus.views()[0]
    ranking = search(asked, corpus, view, config.mine.k, config.mine.gpu, set(qrels))
    scores = positive_scores(asked, corpus, view, qrels)
    triples, counts = choose_negatives(config, ranking, qrels, scores, collection.itself)
    report = {
        "command": provenance.command(),
        "commit": provenance.commit(),
        "seed": config.seed,
        "store": str(store),
        "fingerprint": manifest.fingerprint,
        "view": str(view),
        "mine": to_dict(config)["mine"],
        "counts": dict(counts),
    }
    write_text(report_path(out), json.dumps(report, indent=2))  # first: triples stand for a finished mining
    write_triples(out, triples, queries, documents, str(root))
    log.info("%s: %s", out, ", ".join(f"{value} {name}" for name, value in counts.items()))
    return out


def report_path(triples: Path) -> Path:
    return triples.with_name(triples.name + ".report.json")


def choose_negatives(
    config: Config,
    ranking: Ranking,
    qrels: Qrels,
    scores: dict[tuple[str, str], float],
    itself: Mapping[str, str] = MappingProxyType({}),
) -> tuple[list[Triple], Counter[str]]:
    """One triple for each (query, positive) pair, and what was counted on the way. A pair that keeps no negative
    stays, with none: it still trains against the batch. `itself`: a query → the document that it is.
    """
    counts: Counter[str] = Counter()
    triples = []
    row_of = {query_id: row for row, query_id in enumerate(ranking.query_ids)}
    rng = random.Random(config.seed)
    for query_id, judged in qrels.items():
        row = row_of[query_id]
        known = relevant(judged)
        found = [
            (ranking.document_ids[position], float(score))
            for position, score in zip(ranking.positions[row], ranking.scores[row], strict=True)
        ]
        never = known | {itself.get(query_id, "")}
        candidates = [(name, score) for name, score in found if name not in never]
        for positive in sorted(known):
            positive_score = scores[query_id, positive]
            bound = positive_score - config.mine.relative_margin * abs(positive_score)
            kept = [(name, score) for name, score in candidates if score <= bound]
            counts["candidates"] += len(found)
            counts["known positives removed"] += len(found) - len(candidates)
            counts["too close to the positive removed"] += len(candidates) - len(kept)
            if config.mine.sampling == "random":
                kept = sorted(rng.sample(kept, min(config.mine.negatives, len(kept))), key=lambda pair: -pair[1])
            kept = kept[: config.mine.negatives]
            counts["pairs" if kept else "pairs left without negatives"] += 1
            counts["negatives"] += len(kept)
            names, values = tuple(name for name, _ in kept), tuple(score for _, score in kept)
            triples.append(Triple(query_id, positive, names, positive_score, values))
    if not counts["negatives"]:
        raise InputError(
            f"mine.k, mine.relative_margin: no pair keeps a negative ({dict(counts)}): search deeper, or lower the "
            "margin"
        )
    return triples, counts


def positive_scores(
    queries: EmbeddingStore, documents: EmbeddingStore, view: View, qrels: Qrels
) -> dict[tuple[str, str], float]:
    """The score of every relevant (query, document) pair at a view; memory: the vectors of what is judged."""
    pairs = [(query_id, name) for query_id, judged in qrels.items() for name in sorted(relevant(judged))]
    query_vectors = _pick(queries, query_view(view, queries), {query_id for query_id, _ in pairs})
    document_vectors = _pick(documents, view, {name for _, name in pairs})
    scores = {}
    for query_id, name in pairs:
        query, document = query_vectors[query_id], document_vectors[name]
        if view.head == "single":
            scores[query_id, name] = float(query @ document)
        else:
            one = MultiVectors.pack([torch.from_numpy(query)]), MultiVectors.pack([torch.from_numpy(document)])
            scores[query_id, name] = maxsim(*one).item()
    return scores


def _pick(store: EmbeddingStore, view: View, ids: set[str]) -> dict[str, np.ndarray]:
    vectors: dict[str, np.ndarray] = {}
    start = 0
    blocks = store.single(view) if view.head == "single" else (s.unpack() for s in store.multi(view))
    for block in blocks:
        for offset, item in enumerate(block):
            name = store.ids[start + offset]
            if name in ids:
                vectors[name] = np.array(item)
        start += len(block)
    return vectors
