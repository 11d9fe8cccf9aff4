"""A query, a text or a picture, encoded by the checkpoint of a store, searched in it and, where asked for, reranked;
what comes out as files.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from colmrl.checking.measuring import shown
from colmrl.checking.sheet import sheet_of_ranks
from colmrl.config import Config
from colmrl.data.fingerprint import record_hash
from colmrl.data.reading import read_collection
from colmrl.data.records import Document, Query
from colmrl.database import Address, open_database
from colmrl.database.address import is_database
from colmrl.encoding import embed
from colmrl.errors import InputError
from colmrl.files import write_text, write_whole
from colmrl.models.retriever import Embeddings, Retriever, fingerprint, read_description
from colmrl.reranking.opening import open_judge
from colmrl.runtime import use_torch
from colmrl.search import Asked, Plan, Ranking, Searcher, open_searcher
from colmrl.search.index_files import read_facts
from colmrl.store import EmbeddingStore
from colmrl.store.writer import live_rows
from colmrl.view import View

_WORDS = 90  # characters of a document's text in the table


@dataclass(frozen=True)
class Result:
    """`row`: of the store."""

    rank: int
    score: float
    row: int
    document: Document

    @property
    def first_words(self) -> str:
        return first_words(self.document)


def first_words(record: Document | Query) -> str:
    """Of its text; where it has none, its first picture's file name."""
    said = record.body if isinstance(record, Document) else record.text
    text = " ".join(said.split()) or "".join(Path(image).name for image in record.images[:1])
    return text if len(text) <= _WORDS else text[: _WORDS - 1].rstrip() + "…"


@dataclass(frozen=True)
class Answer:
    """Ranked documents, the best first, and all that is needed to explain them. `how`: by what they are ranked."""

    query: Query
    embedded: Embeddings
    plan: Plan
    how: str
    results: list[Result]
    model: Retriever
    documents: EmbeddingStore


def answer(
    config: Config,
    store: str | Path,
    query: Query,
    view: str | None = None,
    index: str | Path | None = None,
    k: int = 10,
    checkpoint: str | Path | None = None,
    rerank: str | None = None,
    given: Sequence[str] = (),
) -> Answer:
    """`view` may be a funnel; None: what the index is of, or the store's first. `index`: a folder that colmrl index
    wrote, or the address of a database (`database.address`). `checkpoint`, and the data: None for
    where they were when the store was made. Raises InputError where either is another now. `rerank`: a reranker for the
    first `rerank.top_k` (at least `k`), with its settings of use that were `given`.
    """
    documents = EmbeddingStore(Path(store) / "documents")
    plan, searcher = _opened(config, documents, view, index)
    model = _load(config, documents, Path(checkpoint or documents.manifest.checkpoint))
    embedded = embed(model, "queries", [query], 1)
    depth = max(k, config.rerank.top_k) if rerank else k
    ranking = searcher.rank(Asked.of_embeddings([query.id], embedded), depth)
    results = _results(config, documents, ranking)
    if rerank is None:
        return Answer(query, embedded, plan, str(plan), results, model, documents)
    name, results = _reranked(config, rerank, given, query, results, documents)
    return Answer(query, embedded, plan, f"{plan}, reranked by {name}", results[:k], model, documents)


def _opened(
    config: Config, documents: EmbeddingStore, view: str | None, index: str | Path | None
) -> tuple[Plan, Searcher]:
    settings = config.index
    plan = Plan.parse(view) if view is not None else None
    if index is not None and is_database(str(index)):
        address = Address.parse(str(index))
        return open_database(documents, plan, address, gpu=settings.gpu, candidates=settings.candidates)
    index = Path(index) if index is not None else None
    if plan is None:
        plan = Plan.of(View.parse(read_facts(index)[0].view) if index else documents.views()[0])
    return plan, open_searcher(documents, plan, settings.gpu, index, settings.probes, settings.candidates)


