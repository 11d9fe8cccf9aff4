"""Multi-vectors: exact MaxSim over the store, a shard of documents and a block of queries at a time."""

import numpy as np
import torch

from colmrl.progress import track
from colmrl.scoring import MultiVectors, maxsim
from colmrl.search.ranking import Ranking, query_view
from colmrl.store import EmbeddingStore
from colmrl.view import View

_QUERIES = 32  # a block: its vectors and one document stay in cache


def search_multi(queries: EmbeddingStore, documents: EmbeddingStore, view: View, k: int, gpu: bool = False) -> Ranking:
    """Exact search; on the GPU where `gpu` is set and there is one. Memory: one shard and the best k so far."""
    device = "cuda" if gpu and torch.cuda.is_available() else "cpu"
    blocks = [
        part
        for shard in queries.multi(query_view(view))
        for part in (shard.slice(s, min(s + _QUERIES, len(shard))) for s in range(0, len(shard), _QUERIES))
    ]
    best: list[tuple[torch.Tensor, torch.Tensor]] = []
    start = 0
    shards = documents.manifest.shards
    for shard in track(documents.multi(view), f"MaxSim at {view}", shards):
        found = [_top(block, shard, start, k, device) for block in blocks]
        best = found if not best else [_merge(old, new, k) for old, new in zip(best, found, strict=True)]
        start += len(shard)
    return Ranking(
        queries.ids,
        documents.ids,
        np.concatenate([scores.numpy() for scores, _ in best]),
        np.concatenate([positions.numpy() for _, positions in best]),
    )


def _top(
    queries: MultiVectors, documents: MultiVectors, start: int, k: int, device: str
) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.inference_mode():
        scores = maxsim(queries.to(device), documents.to(device)).cpu()
    values, positions = scores.topk(min(k, len(documents)), dim=1)
    return values, positions + start


def _merge(
    old: tuple[torch.Tensor, torch.Tensor], new: tuple[torch.Tensor, torch.Tensor], k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    scores, positions = torch.cat([old[0], new[0]], 1), torch.cat([old[1], new[1]], 1)
    values, order = scores.topk(min(k, scores.shape[1]), dim=1)
    return values, positions.gather(1, order)
