"""A query, a text or a picture, encoded by the checkpoint of a store, searched in it and, where asked for, reranked;
what comes out as files.
"""

import json
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from colmrl.checking.measuring import shown
from colmrl.checking.sheet import sheet_of_ranks
from colmrl.config import Config
from colmrl.data.fingerprint import record_hash
from colmrl.data.reading import read_collection
from colmrl.data.records import Collection, Document, Query
from colmrl.database import Address, open_database
from colmrl.database.address import is_database
from colmrl.encoding import embed
from colmrl.errors import InputError
from colmrl.files import write_text, write_whole
from colmrl.models.retriever import Embeddings, Retriever, fingerprint, read_description
from colmrl.reranking.opening import Opened, open_judge
from colmrl.runtime import use_torch
from colmrl.search import Asked, Plan, Ranking, Searcher
from colmrl.search.exact import HELD_BYTES
from colmrl.search.index_files import read_facts
from colmrl.search.searcher import Finder, open_first, staged
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
    """Ranked documents, the best first, and all that is needed to explain them. `how`: by what they are ranked; `ms`:
    what it took to open the view (once), encode, search and rerank.
    """

    query: Query
    embedded: Embeddings
    plan: Plan
    how: str
    results: list[Result]
    model: Retriever
    documents: EmbeddingStore
    ms: Mapping[str, float] = field(default_factory=dict)


class Answerer:
    """A store with its model, its data and a reranker, opened when first needed and asked any number of times; by one
    thread at a time, save for `record`.

    `checkpoint`, and the data (data.path): None for where they were when the store was made. InputError where either is
    another now. `rerank`: a reranker for the first `rerank.top_k` (at least `k`), with its settings of use that were
    `given`.
    """

    def __init__(
        self,
        config: Config,
        store: str | Path,
        checkpoint: str | Path | None = None,
        rerank: str | None = None,
        given: Sequence[str] = (),
    ):
        self._config, self._rerank, self._given = config, rerank, given
        self.documents = EmbeddingStore(Path(store) / "documents")
        self._checkpoint = Path(checkpoint or self.documents.manifest.checkpoint)
        self._reading = threading.Lock()  # of one file, by seek and read
        self._finders: dict[tuple[View, Path | None], tuple[Finder, int]] = {}  # and bytes held, the last used last

    @cached_property
    def model(self) -> Retriever:
        return _load(self._config, self.documents, self._checkpoint)

    @cached_property
    def collection(self) -> Collection:
        manifest = self.documents.manifest
        return read_collection(self._config.data.path or manifest.data, self._config.data, manifest.show)

    @cached_property
    def judge(self) -> Opened | None:
        """The reranker."""
        if self._rerank is None:
            return None
        if (Path(self._rerank) / "documents").is_dir():
            remedy = "give a reranker's checkpoint, or search by a funnel (--view)"
            raise InputError(f"--rerank {self._rerank}: a store: {remedy}")
        return open_judge(self._rerank, self._config, self._given)

    def encode(self, query: Query) -> Embeddings:
        return embed(self.model, "queries", [query], 1)

    def ask(
        self,
        query: Query,
        plan: Plan,
        k: int,
        index: Path | None = None,
        embedded: Embeddings | None = None,
        rerank: bool = True,
        searcher: Searcher | None = None,
    ) -> Answer:
        """`embedded`: what `encode` gave for the query; `rerank`: by the reranker, where there is one; `searcher`: of
        the plan, where it is not the store or an index that is searched.
        """
        clock = _Clock()
        searcher = searcher or self._searcher(plan, index)
        clock.lap("open")
        embedded = embedded or self.encode(query)
        clock.lap("encode")
        judged = rerank and self._rerank is not None
        depth = max(k, self._config.rerank.top_k) if judged else k
        ranking = searcher.rank(Asked.of_embeddings([query.id], embedded), depth)
        clock.lap("search")
        results, how = self._results(ranking), str(plan)
        if judged and self.judge:
            clock.lap()
            results = self._reranked(self.judge, query, results)[:k]
            clock.lap("rerank")
            how = f"{plan}, reranked by {self.judge.reranker.name}"
        return Answer(query, embedded, plan, how, results, self.model, self.documents, clock.laps)

    def record(self, row: int) -> Document:
        """A document of the store, which must be what was encoded."""
        name, documents = self.documents.ids[row], self.collection.documents
        with self._reading:
            record = documents.named(name) if name in documents.position else None
        if record is None or record_hash(record) != self._stated[name][1]:
            said = "is another document now" if record else "is not there"
            data = self._config.data.path or self.documents.manifest.data
            raise InputError(f"{data}: {name!r} {said}: give the data that the store was encoded from (data.path)")
        return record

    @cached_property
    def _stated(self) -> Mapping[str, tuple[int, str]]:
        return live_rows(self.documents.folder, self.documents.manifest)

    def _searcher(self, plan: Plan, index: Path | None) -> Searcher:
        """By a first stage that stays open as long as all that are hold no more than `HELD_BYTES`."""
        for stage in plan.stages:
            self.documents.array_of(stage.view)
        settings, view = self._config.index, plan.stages[0].view
        found = self._finders.pop((view, index), None)
        if found is None:
            size = read_facts(index)[0].bytes if index else 4 * view.dim * len(self.documents)
            finder = open_first(self.documents, view, settings.gpu, index, settings.probes, settings.candidates)
            found = finder, size if index or view.head == "single" else 0  # multi-vectors are read where they lie
        self._finders[view, index] = found
        while len(self._finders) > 1 and sum(size for _, size in self._finders.values()) > HELD_BYTES:
            del self._finders[next(iter(self._finders))]
        return staged(self.documents, plan, found[0], settings.gpu, settings.candidates)

    def _results(self, ranking: Ranking) -> list[Result]:
        """Of the first query."""
        found = [(int(row), float(score)) for row, score in zip(ranking.positions[0], ranking.scores[0], strict=True)]
        return [
            Result(rank, score, row, self.record(row))
            for rank, (row, score) in enumerate([one for one in found if one[0] >= 0], 1)
        ]

    def _reranked(self, opened: Opened, query: Query, results: list[Result]) -> list[Result]:
        """By the reranker's scores (equal ones as they were found)."""
        config, manifest = self._config, self.documents.manifest
        records = [result.document for result in results]
        if opened.show not in (None, manifest.show):
            shown_its_way = read_collection(config.data.path or manifest.data, config.data, opened.show)
            records = [shown_its_way.documents.named(record.id) for record in records]
        scores = map(float, opened.reranker.score(query, records))
        ranked = sorted(zip(scores, results, strict=True), key=lambda pair: -pair[0])
        return [replace(result, rank=rank, score=score) for rank, (score, result) in enumerate(ranked, 1)]


