"""BM25 (see `baselines`) as mteb's SearchProtocol (2.26): what a model must beat, on the texts that a task shows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models.model_meta import ModelMeta

from colmrl.evaluation.baselines import Bm25
from colmrl.evaluation.mteb_records import documents_of, queries_of
from colmrl.evaluation.mteb_stores import TaskStores

_REVISION = "lucene-k1-1.2-b-0.75"
_NOT_SAID = ("release_date", "languages", "n_parameters", "memory_usage_mb", "max_tokens", "embed_dim", "license")
_NOT_SAID += ("public_training_code", "public_training_data", "similarity_fn_name", "training_datasets")


class Bm25Search:
    def __init__(self, stores: TaskStores):
        self._pictures = stores.pictures
        self._index, self._ids = Bm25([]), list[str]()
        known = {"loader": None, "name": "colmrl/bm25", "revision": _REVISION, "framework": ["NumPy"]}
        known |= {"model_type": ["sparse"], "open_weights": None, "use_instructions": False}
        self.mteb_model_meta = ModelMeta.model_validate({**dict.fromkeys(_NOT_SAID), **known})

    def index(self, corpus: Dataset, *, task_metadata: TaskMetadata, **_: Any) -> None:
        documents = documents_of(corpus, ["text"], self._pictures)
        self._index, self._ids = Bm25(document.body for document in documents), list(documents.ids)

    def search(
        self,
        queries: Dataset,
        *,
        task_metadata: TaskMetadata,
        top_k: int,
        top_ranked: Mapping[str, Sequence[str]] | None = None,
        **_: Any,
    ) -> dict[str, dict[str, float]]:
        """Documents that share a word with the query; of given lists, all."""
        found: dict[str, dict[str, float]] = {}
        place = {name: row for row, name in enumerate(self._ids)}
        for query in queries_of(queries, ["text"], self._pictures):
            scores = self._index.scores(query.text)
            rows = np.flatnonzero(scores) if top_ranked is None else [place[n] for n in top_ranked.get(query.id, ())]
            best = sorted(map(int, rows), key=lambda row: -scores[row])[:top_k]
            found[query.id] = {self._ids[row]: float(scores[row]) for row in best}
        return found
