"""Multi-vectors: exact MaxSim over the store, a shard of documents and a block of queries at a time."""

from collections.abc import Sequence

import torch

from colmrl.scoring import MultiVectors, maxsim
from colmrl.search.ranking import Ranking, query_view
from colmrl.store import EmbeddingStore
from colmrl.view import View

_QUERIES = 32  # a block: its vectors and one document stay in a CPU's cache


def search_multi(
    queries: EmbeddingStore, rows: Sequence[int], documents: EmbeddingStore, view: View, k: int, gpu: bool = False
) -> Ranking:
    """Exact search for the queries at `rows`; on the GPU where `gpu` is set and there is one.

    Memory: the queries, one shard of documents and the best k so far.
    """
    device = "cuda" if gpu and torch.cuda.is_available() else "cpu"
    items = [item for shard in queries.multi(query_view(view, queries)) for item in shard.unpack()]
    wanted = [items[row] for row in rows]
    blocks = [MultiVectors.pack(wanted[s : s + _QUERIES]).to(device) for s in range(0, len(wanted), _QUERIES)]
    scores = torch.empty(len(wanted), 0, device=device)
    positions = torch.empty(len(wanted), 0, dtype=torch.int64, device=device)
    start = 0
    for shard in documents.multi(view):
        with torch.inference_mode():
            new = torch.cat([maxsim(block, shard.to(device)) for block in blocks])
        where = torch.arange(start, start + len(shard), device=device).expand(len(wanted), -1)
        all_scores, all_positions = torch.cat([scores, new], 1), torch.cat([positions, where], 1)
        scores, order = all_scores.topk(min(k, all_scores.shape[1]), dim=1)
        positions = all_positions.gather(1, order)
        start += len(shard)
    names = [queries.ids[row] for row in rows]
    return Ranking(names, documents.ids, scores.cpu().numpy(), positions.cpu().numpy())