class _Clock:
    """Milliseconds between laps, by name."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str | None = None) -> None:
        """What passed since the last one; without a name it is nobody's."""
        now = time.perf_counter()
        if name:
            self.laps[name] = (now - self._last) * 1e3
        self._last = now


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
    wrote, or a database (`database.address`). The rest as `Answerer` takes it.
    """
    answerer = Answerer(config, store, checkpoint, rerank, given)
    plan = Plan.parse(view) if view is not None else None
    if index is not None and is_database(str(index)):
        address, settings = Address.parse(str(index)), config.index
        plan, searcher = open_database(
            answerer.documents, plan, address, gpu=settings.gpu, candidates=settings.candidates
        )
        return answerer.ask(query, plan, k, searcher=searcher)
    folder = Path(index) if index is not None else None
    plan = plan or Plan.of(View.parse(read_facts(folder)[0].view) if folder else answerer.documents.views()[0])
    return answerer.ask(query, plan, k, folder)


def answer_all(
    config: Config, store: str | Path, queries: Sequence[Query], plan: Plan, k: int, checkpoint: str | Path
) -> list[Answer]:
    """The same for several queries, by exact search; all is opened once."""
    searching = replace(config, index=replace(config.index, gpu=config.eval.gpu))
    answerer = Answerer(searching, store, checkpoint)
    return [answerer.ask(query, plan, k) for query in queries]


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


def _load(config: Config, documents: EmbeddingStore, checkpoint: Path) -> Retriever:
    read_description(checkpoint)  # where there is none, that is said
    if fingerprint(checkpoint) != documents.manifest.fingerprint:
        raise InputError(
            f"{checkpoint}: is not what {documents.folder} was encoded with: give that checkpoint (--checkpoint), or "
            "encode again"
        )
    return Retriever.load(checkpoint, config.attention_kernel).to(use_torch(config)).eval()
