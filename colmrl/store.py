"""The embedding store: numbered shards and a manifest; one store serves every view by a slice.

    manifest.json               what made it: checkpoint fingerprint, arrays, counts, order hash, command, commit
    ids.jsonl                   one id a line, in the order of the vectors
    single-00000.npy            [records, dim]
    multi-00000.npy             [vectors, dim]          every token's vector
    multi-00000.offsets.npy     [records + 1] int64     where each record's vectors start
    multi-x16-00000.npy …       the same, pooled to at most 16 vectors a record

Files are written under a temporary name, fsynced, renamed: what exists is whole. Resume = the shards that are
missing. Everything is memory-mapped; views are read a shard at a time.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import TypeAdapter

from colmrl.config import ShowConfig
from colmrl.data.fingerprint import content_hash
from colmrl.data.records import Document, Query
from colmrl.errors import InputError
from colmrl.files import write_text, write_whole
from colmrl.reduction import as_view, pool_records
from colmrl.scoring import MultiVectors
from colmrl.view import Head, TrainedViews, View

Kind = Literal["documents", "queries"]

FORMAT = 1
_POOLED_BYTES = 1 << 28
DTYPES = {"fp32": np.float32, "fp16": np.float16}


@dataclass(frozen=True)
class ArraySpec:
    """One array of a store: a head at a dim, with all its vectors or a budget of them."""

    head: Head
    dim: int
    vectors: int | None = None

    @property
    def name(self) -> str:
        return f"{self.head}-x{self.vectors}" if self.vectors else self.head


@dataclass(frozen=True)
class Manifest:
    """What made a store. `fingerprint` is the checkpoint's, `order_hash` the ids' in their order,
    `content_hash` that of what was encoded.
    """

    kind: Kind
    fingerprint: str
    checkpoint: str
    data: str
    records: int
    shard_size: int
    order_hash: str
    content_hash: str
    dtype: Literal["fp32", "fp16"]
    arrays: tuple[ArraySpec, ...]
    single_dims: tuple[int, ...]
    multi_dims: tuple[int, ...]
    show: ShowConfig = field(default_factory=ShowConfig)
    command: str = ""
    commit: str | None = None
    format: int = field(default=FORMAT)

    @property
    def shards(self) -> int:
        return -(-self.records // self.shard_size)

    def same_content(self, other: "Manifest") -> list[str]:
        """The names of the fields that make the two stores different; where it was run from is none."""
        ignored = {"command", "commit", "checkpoint", "data"}
        mine, theirs = asdict(self), asdict(other)
        return [name for name in mine if name not in ignored and mine[name] != theirs[name]]


_MANIFEST = TypeAdapter(Manifest)


def order_hash(ids: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()[:32]


def arrays_for(views: Sequence[View], trained: TrainedViews, kind: Kind) -> list[ArraySpec]:
    """The arrays that serve these views (none: every head in full). Queries always keep all their vectors."""
    for view in views:
        trained.check(view)
    largest: dict[tuple[Head, int | None], int] = {}
    for view in views or trained.full():
        key = (view.head, view.vectors if kind == "documents" else None)
        largest[key] = max(largest.get(key, 0), view.dim)
    return [ArraySpec(head, dim, vectors) for (head, vectors), dim in largest.items()]


class StoreWriter:
    """Writes the shards of a store; starts it, or goes on with it where the manifest is the same."""

    def __init__(self, folder: Path, manifest: Manifest, ids: Sequence[str]):
        self.folder, self.manifest = folder, manifest
        if (folder / "manifest.json").is_file():
            different = read_manifest(folder).same_content(manifest)
            if different:
                raise InputError(
                    f"{folder}: a store with another {', '.join(different)}: use another folder, or remove it"
                )
            return
        write_text(folder / "ids.jsonl", "".join(json.dumps(name) + "\n" for name in ids))
        write_text(folder / "manifest.json", json.dumps(_MANIFEST.dump_python(manifest, mode="json"), indent=2))

    def missing(self) -> list[int]:
        """Shards that have to be encoded: those of which any file is absent or not whole."""
        return [shard for shard in range(self.manifest.shards) if not self._whole(shard)]

    def write(self, shard: int, arrays: dict[str, np.ndarray | MultiVectors]) -> None:
        """`arrays`: name of each ArraySpec → its vectors of this shard's records."""
        dtype = DTYPES[self.manifest.dtype]
        for name, array in arrays.items():
            path = self.folder / f"{name}-{shard:05d}.npy"
            if isinstance(array, MultiVectors):
                _save(path.with_suffix(".offsets.npy"), array.offsets.numpy().astype(np.int64))
                _save(path, array.vectors.numpy().astype(dtype))
            else:
                _save(path, array.astype(dtype))

    def _whole(self, shard: int) -> bool:
        try:
            for spec in self.manifest.arrays:
                path = self.folder / f"{spec.name}-{shard:05d}.npy"
                vectors = np.load(path, mmap_mode="r")
                if spec.head == "multi" and np.load(path.with_suffix(".offsets.npy"))[-1] != len(vectors):
                    return False
        except (OSError, ValueError, EOFError):
            return False
        return True


