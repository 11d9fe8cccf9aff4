"""What every reranker does, and how one is opened."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float

from colmrl.config import RerankConfig
from colmrl.data.records import Document, Query
from colmrl.models.attention import AttentionKernel
from colmrl.reranking.description import is_checkpoint, read_description

# What a checkpoint's settings of use may be replaced by; the others are part of what was trained.
OF_USE = ("permutations", "stride", "candidates", "batch_size")


@runtime_checkable
class Reranker(Protocol):
    name: str  # what reports call it

    def score(self, query: Query, documents: Sequence[Document]) -> Float[np.ndarray, " d"]:
        """float32, higher is better, in the order given. Pointwise: 0–1, of each document by itself. Listwise: of these
        documents among each other."""
        ...


def open_reranker(
    folder: str | Path,
    config: RerankConfig | None = None,
    kernel: AttentionKernel = "sdpa",
    device: str | None = None,
) -> Reranker:
    """A checkpoint of either task, or a Qwen3-VL-Reranker as it was published. `config`: its settings of use (number of
    permutations, window, stride, batch size, what answers) instead of those trained. `device`: None: the GPU where
    there is one."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if not is_checkpoint(folder):
        from colmrl.reranking.published import open_published

        return open_published(str(folder), config, kernel, device)
    description = read_description(Path(folder))
    if config is not None:
        used = {name: getattr(config, name) for name in OF_USE}
        used |= {"answer": config.answer} if config.answer else {}
        description = replace(description, rerank=replace(description.rerank, **used))
    match description.task:
        case "pointwise":
            from colmrl.reranking.pointwise import PointwiseReranker

            return PointwiseReranker.load(folder, description, kernel, device)
        case "listwise":
            from colmrl.reranking.listwise import ListwiseReranker

            return ListwiseReranker.load(folder, description, kernel).to(device).eval()
