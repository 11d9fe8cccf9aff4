"""What a store's `manifest.json` says, and which arrays serve which views."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from colmrl.config import ShowConfig
from colmrl.errors import InputError
from colmrl.files import write_text
from colmrl.view import Head, Precision, TrainedViews, View

Kind = Literal["documents", "queries"]
Pooling = Literal["ward", "mean", "random"]

FORMAT = 2
FINISHED, PLANNED = "manifest.json", "plan.json"


@dataclass(frozen=True)
class ArraySpec:
    """One array of a store: a head at a dim, with all its vectors or a budget of them, at a precision."""

    head: Head
    dim: int
    vectors: int | None = None
    precision: Precision = "fp32"

    @property
    def name(self) -> str:
        vectors = f"-x{self.vectors}" if self.vectors else ""
        return self.head + vectors + ("" if self.precision == "fp32" else f"-{self.precision}")

    def serves(self, view: View, full_dim: int) -> bool:
        """Whether the view can be read from it: at no more dims, as precisely or rounded, and pooled on reading only
        from all vectors in full.
        """
        finer = {"fp32": ("fp32", "fp16", "int8", "binary"), "fp16": ("fp16", "int8", "binary")}
        precise = view.precision in finer.get(self.precision, (self.precision,))
        pooled = self.vectors is None and self.dim == full_dim and self.precision in finer
        return self.head == view.head and self.dim >= view.dim and precise and (self.vectors == view.vectors or pooled)

    @property
    def placed(self) -> bool:
        """Whether positions are kept beside it: all vectors, precise enough to be pooled later."""
        return self.head == "multi" and self.vectors is None and self.precision in ("fp32", "fp16")


@dataclass(frozen=True)
class Shard:
    """`content`: hash of its records; `files`: name → BLAKE2 hash, known when the store is finished."""

    records: int
    content: str
    files: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """What made a store and what is in it. `fingerprint` is the checkpoint's, `content_hash` that of the records that
    were encoded and not `removed` (their rows, counted over all shards).
    """

    kind: Kind
    fingerprint: str
    checkpoint: str
    data: str
    shard_size: int
    content_hash: str
    arrays: tuple[ArraySpec, ...]
    single_dims: tuple[int, ...]
    multi_dims: tuple[int, ...]
    pooling: Pooling = "ward"
    position_weight: float = 0.0
    show: ShowConfig = field(default_factory=ShowConfig)
    shards: tuple[Shard, ...] = ()
    removed: tuple[int, ...] = ()
    command: str = ""
    commit: str | None = None
    format: int = FORMAT

    @property
    def records(self) -> int:
        return sum(shard.records for shard in self.shards) - len(self.removed)

    @property
    def trained(self) -> TrainedViews:
        return TrainedViews(self.single_dims, self.multi_dims)

    @property
    def stamp(self) -> str:
        """Hash of what the store holds: of its files, and of which rows are removed."""
        content = [self.fingerprint, [shard.files for shard in self.shards], self.removed]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]

    def unlike(self, other: "Manifest", ignored: Sequence[str] = ()) -> list[str]:
        """The names of the fields that make the two stores different; where it was run from is none."""
        free = {"command", "commit", "checkpoint", "data", *ignored}
        mine, theirs = (asdict(replace(each, shards=_planned(each.shards))) for each in (self, other))
        return [name for name in mine if name not in free and mine[name] != theirs[name]]


_MANIFEST = TypeAdapter(Manifest)


def arrays_for(
    views: Sequence[View], trained: TrainedViews, kind: Kind, precision: Precision = "fp32"
) -> tuple[ArraySpec, ...]:
    """The arrays that keep these views, each as precisely as it says (none: every head in full at `precision`).

    Queries keep all their vectors; in fp16 where every view of the head is, else in fp32.
    """
    for view in views:
        trained.check(view)
    views = views or [replace(view, precision=precision) for view in trained.full()]
    if kind == "queries":
        halved = {view.head: all(v.precision == "fp16" for v in views if v.head == view.head) for view in views}
        views = [View(view.head, view.dim, None, "fp16" if halved[view.head] else "fp32") for view in views]
    largest: dict[tuple[Head, int | None, Precision], int] = {}
    for view in views:
        key = (view.head, view.vectors, view.precision)
        largest[key] = max(largest.get(key, 0), view.dim)
    return tuple(ArraySpec(head, dim, vectors, stored) for (head, vectors, stored), dim in largest.items())


def write_manifest(path: Path, manifest: Manifest) -> None:
    write_text(path, json.dumps(_MANIFEST.dump_python(manifest, mode="json"), indent=1))


def read_manifest(folder: Path) -> Manifest:
    """Of a finished store."""
    path = folder / FINISHED
    if not path.is_file():
        if (folder / PLANNED).is_file():
            raise InputError(f"{folder}: not finished: run encode.py again, it goes on where it was interrupted")
        raise InputError(f"{folder}: not a store (no manifest.json): give the folder that encode.py wrote")
    return read_any_manifest(path)


def read_any_manifest(path: Path) -> Manifest:
    """A finished store's, or a planned one's."""
    try:
        stated = json.loads(path.read_bytes())
        if stated["format"] != FORMAT:
            raise InputError(f"{path}: format: {stated['format']} is not {FORMAT}: encode again")
        return _MANIFEST.validate_python(stated)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot be read: {' '.join(str(error).split())}: encode again") from None


def _planned(shards: tuple[Shard, ...]) -> tuple[Shard, ...]:
    return tuple(replace(shard, files={}) for shard in shards)
