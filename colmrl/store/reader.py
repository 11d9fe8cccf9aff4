"""Reading a finished store by view, a shard at a time or a few records of it; everything is memory-mapped."""

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from colmrl.coding import CodedItems, Codes, code, rows_of
from colmrl.data.fingerprint import content_hash
from colmrl.data.records import Document, Query
from colmrl.errors import InputError
from colmrl.reduction import pool_records_to_each
from colmrl.scoring import MultiVectors, truncate
from colmrl.store.checking import UNREADABLE, check_shard, opened
from colmrl.store.manifest import ArraySpec, read_manifest
from colmrl.store.writer import read_ids
from colmrl.view import Head, Precision, View

_POOLED_BYTES = 1 << 28
_MAPPED_FILES = 256  # open at a time: processes may have 1,024


class EmbeddingStore:
    """A finished store. Row i of everything that it gives is of `ids[i]`; removed records are left out."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.manifest = read_manifest(folder)
        self.trained = self.manifest.trained
        self.stamp = self.manifest.stamp
        # copy on write: nothing writes to it, but torch takes only what can be written to
        self._map = functools.lru_cache(_MAPPED_FILES)(opened)
        self._specs: dict[View, ArraySpec] = {}
        self._check_files()
        sizes = [shard.records for shard in self.manifest.shards]
        live = np.ones(sum(sizes), dtype=bool)
        if not all(0 <= row < len(live) for row in self.manifest.removed):
            raise InputError(f"{folder}/manifest.json: removed: rows that are not there: encode again")
        live[list(self.manifest.removed)] = False
        self._live: list[Bool[np.ndarray, " records"]] = np.split(live, np.cumsum(sizes)[:-1])
        self._ends: Int[np.ndarray, " shards"] = np.cumsum([mask.sum() for mask in self._live])
        every = [
            name for number, shard in enumerate(self.manifest.shards) for name, _ in read_ids(folder, number, shard)
        ]
        self.ids: list[str] = [name for name, kept in zip(every, live, strict=True) if kept]
        self.removed = frozenset(every).difference(self.ids) if self.manifest.removed else frozenset[str]()
        self._pooled: dict[tuple[int, int], MultiVectors] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def views(self) -> list[View]:
        """Every trained view at the precision that it is kept in, pooled ones included where they are kept."""
        dims = {"single": self.manifest.single_dims, "multi": self.manifest.multi_dims}
        return [
            View(spec.head, dim, spec.vectors, spec.precision)
            for spec in self.manifest.arrays
            for dim in sorted(dims[spec.head], reverse=True)
            if dim <= spec.dim
        ]

    def made_on_reading(self) -> list[str]:
        """In words, which views can be asked for besides `views()`: pooled, or of less precision."""
        return [said for spec in self.manifest.arrays if (said := self._made_from(spec))]

    def _made_from(self, spec: ArraySpec) -> str:
        whole, full = View(spec.head, spec.dim, spec.vectors, spec.precision), self._full_dim(spec.head)
        names: tuple[Precision, ...] = ("fp16", "int8", "binary")
        coarser = [replace(whole, precision=name) for name in names if name != spec.precision]
        found = [str(view) for view in coarser if spec.serves(view, full)]
        pooled = replace(whole, vectors=32)
        if spec.head == "multi" and spec.vectors is None and spec.serves(pooled, full):
            found.insert(0, f"{pooled} (or any other number of vectors)")
        return ", ".join(found)

    def single(self, view: View) -> Iterator[Float[np.ndarray, "n dim"]]:
        """The records' vectors at a view, a shard at a time, fp32, normalised."""
        spec = self.array_of(view)
        for number, live in enumerate(self._live):
            codes = self._kept(spec, number, view.dim)
            codes = codes if live.all() else codes.rows(_places(live))
            yield codes.rounded(view.precision).decode().numpy()

    def multi(self, view: View) -> Iterator[MultiVectors]:
        """The records' multi-vectors at a view, a shard at a time, fp32, normalised; with positions where they are
        kept.
        """
        spec = self.array_of(view)
        for items, live, number in zip(self.coded(view), self._live, itertools.count(), strict=False):
            positions = self._positions(spec, number) if view.vectors is None and live.all() else None
            yield MultiVectors(items.codes.decode(), items.offsets, positions)

    def coded(self, view: View) -> Iterator[CodedItems]:
        """The same as it is kept, to be decoded piece by piece; what is rounded or pooled only now is coded anew."""
        spec = self.array_of(view)
        for number, live in enumerate(self._live):
            if view.vectors == spec.vectors:
                codes, offsets = self._kept(spec, number, view.dim), torch.from_numpy(self._offsets(spec, number))
            else:
                pooled = self._pool(spec, number, view)
                codes, offsets = code(truncate(pooled.vectors, view.dim), view.precision), pooled.offsets
            items = CodedItems(codes, offsets)
            items = items if live.all() else items.select(_places(live))
            yield CodedItems(items.codes.rounded(view.precision), items.offsets)

    def single_rows(self, view: View, rows: Sequence[int] | Int[np.ndarray, " n"]) -> Float[np.ndarray, "n dim"]:
        """These records' vectors, in this order; only they are read."""
        spec = self.array_of(view)
        found = np.empty((len(rows), view.dim), dtype=np.float32)
        for number, places, within in self._by_shard(rows):
            codes = self._kept(spec, number, view.dim).rows(torch.from_numpy(within))
            found[places] = codes.rounded(view.precision).decode().numpy()
        return found

    def multi_rows(self, view: View, rows: Sequence[int] | Int[np.ndarray, " n"]) -> MultiVectors:
        """These records' multi-vectors, in this order; only they are read (and pooled); with positions where they are
        kept.
        """
        spec = self.array_of(view)
        parts: list[tuple[np.ndarray, MultiVectors]] = []
        for number, places, within in self._by_shard(rows):
            offsets = torch.from_numpy(self._offsets(spec, number))
            pooling = view.vectors != spec.vectors
            items = CodedItems(self._kept(spec, number, spec.dim if pooling else view.dim), offsets)
            some = items.select(torch.from_numpy(within))
            placed = self._positions(spec, number)
            positions = placed[rows_of(offsets, torch.from_numpy(within))[0]] if placed is not None else None
            if view.vectors is not None and pooling:
                [pooled] = self._pooled_items(
                    MultiVectors(some.codes.decode(), some.offsets, positions), [view.vectors]
                )
                some = CodedItems(code(truncate(pooled.vectors, view.dim), view.precision), pooled.offsets)
                positions = None
            parts.append((places, MultiVectors(some.codes.rounded(view.precision).decode(), some.offsets, positions)))
        order = np.argsort(np.concatenate([places for places, _ in parts]))
        found = MultiVectors.cat([part for _, part in parts])
        return found if (np.diff(order) == 1).all() else found.select(torch.from_numpy(order))

    def coded_rows(self, view: View, rows: Sequence[int] | Int[np.ndarray, " n"]) -> list[Codes]:
        """The same as it is kept, each record by itself: where nothing is pooled now, an unread stretch of a file."""
        spec = self.array_of(view)
        if view.vectors != spec.vectors:
            return [code(item, view.precision) for item in self.multi_rows(view, rows).unpack()]
        found: list[Codes | None] = [None] * len(rows)
        for number, places, within in self._by_shard(rows):
            codes, offsets = self._kept(spec, number, view.dim), self._offsets(spec, number)
            for place, start, stop in zip(places, offsets[within].tolist(), offsets[within + 1].tolist(), strict=True):
                found[place] = codes.rows(slice(start, stop)).rounded(view.precision)
        return [codes for codes in found if codes is not None]

    def array_of(self, view: View) -> ArraySpec:
        """The array that serves a view; an InputError that names what is kept where there is none."""
        if view not in self._specs:
            self._specs[view] = self._find_array(view)
        return self._specs[view]

    def _find_array(self, view: View) -> ArraySpec:
        self.trained.check(view)
        serving = [spec for spec in self.manifest.arrays if spec.serves(view, self._full_dim(view.head))]
        if not serving:
            names = ", ".join(map(str, self.views()))
            raise InputError(f"view {str(view)!r}: {self.folder} keeps {names}: encode again with --views {view}")
        spec = min(serving, key=lambda spec: (spec.vectors != view.vectors, spec.precision != view.precision))
        if view.vectors and self.manifest.kind == "documents":
            most = int(self.counts(spec).max())
            if view.vectors > most:
                raise InputError(
                    f"view {str(view)!r}: no document has more than {most} vectors: ask for x{most} or less"
                )
        return spec

    def _full_dim(self, head: Head) -> int:
        return max(self.manifest.multi_dims if head == "multi" else self.manifest.single_dims, default=0)

    def counts(self, spec: ArraySpec) -> Int[np.ndarray, " records"]:
        """How many vectors each record has in an array."""
        return np.concatenate([np.diff(self._offsets(spec, n))[live] for n, live in enumerate(self._live)])

    def vectors_per_record(self, view: View) -> float:
        """The mean number of vectors that a record keeps in this view."""
        if view.head == "single":
            return 1.0
        counts = self.counts(self.array_of(view))
        return float(np.minimum(counts, view.vectors or counts.max()).mean())

    def _check_files(self) -> None:
        for number, shard in enumerate(self.manifest.shards):
            for spec in self.manifest.arrays:
                try:
                    check_shard(spec, shard, functools.partial(self._load, spec, number))
                    self._positions(spec, number)
                except FileNotFoundError as error:
                    raise InputError(
                        f"{error.filename}: of shard {number}, is missing: run encode.py again, it is made anew"
                    ) from None
                except UNREADABLE as error:
                    raise InputError(
                        f"{self.folder}: shard {number} is not whole ({error}): run encode.py again, it is made anew"
                    ) from None

    def _load(self, spec: ArraySpec, number: int, part: str = "") -> np.ndarray:
        return self._map(self.folder / f"{spec.name}-{number:05d}{part}.npy")

    def _offsets(self, spec: ArraySpec, number: int) -> Int[np.ndarray, " n"]:
        return np.asarray(self._load(spec, number, ".offsets"))

    def _positions(self, spec: ArraySpec, number: int) -> Float[Tensor, "t 2"] | None:
        known = spec.placed and f"{spec.name}-{number:05d}.positions.npy" in self.manifest.shards[number].files
        return torch.from_numpy(self._load(spec, number, ".positions")) if known else None

    def _kept(self, spec: ArraySpec, number: int, dim: int) -> Codes:
        scales = torch.from_numpy(self._load(spec, number, ".scales")) if spec.precision == "int8" else None
        return Codes(torch.from_numpy(self._load(spec, number)), scales, spec.precision, spec.dim, dim)

    def _pool(self, spec: ArraySpec, number: int, view: View) -> MultiVectors:
        """Pooled while reading; kept for the next view of the same budget, as far as memory is spared."""
        assert view.vectors is not None
        if (number, view.vectors) not in self._pooled:
            offsets = torch.from_numpy(self._offsets(spec, number))
            vectors = self._kept(spec, number, spec.dim).decode()
            items = MultiVectors(vectors, offsets, self._positions(spec, number))
            [pooled] = self._pooled_items(items, [view.vectors])
            held = sum(items.vectors.nbytes for items in self._pooled.values())
            if held + pooled.vectors.nbytes > _POOLED_BYTES:
                return pooled
            self._pooled[number, view.vectors] = pooled
        return self._pooled[number, view.vectors]

    def hold_pooled(self, budgets: Sequence[int]) -> None:
        """Pool all documents to all these budgets now, each document's tree made once, and hold them in memory."""
        specs = [spec for spec in self.manifest.arrays if spec.placed]
        for spec, number in itertools.product(specs, range(len(self._live))):
            missing = [budget for budget in budgets if (number, budget) not in self._pooled]
            items = MultiVectors(
                self._kept(spec, number, spec.dim).decode(),
                torch.from_numpy(self._offsets(spec, number)),
                self._positions(spec, number),
            )
            for budget, pooled in zip(missing, self._pooled_items(items, missing), strict=True):
                self._pooled[number, budget] = pooled

    def _pooled_items(self, items: MultiVectors, budgets: Sequence[int]) -> list[MultiVectors]:
        positions = items.positions.numpy() if items.positions is not None else None
        made = pool_records_to_each(
            items.vectors.numpy(),
            items.offsets.numpy(),
            budgets,
            positions,
            self.manifest.pooling,
            self.manifest.position_weight,
        )
        return [MultiVectors(torch.from_numpy(vectors), torch.from_numpy(offsets)) for vectors, offsets in made]

    def _by_shard(
        self, rows: Sequence[int] | Int[np.ndarray, " n"]
    ) -> Iterator[tuple[int, Int[np.ndarray, " m"], Int[np.ndarray, " m"]]]:
        """Shard, where its rows stand among those asked for, and which they are in it."""
        wanted = np.asarray(rows, dtype=np.int64)
        shards = np.searchsorted(self._ends, wanted, side="right")
        for number in np.unique(shards):
            places = np.flatnonzero(shards == number)
            start = self._ends[number - 1] if number else 0
            yield int(number), places, np.flatnonzero(self._live[number])[wanted[places] - start]


def check_same_data(store: EmbeddingStore, records: Sequence[Document] | Sequence[Query], data: str | Path) -> None:
    """Raise an InputError unless the store is of these very records, in any order, but for those removed from it."""
    kept = (record for record in records if record.id not in store.removed)
    if store.manifest.content_hash != content_hash(kept):
        raise InputError(
            f"{store.folder}: was encoded from other {store.manifest.kind} than {data} now holds: "
            "give the data it was encoded from (data.path), bring it up to date (encode.py --append), or encode again"
        )


def _places(live: Bool[np.ndarray, " n"]) -> Int[Tensor, " m"]:
    return torch.from_numpy(np.flatnonzero(live))
