"""The embedding store: numbered shards and a manifest; one store serves every view by a slice.

    manifest.json                   what made it: checkpoint fingerprint, arrays, shards and their hashes, removed rows
    ids-00000.jsonl                 id and hash of each record of a shard, in the order of the vectors
    single-00000.npy                [records, dim]
    multi-00000.npy                 [vectors, dim]          every token's vector
    multi-00000.offsets.npy         [records + 1] int64     where each record's vectors start
    multi-00000.positions.npy       [vectors, 2]            where each token's patch is on its page
    multi-x16-int8-00000.npy …      pooled to at most 16 vectors a record, one byte a dim; .scales.npy: one a vector
    multi-x16-binary-00000.npy …    the same in bits, eight dims a byte

Files are written under a temporary name, fsynced, renamed: what exists is whole. Everything is memory-mapped.

What reads and writes vectors is imported when it is first asked for: a manifest is read without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from colmrl.store.manifest import ArraySpec, Kind, Manifest, arrays_for, read_manifest

if TYPE_CHECKING:
    from colmrl.store.reader import EmbeddingStore, check_same_data
    from colmrl.store.writer import StoreWriter, begin, remove

__all__ = [
    "ArraySpec",
    "EmbeddingStore",
    "Kind",
    "Manifest",
    "StoreWriter",
    "arrays_for",
    "begin",
    "check_same_data",
    "read_manifest",
    "remove",
]


def __getattr__(name: str) -> Any:
    match name:
        case "EmbeddingStore" | "check_same_data":
            return getattr(import_module("colmrl.store.reader"), name)
        case "StoreWriter" | "begin" | "remove":
            return getattr(import_module("colmrl.store.writer"), name)
    raise AttributeError(f"module 'colmrl.store' has no attribute {name!r}")
