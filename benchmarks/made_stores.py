"""A finished store of given vectors, for benchmarks: of the data in folder/data, in folder/store/KIND."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from colmrl.config import DataConfig
from colmrl.data.fingerprint import record_hash
from colmrl.data.reading import read_collection
from colmrl.store import ArraySpec, Manifest, begin


def write_store(
    folder: Path, kind: str, specs: tuple[ArraySpec, ...], size: int, shard: Callable[[slice], dict[str, Any]]
) -> None:
    """`shard`: what some rows are, in shards of `size`."""
    collection = read_collection(str(folder / "data"), DataConfig())
    manifest = Manifest(
        kind="documents" if kind == "documents" else "queries",
        fingerprint="random vectors",
        checkpoint="none",
        data=str(folder / "data"),
        shard_size=size,
        content_hash="",
        arrays=specs,
        single_dims=tuple(spec.dim for spec in specs if spec.head == "single"),
        multi_dims=tuple(spec.dim for spec in specs if spec.head == "multi"),
    )
    records = collection.documents if kind == "documents" else collection.queries
    writer = begin(folder / "store" / kind, manifest, {record.id: record_hash(record) for record in records})
    for number in writer.missing():
        writer.write(number, shard(slice(number * size, (number + 1) * size)))
    writer.finish()
