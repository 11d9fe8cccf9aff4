"""Judge a store at any list of views, from qrels."""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colmrl import provenance
from colmrl.config import Config
from colmrl.data.reading import read_collection
from colmrl.data.records import Collection, Qrels, relevant
from colmrl.errors import InputError
from colmrl.evaluation.metrics import mean, per_query
from colmrl.files import read_json, write_text
from colmrl.progress import track
from colmrl.reranking.runs import write_run
from colmrl.runtime import use_torch
from colmrl.search import search
from colmrl.store import EmbeddingStore, check_same_data
from colmrl.view import View, parse_views

log = logging.getLogger(__name__)
Row = dict[str, Any]  # {"round", "view", "metric", "value"}


@dataclass(frozen=True)
class Task:
    """A store and what it is judged by; `itself` as a collection's."""

    documents: EmbeddingStore
    queries: EmbeddingStore
    qrels: Qrels
    itself: Mapping[str, str]

    @property
    def facts(self) -> dict[str, Any]:
        """Numbers of the same facts can be compared."""
        return facts_of(self.qrels, len(self.documents))


@dataclass(frozen=True)
class JudgedView:
    """`each`: query id → metric → value; `size`: vectors and bytes a document."""

    view: View
    each: dict[str, dict[str, float]]
    size: dict[str, float]

    def rows(self, round_number: int | None = None) -> list[Row]:
        """One row a number."""
        numbers = mean(self.each) | self.size
        return [{"round": round_number, "view": str(self.view), "metric": m, "value": v} for m, v in numbers.items()]


def judge(config: Config, store: str | Path, views: Sequence[View] = (), round_number: int | None = None) -> list[Row]:
    """One row a number: every metric, bytes and vectors a document, for each view (none: all that the store keeps)."""
    return [row for one in judge_views(config, open_task(config, store), views) for row in one.rows(round_number)]


def open_task(config: Config, store: str | Path) -> Task:
    """InputError where the data is not what was encoded."""
    store = Path(store)
    documents, queries = EmbeddingStore(store / "documents"), EmbeddingStore(store / "queries")
    data = config.data.eval_path or config.data.path or documents.manifest.data
    collection = read_collection(data, config.data, documents.manifest.show)
    check_same_data(documents, collection.documents, data)
    check_same_data(queries, collection.queries, data)
    qrels = without_removed(judgements(collection, config.data.eval_split), documents)
    use_torch(config)
    return Task(documents, queries, qrels, collection.itself)


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


def judge_views(config: Config, task: Task, views: Sequence[View] = (), runs: Path | None = None) -> list[JudgedView]:
    """Each view (none: all that the store keeps). `runs`: a folder for what was found, a TREC run file a view."""
    views = list(views) or task.documents.views()
    for view in views:
        task.documents.array_of(view)  # a wrong view is said before the first search
    found: list[JudgedView] = []
    for view in track(views, "judging", len(views)):
        ranking = search(task.queries, task.documents, view, config.eval.k, config.eval.gpu, set(task.qrels))
        run = without_itself(ranking.run(), task.itself)
        if runs:
            write_run(runs / f"{view.slug}.trec", {query: ranked.items() for query, ranked in run.items()}, str(view))
        found.append(JudgedView(view, per_query(run, task.qrels), size_of(task.documents, view)))
    return found


def without_itself(run: dict[str, dict[str, float]], itself: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """A query is no answer to itself; `itself` as a collection's."""
    for query, name in itself.items():
        run.get(query, {}).pop(name, None)
    return run


def size_of(documents: EmbeddingStore, view: View) -> dict[str, float]:
    vectors = documents.vectors_per_record(view)
    return {"vectors_per_document": vectors, "bytes_per_document": view.bytes_per_document(vectors)}


def chosen_views(config: Config) -> list[View]:
    return parse_views(config.eval.views)


def write_results(path: str | Path, rows: Sequence[Row], seed: int, **more: Any) -> None:
    """results.json: {"command", "commit", "seed", "rows"} and what else is known, written in one piece."""
    content = {"command": provenance.command(), "commit": provenance.commit(), "seed": seed, **more, "rows": rows}
    write_text(Path(path), json.dumps(content, indent=1))


def read_results(path: str | Path) -> dict[str, Any]:
    return read_json(Path(path), "remove it, and judge again", ("rows",))


def facts_of(qrels: Qrels, documents: int) -> dict[str, Any]:
    """What was judged: how many queries and documents, and a hash of the judgements."""
    stated = json.dumps([documents, sorted((query, sorted(judged.items())) for query, judged in qrels.items())])
    digest = hashlib.sha256(stated.encode()).hexdigest()[:16]
    return {"queries": len(qrels), "documents": documents, "hash": digest}