def answer_all(
    config: Config, store: str | Path, queries: Sequence[Query], plan: Plan, k: int, checkpoint: str | Path
) -> list[Answer]:
    """The same for several queries, by exact search; the model is opened once."""
    documents = EmbeddingStore(Path(store) / "documents")
    searcher = open_searcher(documents, plan, config.eval.gpu)
    model = _load(config, documents, Path(checkpoint))
    answers = []
    for query in queries:
        embedded = embed(model, "queries", [query], 1)
        ranking = searcher.rank(Asked.of_embeddings([query.id], embedded), k)
        results = _results(config, documents, ranking)
        answers.append(Answer(query, embedded, plan, str(plan), results, model, documents))
    return answers


def write_answer(answered: Answer, out: Path) -> str:
    """`results.jsonl` and the contact sheet `sheet.png`; returns which characters no font has."""
    query = {"text": answered.query.text, "images": list(answered.query.images)}
    lines = [
        {
            "query": query,
            "view": answered.how,
            "rank": r.rank,
            "score": r.score,
            "id": r.document.id,
            "text": r.document.body,
            "images": list(r.document.images),
        }
        for r in answered.results
    ]
    write_text(out / "results.jsonl", "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    model = answered.model.description.model
    cells = [(f"{r.rank}  {r.score:.4f}  {r.document.id}", *shown(r.document, model)) for r in answered.results]
    asked = " ".join([answered.query.text, *(Path(image).name for image in answered.query.images)]).strip()
    sheet, missing = sheet_of_ranks(cells, f"{asked}   {answered.how}")
    write_whole(out / "sheet.png", lambda partial: sheet.save(partial, format="PNG"))
    return missing


def _results(config: Config, documents: EmbeddingStore, ranking: Ranking) -> list[Result]:
    """Of the first query."""
    found = [(int(row), float(score)) for row, score in zip(ranking.positions[0], ranking.scores[0], strict=True)]
    found = [(row, score) for row, score in found if row >= 0]
    records = _records(config, documents, [row for row, _ in found])
    return [
        Result(rank, score, row, record)
        for rank, ((row, score), record) in enumerate(zip(found, records, strict=True), 1)
    ]


def _reranked(
    config: Config,
    folder: str,
    given: Sequence[str],
    query: Query,
    results: list[Result],
    documents: EmbeddingStore,
) -> tuple[str, list[Result]]:
    """The reranker's name, and the results by its scores (equal ones as they were found)."""
    if (Path(folder) / "documents").is_dir():
        raise InputError(f"--rerank {folder}: a store: give a reranker's checkpoint, or search by a funnel (--view)")
    opened, manifest = open_judge(folder, config, given), documents.manifest
    records = [result.document for result in results]
    if opened.show not in (None, manifest.show):
        shown_its_way = read_collection(config.data.path or manifest.data, config.data, opened.show)
        records = [shown_its_way.documents.named(record.id) for record in records]
    scores = map(float, opened.reranker.score(query, records))
    ranked = sorted(zip(scores, results, strict=True), key=lambda pair: -pair[0])
    return opened.reranker.name, [
        replace(result, rank=rank, score=score) for rank, (score, result) in enumerate(ranked, 1)
    ]


def _load(config: Config, documents: EmbeddingStore, checkpoint: Path) -> Retriever:
    read_description(checkpoint)  # where there is none, that is said
    if fingerprint(checkpoint) != documents.manifest.fingerprint:
        raise InputError(
            f"{checkpoint}: is not what {documents.folder} was encoded with: give that checkpoint (--checkpoint), or "
            "encode again"
        )
    return Retriever.load(checkpoint, config.attention_kernel).to(use_torch(config)).eval()


def _records(config: Config, documents: EmbeddingStore, rows: list[int]) -> list[Document]:
    """The documents that are shown, which must be what was encoded."""
    manifest = documents.manifest
    data = config.data.path or manifest.data
    collection, stated = read_collection(data, config.data, manifest.show), live_rows(documents.folder, manifest)
    records = []
    for name in (documents.ids[row] for row in rows):
        there = name in collection.documents.position
        record = collection.documents.named(name) if there else None
        if record is None or record_hash(record) != stated[name][1]:
            said = "is another document now" if there else "is not there"
            raise InputError(f"{data}: {name!r} {said}: give the data that the store was encoded from (data.path)")
        records.append(record)
    return records
