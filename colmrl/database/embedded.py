"""A collection in a folder, by Qdrant's engine in this process (qdrant-edge-py): the segments, write-ahead log,
quantisation and MaxSim that a server runs.

    PLACE/COLLECTION/collection.json    what it is of (a server keeps that as the collection's metadata)
    PLACE/COLLECTION/shard/             the engine's
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import qdrant_edge as qdrant

from colmrl.database.address import ABOUT, Address, Where
from colmrl.database.collection import OVERSAMPLING, About, Point, Stage, point_key, quantised
from colmrl.errors import InputError
from colmrl.files import write_text
from colmrl.view import View

_PAGE = 1000  # documents listed at a time


class EmbeddedCollection:
    def __init__(self, address: Address):
        self._address, self._folder = address, address.folder
        self._opened: qdrant.EdgeShard | None = None

    def about(self) -> About | None:
        path = self._folder / ABOUT
        if not path.is_file():
            return None
        try:
            stated = json.loads(path.read_bytes())
        except ValueError:
            stated = None
        return About.read(stated, path)

    def create(self, about: About, views: Sequence[View]) -> None:
        there = sorted(path.name for path in self._folder.iterdir()) if self._folder.is_dir() else []
        if there not in ([], ["shard"]):
            raise InputError(f"{self._folder}: holds something else ({there[0]}): give another --collection")
        if there:  # killed before it was said what it is of
            shutil.rmtree(self._folder / "shard")
        (self._folder / "shard").mkdir(parents=True)
        config = qdrant.EdgeConfig(vectors={view.slug: _parameters(view) for view in views})
        self._opened = qdrant.EdgeShard.create(str(self._folder / "shard"), config)
        self.state(about)

    def state(self, about: About) -> None:
        write_text(self._folder / ABOUT, json.dumps(about.stated(), indent=1) + "\n")

    def hashes(self) -> Iterator[tuple[str, str]]:
        start = None
        while True:
            request = qdrant.ScrollRequest(offset=start, limit=_PAGE, with_payload=["id", "hash"], with_vector=False)
            with _told(self._address):
                records, start = self._shard.scroll(request)
            for record in records:
                payload = record.payload or {}
                yield str(payload["id"]), str(payload["hash"])
            if start is None:
                return

    def upsert(self, points: Sequence[Point]) -> None:
        made = [
            qdrant.Point(
                point.key, {name: vectors.tolist() for name, vectors in point.vectors.items()}, payload=point.kept
            )
            for point in points
        ]
        with _told(self._address):
            self._shard.update(qdrant.UpdateOperation.upsert_points(made))

    def delete(self, ids: Sequence[str]) -> None:
        with _told(self._address):
            self._shard.update(qdrant.UpdateOperation.delete_points([point_key(name) for name in ids]))

    def settle(self) -> None:
        with _told(self._address):
            self._shard.flush()
            self._shard.optimize()
            self._shard.flush()

    def find(self, stages: Sequence[Stage], where: Where, k: int) -> list[tuple[str, float]]:
        condition, prefetches = _filter(where), []
        for stage in stages[:-1]:
            only = None if prefetches else condition
            prefetches = [
                qdrant.Prefetch(stage.keep, _nearest(stage), prefetches, params=_params(stage.view), filter=only)
            ]
        request = qdrant.QueryRequest(
            limit=k,
            query=_nearest(stages[-1]),
            prefetches=prefetches,
            with_payload=["id"],
            filter=None if prefetches else condition,
            params=_params(stages[-1].view),
        )
        with _told(self._address):
            return [(str((point.payload or {})["id"]), point.score) for point in self._shard.query(request)]

    def size_bytes(self) -> int | None:
        """What the files occupy: the log is made in advance, mostly of nothing."""
        return sum(512 * path.stat().st_blocks for path in self._folder.rglob("*") if path.is_file())

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    @property
    def _shard(self) -> qdrant.EdgeShard:
        if self._opened is None:
            self._opened = qdrant.EdgeShard.load(str(self._folder / "shard"))
        return self._opened


@contextmanager
def _told(address: Address) -> Iterator[None]:
    """The engine raises bare Exceptions."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())
        if "WouldBlock" in said:
            raise InputError(f"{address}: is open in another process: wait for it, or run a Qdrant server") from None
        raise InputError(f"{address}: its engine fails ({said}): export into another --collection") from None


def _parameters(view: View) -> qdrant.EdgeVectorParams:
    """Multi-vectors get no graph: to build one takes a MaxSim a step, minutes for a thousand documents."""
    codes: Any = None
    if view.precision == "int8":
        codes = qdrant.ScalarQuantizationConfig(qdrant.ScalarType.Int8, memory=qdrant.Memory.Pinned)
    elif view.precision == "binary":
        codes = qdrant.BinaryQuantizationConfig(
            query_encoding=qdrant.BinaryQuantizationQueryEncoding.Scalar8Bits, memory=qdrant.Memory.Pinned
        )
    kind = qdrant.VectorStorageDatatype
    multi = view.head == "multi"
    return qdrant.EdgeVectorParams(
        size=view.dim,
        distance=qdrant.Distance.Dot,
        multivector_config=qdrant.MultiVectorConfig(qdrant.MultiVectorComparator.MaxSim) if multi else None,
        datatype=kind.Float32 if view.precision == "fp32" else kind.Float16,
        quantization_config=codes,
        hnsw_config=qdrant.HnswIndexConfig(m=0, ef_construct=100, full_scan_threshold=10_000) if multi else None,
        memory=qdrant.Memory.Cold if quantised(view) else qdrant.Memory.Cached,
    )


def _nearest(stage: Stage) -> Any:
    return qdrant.Query.Nearest(stage.vectors.tolist(), using=stage.view.slug)


def _params(view: View) -> qdrant.SearchParams | None:
    if not quantised(view):
        return None
    return qdrant.SearchParams(quantization=qdrant.QuantizationSearchParams(rescore=True, oversampling=OVERSAMPLING))


def _filter(where: Where) -> qdrant.Filter | None:
    if not where:
        return None
    any_of: list[Any] = [
        qdrant.Filter(should=[qdrant.FieldCondition(name, match=qdrant.MatchValue(value)) for value in values])
        for name, values in where.items()
    ]
    return qdrant.Filter(must=any_of)
