"""`Retriever`: a checkpoint as notebooks use it, `from_pretrained`, `encode_queries`, `encode_documents`, `similarity`.

It holds a `models.retriever.Retriever` (`.model`), which is an nn.Module, and is none itself: what it needs (encoding
in batches, records, views as a store reads them) is built on the model and may not be imported by it; and so a module's
`forward`, `parameters` and 40 other names do not stand between `encode_queries` and `similarity`.
Letters: q queries, d documents, h dims.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from colmrl.api import views
from colmrl.api.records import DocumentInput, QueryInput, as_documents, as_queries
from colmrl.api.views import Vectors
from colmrl.encoding import embed
from colmrl.errors import InputError
from colmrl.models.backbone import DTYPES
from colmrl.models.retriever import Embeddings
from colmrl.models.retriever import Retriever as Model
from colmrl.search import Asked
from colmrl.view import View, parse_views

Embedded = Vectors | dict[str, Vectors]
_DTYPES = DTYPES | {str(dtype).removeprefix("torch."): dtype for dtype in DTYPES.values()}


class Retriever:
    """Embeds queries and documents (texts, pictures, both) at any view, with both heads of a checkpoint.

    Args:
        model: the nn.Module; `Retriever.from_pretrained` opens one.
    """

    def __init__(self, model: Model):
        self.model = model.eval()

    @classmethod
    def from_pretrained(
        cls, path: str | Path, device: str | torch.device | None = None, dtype: str | torch.dtype | None = None
    ) -> "Retriever":
        """Open whatever `colmrl encode --checkpoint` takes.

        Args:
            path: the checkpoint.
            device: "cpu", "cuda", "cuda:1", …; None: a GPU where there is one.
            dtype: of the backbone's weights, "bf16", "fp16" or "fp32" (torch's names too); None: the checkpoint's own.
                Heads and LoRA adapters stay in fp32.
        """
        wanted = None if dtype is None else _dtype(dtype)
        model = Model.load(path)
        if wanted is not None:
            _cast(model, wanted)
        return cls(model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")))

    @property
    def device(self) -> torch.device:
        """Where the model is. Embeddings are always given on the CPU."""
        return self.model.device

    @property
    def views(self) -> list[str]:
        """What it was trained for, the largest of each head first; numbers of vectors and precisions go with them."""
        trained = self.model.description.trained
        dims = {"single": trained.single_dims, "multi": trained.multi_dims}
        return [f"{head}@{dim}" for head, all_dims in dims.items() for dim in sorted(all_dims, reverse=True)]

    def encode_queries(
        self,
        queries: QueryInput | Sequence[QueryInput],
        view: str | View | Sequence[str] | None = None,
        batch_size: int = 32,
        convert_to_numpy: bool = False,
    ) -> Any:
        """Embeddings of queries, as search takes them: cut to the view's dim; never pooled or rounded.

        Args:
            queries: one, or a list of: a text, a `PIL.Image`, a `pathlib.Path` of a picture, a dict of `text` and
                `image`, a `Query`.
            view: e.g. "multi@128"; a list of them gives a dict, from one forward pass. None: the first of `views`.
            batch_size: records a forward pass; it changes speed alone.
            convert_to_numpy: arrays in the place of tensors.

        Returns:
            Of a single view a tensor [queries, dim]; of a multi view a list of tensors [vectors, dim]. For one query
            the one vector, or the one tensor of vectors. fp32, on the CPU, normalised.
        """
        records, alone = as_queries(queries)
        chosen = self._views(view)
        embedded = self._embed("queries", records, batch_size)
        asked = Asked.of_embeddings([record.id for record in records], embedded) if records else None

        def at(one: View) -> Vectors:
            if asked is None:
                return views.nothing(one)
            if one.head == "single":
                return torch.from_numpy(asked.single_at(one))
            return asked.multi_at(one).unpack()

        return _given({str(one): at(one) for one in chosen}, view, alone, convert_to_numpy)

    def encode_documents(
        self,
        documents: DocumentInput | Sequence[DocumentInput],
        view: str | View | Sequence[str] | None = None,
        batch_size: int = 32,
        convert_to_numpy: bool = False,
    ) -> Any:
        """Embeddings of documents, as a store that keeps both heads in full gives them at the view: cut to its dim,
        pooled to its number of vectors (Ward, see docs/store.md), rounded to its precision and back to fp32.

        Args:
            documents: one, or a list of: a text, the path of a picture, a `PIL.Image`, a dict of `text`, `title` and
                `image` (one, or a list), a `Document`. A text that ends as picture files do is a path.
            view, batch_size, convert_to_numpy: as of `encode_queries`.

        Returns:
            As `encode_queries`.
        """
        records, alone = as_documents(documents)
        chosen = self._views(view)
        embedded = self._embed("documents", records, batch_size)
        weight = self.model.description.multi.position_weight
        made = {str(one): views.read_at(embedded, one, weight) if records else views.nothing(one) for one in chosen}
        return _given(made, view, alone, convert_to_numpy)

    def similarity(self, queries: Any, documents: Any, view: str | View | None = None) -> Float[Tensor, "q d"]:
        """Scores of all pairs: dot products of single vectors, MaxSim of multi-vectors, averaged over the query's
        vectors (late-interaction libraries add them up: as many times more, the same order).

        Args:
            queries: embeddings as `encode_queries` gives them; arrays are taken too.
            documents: embeddings as `encode_documents` gives them.
            view: cut both to it first, and round the documents; pooling needs to know where patches are, so it is done
                when documents are encoded. None: as they are.
        """
        return views.scores(queries, documents, View.parse(str(view)) if view is not None else None)

    def _views(self, view: str | View | Sequence[str] | None) -> list[View]:
        trained = self.model.description.trained
        if view is None:
            return trained.full()[:1]
        chosen = [View.parse(str(view))] if isinstance(view, str | View) else parse_views(map(str, view))
        for one in chosen:
            trained.check(one)
        return chosen

    def _embed(self, kind: Any, records: Sequence[Any], batch_size: int) -> Embeddings:
        return embed(self.model, kind, records, batch_size) if records else Embeddings(None, None)

    def __repr__(self) -> str:
        model = self.model.description.model
        return f"Retriever({model.backbone!r}, views={self.views}, device={str(self.device)!r})"


def _dtype(name: str | torch.dtype) -> torch.dtype:
    wanted = name if isinstance(name, torch.dtype) else _DTYPES.get(name)
    if wanted is None or wanted not in _DTYPES.values():
        raise InputError(f"dtype: {name}: unknown: give {', '.join(DTYPES)}")
    return wanted


def _cast(model: Model, dtype: torch.dtype) -> None:
    for name, parameter in model.backbone.named_parameters():  # not .to(): buffers, e.g. of positions, stay precise
        if parameter.is_floating_point() and "lora_" not in name:
            parameter.data = parameter.data.to(dtype)


def _given(made: Mapping[str, Vectors], view: Any, alone: bool, convert_to_numpy: bool) -> Any:
    """In the form that was asked for: of one view or several, of one record or a list."""
    found: dict[str, Any] = {name: vectors[0] if alone else vectors for name, vectors in made.items()}
    if convert_to_numpy:
        found = {name: _numpy(vectors) for name, vectors in found.items()}
    several = view is not None and not isinstance(view, str | View)
    return found if several else next(iter(found.values()))


def _numpy(vectors: Vectors) -> np.ndarray | list[np.ndarray]:
    return vectors.numpy() if isinstance(vectors, Tensor) else [one.numpy() for one in vectors]
