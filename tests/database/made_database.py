"""A store of clustered vectors, with the data that it is said to be of."""

import json
from pathlib import Path

import numpy as np
import torch

from colmrl.data.fingerprint import record_hash
from colmrl.data.records import Document, Query
from colmrl.scoring import MultiVectors
from colmrl.store import ArraySpec, Manifest, begin

DIM, DOCUMENTS, QUERIES = 16, 90, 12


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def write_made(root: Path) -> Path:
    """Pages of two books, of 2 to 8 vectors; a query is a noisy part of a page."""
    rng, data = np.random.default_rng(0), root / "data"
    items = [unit(rng.standard_normal(DIM) + rng.standard_normal((rng.integers(2, 9), DIM))) for _ in range(DOCUMENTS)]
    asked = [unit(items[row][:3] + 0.5 * rng.standard_normal((min(3, len(items[row])), DIM))) for row in range(QUERIES)]
    pages = [
        Document(f"d{row}", f"text {row}", f"page {row}", meta={"book": "atlas" if row % 3 else "guide", "page": row})
        for row in range(DOCUMENTS)
    ]
    queries = [Query(f"q{row}", f"query {row}") for row in range(QUERIES)]
    data.mkdir(parents=True)
    lines = [{"_id": page.id, "text": page.text, "title": page.title, "meta": dict(page.meta)} for page in pages]
    (data / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    lines = [{"_id": query.id, "text": query.text} for query in queries]
    (data / "queries.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for kind, records, vectors in (("documents", pages, items), ("queries", queries, asked)):
        manifest = Manifest(
            kind=kind,
            fingerprint="made",
            checkpoint="none",
            data=str(data),
            shard_size=40,
            content_hash="",
            arrays=(ArraySpec("single", DIM), ArraySpec("multi", DIM)),
            single_dims=(DIM, DIM // 2),
            multi_dims=(DIM, DIM // 2),
        )
        writer = begin(root / "store" / kind, manifest, {record.id: record_hash(record) for record in records})
        for shard in writer.missing():
            some = vectors[40 * shard : 40 * (shard + 1)]
            multi = MultiVectors.pack([torch.from_numpy(item) for item in some])
            writer.write(shard, {"single": unit(np.stack([item.mean(0) for item in some])), "multi": multi})
        writer.finish()
    return root / "store"
