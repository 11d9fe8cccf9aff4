"""Vectors at a view, as a store gives them, and their scores. Letters: q queries, d documents, t vectors, h dims."""

import contextlib
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from colmrl.coding import code
from colmrl.errors import InputError
from colmrl.models.retriever import Embeddings
from colmrl.reduction import pool_records
from colmrl.scoring import MultiVectors, dot, maxsim, truncate
from colmrl.view import View

Vectors = Tensor | list[Tensor]  # of the single head [n, dim]; of the multi head [vectors, dim] a record


def read_at(embedded: Embeddings, view: View, position_weight: float) -> Vectors:
    """Documents at a view, bit for bit as `store.EmbeddingStore` reads it from what is kept in full."""
    if view.head == "single":
        assert embedded.single is not None
        return _rounded(truncate(embedded.single, embedded.single.shape[1]), view)
    assert embedded.multi is not None
    full = embedded.multi.truncate(embedded.multi.vectors.shape[1])
    vectors, offsets = full.vectors, full.offsets
    if view.vectors:
        positions = full.positions.numpy() if full.positions is not None else None
        pooled, ends = pool_records(
            vectors.numpy(), offsets.numpy(), view.vectors, positions, position_weight=position_weight
        )
        vectors, offsets = truncate(torch.from_numpy(pooled), view.dim), torch.from_numpy(ends)
    return list(_rounded(vectors, view).split(offsets.diff().tolist()))


def nothing(view: View) -> Vectors:
    """Of no records."""
    return torch.empty(0, view.dim) if view.head == "single" else []


def scores(queries: Any, documents: Any, view: View | None) -> Float[Tensor, "q d"]:
    """Of embeddings as they are given, or cut to a view."""
    asked, found = _embeddings(queries, "queries", view), _embeddings(documents, "documents", view)
    if isinstance(asked, MultiVectors) and isinstance(found, MultiVectors):
        _same_dim(asked.vectors, found.vectors)
        return maxsim(asked, found)
    if isinstance(asked, Tensor) and isinstance(found, Tensor):
        _same_dim(asked, found)
        return dot(asked, found)
    raise InputError("similarity: single vectors and multi-vectors: encode both at one view")


def _same_dim(queries: Float[Tensor, "q h"], documents: Float[Tensor, "d m"]) -> None:
    if queries.shape[1] != documents.shape[1]:
        sizes = f"{queries.shape[1]} dims and {documents.shape[1]}"
        raise InputError(f"similarity: queries and documents have {sizes}: encode both at one view, or give view=")


def _embeddings(given: Any, name: str, view: View | None) -> Tensor | MultiVectors:
    """Packed, and at the view; one vector of the single head, or one item of the multi head, is a list of one."""
    if isinstance(given, list | tuple) and given and all(_tensor(one).ndim == 2 for one in given):
        items = [_tensor(one) for one in given]
    elif isinstance(given, list | tuple) and given:
        return _single(torch.stack([_tensor(one) for one in given]), name, view)
    elif view is not None and view.head == "multi" and _tensor(given).ndim == 2:
        items = [_tensor(given)]
    else:
        return _single(_tensor(given), name, view)
    if view is None:
        return MultiVectors.pack(items)
    _check(view, "multi", items[0].shape[1], name)
    if name == "queries":
        return MultiVectors.pack(items).truncate(view.dim)
    most = max(map(len, items))
    if view.vectors and most > view.vectors:
        remedy = f"encode_documents(…, view='{view}')"
        raise InputError(f"similarity: view '{view}': documents have up to {most} vectors: pool them by {remedy}")
    packed = MultiVectors.pack(items)
    return MultiVectors(_rounded(packed.vectors, view), packed.offsets)


def _single(vectors: Tensor, name: str, view: View | None) -> Float[Tensor, "n h"]:
    vectors = vectors[None] if vectors.ndim == 1 else vectors
    if vectors.ndim != 2:
        shape = "×".join(map(str, vectors.shape))
        remedy = "give a tensor [n, dim], or a list of tensors [vectors, dim]: padding has no place in MaxSim"
        raise InputError(f"similarity: {name}: of shape {shape}: {remedy}")
    if view is None:
        return vectors
    _check(view, "single", vectors.shape[1], name)
    return truncate(vectors, view.dim) if name == "queries" else _rounded(vectors, view)


def _check(view: View, head: str, dim: int, name: str) -> None:
    if view.head != head or view.dim > dim:
        raise InputError(f"similarity: view '{view}': {name} are {head}@{dim}: encode them at this view")


def _rounded(vectors: Float[Tensor, "t h"], view: View) -> Float[Tensor, "t dim"]:
    """Normalised vectors cut to the view's dim and rounded to its precision, as scores take them."""
    return replace(code(vectors, "fp32"), dim=view.dim).rounded(view.precision).decode()


def _tensor(given: Any) -> Tensor:
    if isinstance(given, Tensor):
        return given.float()
    with contextlib.suppress(ValueError, TypeError):  # of other things than numbers
        if isinstance(given, np.ndarray | list | tuple):
            return torch.as_tensor(np.asarray(given, dtype=np.float32))
    raise InputError(f"similarity: {type(given).__name__}: not embeddings: give what encode_… gives")
