"""mteb's SearchProtocol (2.26) over our stores: a submission measures what is served.

The corpus is encoded into a store, and searched at a view or by a funnel, exactly or by an index; a reranker may then
order what was found. Of lists that the task gives (`top_ranked`) only those documents are scored, exactly.
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from jaxtyping import Int
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models.model_meta import ModelMeta
from mteb.types import PromptType

from colmrl.configure import replace
from colmrl.data.records import Collection
from colmrl.errors import InputError
from colmrl.evaluation.mteb_records import documents_of, queries_of
from colmrl.evaluation.mteb_stores import TaskStores
from colmrl.evaluation.mteb_ways import Way
from colmrl.evaluation.reranking import score_all
from colmrl.reranking.candidates import Candidates
from colmrl.reranking.opening import Opened, open_judge
from colmrl.search import Asked, Ranking, open_searcher
from colmrl.search.building import build_indexes
from colmrl.search.rescoring import pair_scores
from colmrl.store import EmbeddingStore

log = logging.getLogger(__name__)
Run = dict[str, dict[str, float]]  # query id → document id → score, as mteb takes it


class StoreSearch:
    """`given`: settings of use that hold in place of the reranker's own (rerank.permutations, …)."""

    def __init__(self, stores: TaskStores, way: Way, meta: ModelMeta, given: Sequence[str] = ()):
        self._stores, self._way, self._given = stores, way, given
        self.mteb_model_meta = meta
        self._corpus: Dataset | None = None
        self._store: EmbeddingStore | None = None

    def index(
        self,
        corpus: Dataset,
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        encode_kwargs: Mapping[str, Any],
        num_proc: int | None = None,
        **_: Any,
    ) -> None:
        """Encoded now, or by the first search that needs it where only given lists are to be reranked."""
        self._corpus, self._store = corpus, None
        if self._way.reranker is None:
            self._encoded(task_metadata)

    def search(
        self,
        queries: Dataset,
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        top_k: int,
        encode_kwargs: Mapping[str, Any],
        top_ranked: Mapping[str, Sequence[str]] | None = None,
        num_proc: int | None = None,
        **_: Any,
    ) -> Run:
        assert self._corpus is not None, "mteb indexes first"
        if self._way.reranker is None:
            if top_ranked is None:
                return self._ranked(queries, task_metadata, top_k).run()
            return self._scored(queries, task_metadata, top_ranked, top_k)
        if top_ranked is None:
            run = self._ranked(queries, task_metadata, self._stores.config.rerank.top_k).run()
            top_ranked = {query: list(found) for query, found in run.items()}
        return self._reranked(queries, task_metadata, top_ranked, top_k)

    def _encoded(self, task: TaskMetadata) -> EmbeddingStore:
        if self._store is None:
            assert self._corpus is not None
            shown = self._stores.shown(task.get_modalities(PromptType.document))
            documents = documents_of(self._corpus, shown, self._stores.pictures)
            self._store = self._stores.encoded("documents", documents, task.name)
        return self._store

    def _asked(self, queries: Dataset, task: TaskMetadata) -> Asked:
        shown = self._stores.shown(task.get_modalities(PromptType.query))
        records = queries_of(queries, shown, self._stores.pictures)
        return Asked.of_store(self._stores.encoded("queries", records, task.name))

    def _ranked(self, queries: Dataset, task: TaskMetadata, k: int) -> Ranking:
        documents, config = self._encoded(task), self._stores.config
        if not self._way.is_plain:
            k = min(k, config.eval.k)  # deeper, an index or a funnel would look at more than it does when it serves
        settings = config.index
        searcher = open_searcher(
            documents, self._way.plan, settings.gpu, self._index(documents), settings.probes, settings.candidates
        )
        return searcher.rank(self._asked(queries, task), k)

    def _index(self, documents: EmbeddingStore) -> Path | None:
        if self._way.index is None or isinstance(self._way.index, Path):
            return self._way.index
        config = replace(self._stores.config, index={"type": self._way.index})
        store = documents.folder.parent
        (built,) = build_indexes(config, store, [self._way.plan.stages[0].view], store / "indexes")
        return built.folder

    def _scored(self, queries: Dataset, task: TaskMetadata, given: Mapping[str, Sequence[str]], k: int) -> Run:
        """Of the documents that the task gives for each query, the best `k` by their exact scores."""
        documents = self._encoded(task)
        asked, place = self._asked(queries, task), {name: row for row, name in enumerate(documents.ids)}
        found: Run = {}
        for row, query in enumerate(asked.ids):
            names = _given(given, query, place)
            positions: Int[np.ndarray, "1 c"] = np.array([[place[name] for name in names]], dtype=np.int64)
            scores = pair_scores(documents, self._way.plan.view, asked.rows([row]), positions)[0] if names else []
            best = sorted(zip(names, map(float, scores), strict=True), key=lambda pair: -pair[1])
            found[query] = dict(best[:k])
        return found

    @cached_property
    def _reranker(self) -> Opened:
        assert self._way.reranker is not None
        return open_judge(self._way.reranker, self._stores.config, self._given)

    def _reranked(self, queries: Dataset, task: TaskMetadata, given: Mapping[str, Sequence[str]], k: int) -> Run:
        """Of the same the best `k` by the reranker; its scores are kept, query by query, for a run that goes on."""
        assert self._corpus is not None
        pictures = self._stores.pictures
        asked = queries_of(queries, task.get_modalities(PromptType.query), pictures)
        documents = documents_of(self._corpus, task.get_modalities(PromptType.document), pictures)
        of = {query: tuple(_given(given, query, documents.position)) for query in asked.ids}
        lists = {query: names for query, names in of.items() if names}
        candidates = Candidates("retrieval", task.name, lists, None, {query: {} for query in lists})
        opened = self._reranker
        kept = hashlib.sha256(json.dumps([opened.stamp, list(lists.items())]).encode()).hexdigest()[:16]
        path = self._stores.task_folder(task.name) / f"reranked-{kept}.jsonl"
        collection = Collection(task.name, documents, asked, {})
        scores, _ = score_all(opened.reranker, candidates, collection, path, opened.stamp)
        found: Run = {query: {} for query in of}
        for query, names in lists.items():
            best = sorted(zip(names, scores[query], strict=True), key=lambda pair: -pair[1])
            found[query] = dict(best[:k])
        return found


def _given(given: Mapping[str, Sequence[str]], query: str, known: Mapping[str, int]) -> list[str]:
    """The documents that a query's list names, once each; mteb too passes over a query without a list."""
    names = list(dict.fromkeys(given.get(query, ())))
    unknown = next((name for name in names if name not in known), None)
    if unknown is not None:
        raise InputError(f"the list to rerank of query {query!r}: document {unknown!r} is not in the corpus: mend it")
    return names
