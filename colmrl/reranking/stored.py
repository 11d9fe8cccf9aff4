"""A bi-encoder as a reranker: exact scores of candidates at a view of a store, to be compared on the same lists."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from colmrl.data.records import Document, Query
from colmrl.errors import InputError
from colmrl.search import Asked
from colmrl.search.rescoring import pair_scores
from colmrl.store import EmbeddingStore
from colmrl.view import View


def is_store(folder: str | Path) -> bool:
    return (Path(folder) / "documents").is_dir()


class StoreReranker:
    """`view`: None for the store's first."""

    def __init__(self, store: str | Path, view: str | None = None):
        store = Path(store)
        self.documents, self.queries = EmbeddingStore(store / "documents"), EmbeddingStore(store / "queries")
        self.view = View.parse(view) if view else self.documents.views()[0]
        self.documents.array_of(self.view)
        self.name = f"{store} at {self.view}"
        self._document_row = {name: row for row, name in enumerate(self.documents.ids)}
        self._query_row = {name: row for row, name in enumerate(self.queries.ids)}

    def score(self, query: Query, documents: Sequence[Document]) -> Float[np.ndarray, " d"]:
        if query.id not in self._query_row:
            raise InputError(f"{self.queries.folder}: query {query.id!r} is not there: encode the data that is judged")
        missing = next((one.id for one in documents if one.id not in self._document_row), None)
        if missing is not None:
            raise InputError(f"{self.documents.folder}: document {missing!r} is not there: encode the data again")
        asked = Asked.of_store(self.queries, [self._query_row[query.id]])
        rows = np.array([[self._document_row[one.id] for one in documents]], dtype=np.int64)
        return pair_scores(self.documents, self.view, asked, rows)[0].astype(np.float32)
