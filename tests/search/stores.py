"""Stores of given vectors, and clustered vectors to put in them."""

from pathlib import Path

import numpy as np
import torch

from colmrl.scoring import MultiVectors
from colmrl.store import ArraySpec, Manifest, begin
from colmrl.store.manifest import Kind

DIM = 16


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def clustered(seed: int, documents: int, queries: int, tokens: int = 6) -> dict[str, tuple[np.ndarray, MultiVectors]]:
    """Both heads' vectors of both kinds; a query is a noisy part of a document."""
    rng = np.random.default_rng(seed)
    centres = unit(rng.standard_normal((40, DIM)))
    topics = unit(rng.standard_normal((documents, DIM)))
    counts = rng.integers(2, tokens + 1, documents)
    items = [
        unit(centres[rng.integers(40, size=count)] + 0.6 * topic + 0.4 * unit(rng.standard_normal((count, DIM))))
        for topic, count in zip(topics, counts, strict=True)
    ]
    chosen = rng.choice(documents, queries, replace=queries > documents)
    asked = [unit(items[row][:3] + 0.3 * unit(rng.standard_normal((min(3, counts[row]), DIM)))) for row in chosen]

    def both(parts):
        return unit(np.stack([part.mean(0) for part in parts])), MultiVectors.pack([torch.from_numpy(p) for p in parts])

    return {"documents": both(items), "queries": both(asked)}


def write_store(folder: Path, vectors: dict[str, tuple[np.ndarray, MultiVectors]], shard_size: int = 100) -> Path:
    for kind, (single, multi) in vectors.items():
        write_kind(folder / kind, kind, single, multi, shard_size)
    return folder


def write_kind(folder: Path, kind: Kind, single: np.ndarray, multi: MultiVectors, shard_size: int = 100) -> None:
    manifest = Manifest(
        kind=kind,
        fingerprint="made",
        checkpoint="none",
        data="none",
        shard_size=shard_size,
        content_hash="",
        arrays=(ArraySpec("single", DIM), ArraySpec("multi", DIM)),
        single_dims=(DIM, DIM // 2),
        multi_dims=(DIM, DIM // 2),
    )
    writer = begin(folder, manifest, {f"{kind[0]}{row}": f"{row}" for row in range(len(single))})
    for shard in writer.missing():
        start, stop = shard * shard_size, min((shard + 1) * shard_size, len(single))
        writer.write(shard, {"single": single[start:stop], "multi": multi.slice(start, stop)})
    writer.finish()
