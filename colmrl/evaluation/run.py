"""Judge a store at any list of views, from qrels."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from colmrl import provenance
from colmrl.config import Config
from colmrl.data.beir import read_corpus, read_qrels, read_queries
from colmrl.errors import InputError
from colmrl.evaluation.metrics import mean, per_query
from colmrl.progress import track
from colmrl.runtime import use_torch
from colmrl.search import search
from colmrl.store import EmbeddingStore
from colmrl.view import View, parse_views

log = logging.getLogger(__name__)

Row = dict[str, Any]  # {"round", "view", "metric", "value"}


def judge(config: Config, store: str | Path, views: Sequence[View] = (), round_number: int | None = None) -> list[Row]:
    """One row a number: every metric, bytes and vectors a document, for each view (none: all that the store keeps)."""
    store = Path(store)
    documents, queries = EmbeddingStore(store / "documents"), EmbeddingStore(store / "queries")
    data = config.data.eval_path or config.data.path or documents.manifest.data
    ids = {q.id for q in read_queries(data, config.data.strict)}, {d.id for d in read_corpus(data, config.data.strict)}
    if ids != (set(queries.ids), set(documents.ids)):
        raise InputError(f"{store}: holds other records than {data}: give the data it was encoded from (data.path)")
    qrels = read_qrels(data, config.data.eval_split, *ids, config.data.strict)
    views = list(views) or documents.views()
    for view in views:
        documents.array_of(view)  # a wrong view is said before the first search
    use_torch(config)
    rows: list[Row] = []
    for view in track(views, "judging", len(views)):
        run = search(store, view, config.eval.k, config.eval.gpu).run(set(qrels))
        vectors = documents.vectors_per_record(view)
        numbers = mean(per_query(run, qrels))
        numbers |= {"vectors_per_document": vectors, "bytes_per_document": view.bytes_per_document(vectors)}
        rows += [{"round": round_number, "view": str(view), "metric": m, "value": v} for m, v in numbers.items()]
    return rows


def chosen_views(config: Config) -> list[View]:
    return parse_views(config.eval.views)


def write_results(path: str | Path, rows: Sequence[Row], seed: int, **more: Any) -> None:
    """results.json: {"command", "commit", "seed", "rows"} and what else is known, written in one piece."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"command": provenance.command(), "commit": provenance.commit(), "seed": seed, **more, "rows": rows}
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=1))
    partial.replace(path)


def read_results(path: str | Path) -> dict[str, Any]:
    return json.loads(Path(path).read_text())