class EmbeddingStore:
    """A finished store, read by view."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.manifest = read_manifest(folder)
        self.ids: list[str] = [json.loads(line) for line in (folder / "ids.jsonl").read_text().splitlines()]
        self.trained = TrainedViews(self.manifest.single_dims, self.manifest.multi_dims)
        self._pooled: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}
        for shard in range(self.manifest.shards):
            for spec in self.manifest.arrays:
                if not (folder / f"{spec.name}-{shard:05d}.npy").is_file():
                    raise InputError(f"{folder}: shard {shard} is missing: run encode.py again to finish it")

    def __len__(self) -> int:
        return self.manifest.records

    def views(self) -> list[View]:
        """Every trained view at the precision that the store keeps, pooled ones included where they are kept."""
        dims = {"single": self.manifest.single_dims, "multi": self.manifest.multi_dims}
        return [
            View(spec.head, dim, spec.vectors, self.manifest.dtype)
            for spec in self.manifest.arrays
            for dim in sorted(dims[spec.head], reverse=True)
            if dim <= spec.dim
        ]

    def single(self, view: View) -> Iterator[Float[np.ndarray, "n dim"]]:
        """The records' vectors at a view, a shard at a time, fp32, normalised."""
        spec = self.array_of(view)
        for shard in range(self.manifest.shards):
            yield as_view(self._load(spec, shard), view)

    def multi(self, view: View) -> Iterator[MultiVectors]:
        """The records' multi-vectors at a view, a shard at a time, fp32, normalised."""
        spec = self.array_of(view)
        for shard in range(self.manifest.shards):
            vectors = self._load(spec, shard)
            offsets = np.load(self.folder / f"{spec.name}-{shard:05d}.offsets.npy")
            if view.vectors is not None and view.vectors != spec.vectors:
                vectors, offsets = self._pool(vectors, offsets, shard, view.vectors)
            yield MultiVectors(torch.from_numpy(as_view(vectors, view)), torch.from_numpy(offsets))

    def _pool(self, vectors: np.ndarray, offsets: np.ndarray, shard: int, budget: int) -> tuple[np.ndarray, np.ndarray]:
        """Pooled while reading; kept for the next view of the same budget, as far as memory is spared."""
        if (shard, budget) not in self._pooled:
            pooled = pool_records(vectors, offsets, budget)
            held = sum(kept.nbytes for kept, _ in self._pooled.values())
            if held + pooled[0].nbytes > _POOLED_BYTES:
                return pooled
            self._pooled[shard, budget] = pooled
        return self._pooled[shard, budget]

    def array_of(self, view: View) -> ArraySpec:
        """The array that serves a view; an InputError that names what is kept where there is none."""
        self.trained.check(view)
        kept = {(spec.head, spec.vectors): spec for spec in self.manifest.arrays}
        spec = kept.get((view.head, view.vectors))
        if spec is None and view.vectors:  # pooled while reading, from vectors that were not cut
            full = kept.get((view.head, None))
            spec = full if full is not None and full.dim == max(self.manifest.multi_dims) else None
        if spec is None or spec.dim < view.dim or (view.precision == "fp32" and self.manifest.dtype == "fp16"):
            names = ", ".join(map(str, self.views()))
            raise InputError(f"view {str(view)!r}: {self.folder} keeps {names}: encode again with --views {view}")
        if view.vectors and self.manifest.kind == "documents":
            most = max(int(np.diff(self._offsets(spec, shard)).max()) for shard in range(self.manifest.shards))
            if view.vectors > most:
                raise InputError(
                    f"view {str(view)!r}: no document has more than {most} vectors: ask for x{most} or less"
                )
        return spec

    def vectors_per_record(self, view: View) -> float:
        """The mean number of vectors that a record keeps in this view."""
        if view.head == "single":
            return 1.0
        spec = self.array_of(view)
        counts = np.concatenate([np.diff(self._offsets(spec, shard)) for shard in range(self.manifest.shards)])
        return float(np.minimum(counts, view.vectors or counts.max()).mean())

    def _load(self, spec: ArraySpec, shard: int) -> np.ndarray:
        return np.load(self.folder / f"{spec.name}-{shard:05d}.npy", mmap_mode="r")

    def _offsets(self, spec: ArraySpec, shard: int) -> np.ndarray:
        return np.load(self.folder / f"{spec.name}-{shard:05d}.offsets.npy")


def read_manifest(folder: Path) -> Manifest:
    path = folder / "manifest.json"
    if not path.is_file():
        raise InputError(f"{folder}: not a store (no manifest.json): give the folder that encode.py wrote")
    try:
        manifest = _MANIFEST.validate_json(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path}: cannot be read: {' '.join(str(error).split())}: encode again") from None
    if manifest.format != FORMAT:
        raise InputError(f"{path}: format: {manifest.format} is not {FORMAT}: encode again")
    return manifest


def check_same_data(store: EmbeddingStore, records: Sequence[Document] | Sequence[Query], data: str | Path) -> None:
    """Raise an InputError unless the store was encoded from these very records."""
    if store.manifest.content_hash != content_hash(records):
        raise InputError(
            f"{store.folder}: was encoded from other {store.manifest.kind} than {data} now holds: "
            "give the data it was encoded from (data.path), or encode again"
        )


def _save(path: Path, array: np.ndarray) -> None:
    def write(partial: Path) -> None:
        with partial.open("wb") as file:
            np.save(file, array)

    write_whole(path, write)
