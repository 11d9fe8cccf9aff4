"""A data folder and a store of given vectors."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from colmrl.config import Config, DataConfig
from colmrl.configure import load_config
from colmrl.data.fingerprint import record_hash
from colmrl.data.reading import read_collection
from colmrl.store import ArraySpec, Manifest, begin
from colmrl.store.manifest import Kind


def write_data(
    folder: Path, queries: int, documents: Sequence[dict], answers: Mapping[int, Sequence[int]], texts: Sequence = ()
) -> Path:
    """q0, q1, … and d0, d1, …; `documents`: what rows of the corpus say beside their ids."""
    (folder / "qrels").mkdir(parents=True)
    rows = [{"_id": f"d{n}", **row} for n, row in enumerate(documents)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = [{"_id": f"q{n}", "text": texts[n] if texts else f"query {n}"} for n in range(queries)]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    lines = [f"q{query}\td{name}\t1\n" for query, names in answers.items() for name in names]
    (folder / "qrels/train.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))
    return folder


def write_store(folder: Path, data: Path, queries: np.ndarray, documents: np.ndarray) -> Path:
    """Single vectors, normalised here; shards of 16."""
    collection = read_collection(str(data), DataConfig())
    for kind, records, vectors in (
        ("documents", collection.documents, documents),
        ("queries", collection.queries, queries),
    ):
        write_kind(folder / kind, kind, records, vectors, str(data))
    return folder


def write_kind(folder: Path, kind: Kind, records: Sequence, vectors: np.ndarray, data: str) -> None:
    dim = vectors.shape[1]
    manifest = Manifest(
        kind=kind,
        fingerprint="made",
        checkpoint="none",
        data=data,
        shard_size=16,
        content_hash="",
        arrays=(ArraySpec("single", dim),),
        single_dims=(dim,),
        multi_dims=(),
    )
    writer = begin(folder, manifest, {record.id: record_hash(record) for record in records})
    for shard in writer.missing():
        some = vectors[shard * 16 : (shard + 1) * 16].astype(np.float32)
        writer.write(shard, {"single": some / np.linalg.norm(some, axis=1, keepdims=True)})
    writer.finish()


def mining(*overrides: str) -> Config:
    return load_config(None, ["device=cpu", "threads=1", "mine.gpu=false", *overrides])
