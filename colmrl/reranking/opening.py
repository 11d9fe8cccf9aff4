"""A folder that judges candidates, a reranker's checkpoint or a store, opened for use."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from colmrl.config import Config, ShowConfig
from colmrl.errors import InputError
from colmrl.models.retriever import fingerprint
from colmrl.reranking.description import is_checkpoint, read_description
from colmrl.reranking.reranker import OF_USE, Reranker, open_reranker
from colmrl.reranking.stored import StoreReranker, is_store
from colmrl.runtime import use_torch


@dataclass(frozen=True)
class Opened:
    """A reranker, how its data is shown (None: as the configuration says), and what tells it from others."""

    reranker: Reranker
    show: ShowConfig | None
    stamp: str


def open_judge(model: str, config: Config, given: Sequence[str] = ()) -> Opened:
    """A reranker's checkpoint, or a store at `rerank.view`. `given`: settings of use that hold in place of the
    checkpoint's own (rerank.permutations, …).
    """
    if is_store(model):
        stored = StoreReranker(model, config.rerank.view)
        stamp = json.dumps([stored.documents.stamp, stored.queries.stamp, str(stored.view)])
        return Opened(stored, stored.documents.manifest.show, stamp)
    if (Path(model) / "colmrl.json").is_file():
        raise InputError(f"{model}: a retriever's checkpoint, no reranker: encode with it, and give the store")
    show, settings = None, None
    if is_checkpoint(model):
        description = read_description(Path(model))
        used = {name: getattr(config.rerank, name) for name in OF_USE if f"rerank.{name}" in given}
        show, settings = description.show, replace(description.rerank, **used)
    reranker = open_reranker(model, settings, config.attention_kernel, use_torch(config))
    return Opened(reranker, show, json.dumps([weights_of(model), asdict(settings) if settings else None]))


def weights_of(model: str) -> str:
    """What tells a reranker's weights from others: their hash, or the name that they have on the hub."""
    return fingerprint(model) if Path(model).is_dir() else model
