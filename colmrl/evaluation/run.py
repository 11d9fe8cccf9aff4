"""Judge a store at any list of views, from qrels."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from colmrl import provenance
from colmrl.config import Config
from colmrl.data.reading import read_collection
from colmrl.data.records import Collection, Qrels, relevant
from colmrl.errors import InputError
from colmrl.evaluation.metrics import mean, per_query
from colmrl.files import write_text
from colmrl.progress import track
from colmrl.runtime import use_torch
from colmrl.search import search
from colmrl.store import EmbeddingStore, check_same_data
from colmrl.view import View, parse_views

log = logging.getLogger(__name__)
Row = dict[str, Any]  # {"round", "view", "metric", "value"}


def judge(config: Config, store: str | Path, views: Sequence[View] = (), round_number: int | None = None) -> list[Row]:
    """One row a number: every metric, bytes and vectors a document, for each view (none: all that the store keeps)."""
    store = Path(store)
    documents, queries = EmbeddingStore(store / "documents"), EmbeddingStore(store / "queries")
    data = config.data.eval_path or config.data.path or documents.manifest.data
    collection = read_collection(data, config.data, documents.manifest.show)
    check_same_data(documents, collection.documents, data)
    check_same_data(queries, collection.queries, data)
    qrels = without_removed(judgements(collection, config.data.eval_split), documents)
    use_torch(config)
    return judge_stores(config, queries, documents, qrels, collection.itself, views, round_number)


def judgements(collection: Collection, split: str) -> Qrels:
    """The judgements of a split; an InputError where nothing in it can be found."""
    qrels = collection.judged(split)
    if not any(map(relevant, qrels.values())):
        raise InputError(f"{collection.source}: split {split!r}: no score above 0: nothing can be found")
    return qrels


def without_removed(qrels: Qrels, documents: EmbeddingStore) -> Qrels:
    """Of documents that the store still has; a query none of whose answers it has is not judged, which is said."""
    if not documents.removed:
        return qrels
    kept = {query: {d: g for d, g in judged.items() if d not in documents.removed} for query, judged in qrels.items()}
    found = {query: judged for query, judged in kept.items() if relevant(judged) or not relevant(qrels[query])}
    if len(found) < len(qrels):
        log.info("%d queries are not judged: their answers were removed from the store", len(qrels) - len(found))
    return found


def judge_stores(
    config: Config,
    queries: EmbeddingStore,
    documents: EmbeddingStore,
    qrels: Qrels,
    itself: Mapping[str, str],
    views: Sequence[View] = (),
    round_number: int | None = None,
) -> list[Row]:
    """The same of stores that are known to be of the judged data; `itself` as a collection's."""
    views = list(views) or documents.views()
    for view in views:
        documents.array_of(view)  # a wrong view is said before the first search
    rows: list[Row] = []
    for view in track(views, "judging", len(views)):
        run = search(queries, documents, view, config.eval.k, config.eval.gpu, set(qrels)).run()
        for query_id, name in itself.items():
            run.get(query_id, {}).pop(name, None)  # a query is no answer to itself
        vectors = documents.vectors_per_record(view)
        numbers = mean(per_query(run, qrels))
        numbers |= {"vectors_per_document": vectors, "bytes_per_document": view.bytes_per_document(vectors)}
        rows += [{"round": round_number, "view": str(view), "metric": m, "value": v} for m, v in numbers.items()]
    return rows


def chosen_views(config: Config) -> list[View]:
    return parse_views(config.eval.views)


def write_results(path: str | Path, rows: Sequence[Row], seed: int, **more: Any) -> None:
    """results.json: {"command", "commit", "seed", "rows"} and what else is known, written in one piece."""
    content = {"command": provenance.command(), "commit": provenance.commit(), "seed": seed, **more, "rows": rows}
    write_text(Path(path), json.dumps(content, indent=1))


def read_results(path: str | Path) -> dict[str, Any]:
    return json.loads(Path(path).read_text())
