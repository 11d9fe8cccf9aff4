"""mteb's EncoderProtocol (2.26) at one view: mteb itself searches, and any task that takes an encoder can be judged.

single: a normalised prefix, compared by cosine. multi: a list of arrays, one a record, compared by MaxSim; documents
pooled as the view says, queries with all their vectors. Vectors come from the same stores as those of StoreSearch.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Float
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models.model_meta import ModelMeta
from mteb.types import PromptType
from torch import Tensor
from torch.utils.data import DataLoader

from colmrl.evaluation.mteb_records import documents_of, queries_of
from colmrl.evaluation.mteb_stores import TaskStores
from colmrl.scoring import MultiVectors, dot, maxsim, truncate
from colmrl.search import Asked
from colmrl.view import View

Array = np.ndarray | Tensor
Items = Array | Sequence[Array]  # one vector a record; or of multi-vectors a list, or an array that none is padded in


class ViewEncoder:
    def __init__(self, stores: TaskStores, view: View, meta: ModelMeta):
        self._stores, self._view = stores, view
        stores.description.trained.check(view)
        self.mteb_model_meta = meta

    def encode(
        self,
        inputs: DataLoader[Any],
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        **_: Any,
    ) -> Float[np.ndarray, "n d"] | list[Float[Tensor, "_ d"]]:
        """Of the loader's rows, in their order; as queries where mteb says so, else as documents."""
        rows = inputs.dataset
        assert isinstance(rows, Dataset)
        shown, pictures = self._stores.shown(task_metadata.get_modalities(prompt_type)), self._stores.pictures
        if prompt_type == PromptType.query:
            queries = queries_of(rows, shown, pictures)
            store = self._stores.encoded("queries", queries, task_metadata.name)
            asked = Asked.of_store(store, _places(store.ids, queries.ids))
            single = self._view.head == "single"
            return asked.single_at(self._view) if single else asked.multi_at(self._view).unpack()
        documents = documents_of(rows, shown, pictures)
        store = self._stores.encoded("documents", documents, task_metadata.name)
        order = _places(store.ids, documents.ids)
        if self._view.head == "single":
            return store.single_rows(self._view, order)
        return store.multi_rows(self._view, order).unpack()

    def similarity(self, embeddings1: Items, embeddings2: Items) -> Float[Tensor, "a b"]:
        if self._view.head == "single":
            return dot(_unit(embeddings1), _unit(embeddings2))
        return maxsim(_packed(embeddings1), _packed(embeddings2))

    def similarity_pairwise(self, embeddings1: Items, embeddings2: Items) -> Float[Tensor, " n"]:
        if self._view.head == "single":
            return (_unit(embeddings1) * _unit(embeddings2)).sum(-1)
        pairs = zip(_packed(embeddings1).unpack(), _packed(embeddings2).unpack(), strict=True)
        return torch.stack([maxsim(MultiVectors.pack([a]), MultiVectors.pack([b]))[0, 0] for a, b in pairs])


def _places(kept: Sequence[str], wanted: Sequence[str]) -> list[int]:
    place = {name: row for row, name in enumerate(kept)}
    return [place[name] for name in wanted]


def _unit(vectors: Items) -> Float[Tensor, "n d"]:
    """mteb may hand in one vector, or means of several, which are no longer of length one."""
    found = torch.as_tensor(np.asarray(vectors), dtype=torch.float32)
    return truncate(found.reshape(-1, found.shape[-1]), found.shape[-1])


def _packed(items: Items) -> MultiVectors:
    """A list of records, an array of them, or one record."""
    parts = [torch.as_tensor(item, dtype=torch.float32) for item in items]
    return MultiVectors.pack(parts if parts[0].ndim == 2 else [torch.stack(parts)])
