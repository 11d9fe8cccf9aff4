"""A collection of a Qdrant server or cluster, by qdrant-client's REST: as `embedded`, in the client's words."""

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from colmrl.database.address import Address, Where
from colmrl.database.collection import OVERSAMPLING, About, Point, Stage, point_key, quantised
from colmrl.errors import InputError
from colmrl.view import View

TOKEN = "QDRANT_API_KEY"
_KEY = "colmrl"  # in the collection's metadata
_PAGE = 1000  # documents listed at a time
_TIMEOUT_S = 60


class ClusterCollection:
    """`client`: None for one of the address, with `token` (None: from the environment)."""

    def __init__(self, address: Address, token: str | None = None, client: QdrantClient | None = None):
        self._address, self._name = address, address.collection
        self._client = client or _client(address, token or os.environ.get(TOKEN))

    def about(self) -> About | None:
        with _told(self._address):
            if not self._client.collection_exists(self._name):
                return None
            metadata = self._client.get_collection(self._name).config.metadata or {}
        return About.read(metadata.get(_KEY), self._address)

    def create(self, about: About, views: Sequence[View]) -> None:
        with _told(self._address):
            self._client.create_collection(
                self._name,
                vectors_config={view.slug: _parameters(view) for view in views},
                metadata={_KEY: about.stated()},
            )

    def state(self, about: About) -> None:
        with _told(self._address):
            self._client.update_collection(self._name, metadata={_KEY: about.stated()})

    def hashes(self) -> Iterator[tuple[str, str]]:
        start = None
        while True:
            with _told(self._address):
                records, start = self._client.scroll(
                    self._name, limit=_PAGE, offset=start, with_payload=["id", "hash"], with_vectors=False
                )
            for record in records:
                payload = record.payload or {}
                yield str(payload["id"]), str(payload["hash"])
            if start is None:
                return

    def upsert(self, points: Sequence[Point]) -> None:
        made = [
            models.PointStruct(
                id=point.key,
                vector=cast(Any, {name: vectors.tolist() for name, vectors in point.vectors.items()}),
                payload=point.kept,
            )
            for point in points
        ]
        with _told(self._address):
            self._client.upsert(self._name, made, wait=True)

    def delete(self, ids: Sequence[str]) -> None:
        keys: list[Any] = [point_key(name) for name in ids]
        with _told(self._address):
            self._client.delete(self._name, models.PointIdsList(points=keys), wait=True)

    def settle(self) -> None:
        """Nothing: a server optimises by itself."""

    def find(self, stages: Sequence[Stage], where: Where, k: int) -> list[tuple[str, float]]:
        condition, prefetch = _filter(where), None
        for stage in stages[:-1]:
            prefetch = models.Prefetch(
                prefetch=prefetch,
                query=stage.vectors.tolist(),
                using=stage.view.slug,
                limit=stage.keep,
                params=_params(stage.view),
                filter=None if prefetch else condition,
            )
        last = stages[-1]
        with _told(self._address):
            found = self._client.query_points(
                self._name,
                query=last.vectors.tolist(),
                using=last.view.slug,
                prefetch=prefetch,
                limit=k,
                search_params=_params(last.view),
                query_filter=None if prefetch else condition,
                with_payload=["id"],
            )
        return [(str((point.payload or {})["id"]), point.score) for point in found.points]

    def size_bytes(self) -> int | None:
        return None

    def close(self) -> None:
        self._client.close()


def _client(address: Address, token: str | None) -> QdrantClient:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a token over http within one's own network
        return QdrantClient(url=address.place, api_key=token, timeout=_TIMEOUT_S, check_compatibility=False)


@contextmanager
def _told(address: Address) -> Iterator[None]:
    try:
        yield
    except UnexpectedResponse as error:
        if error.status_code in (401, 403):
            raise InputError(f"{address.place}: refuses the token: give --token, or set {TOKEN}") from None
        said = " ".join(error.content.decode(errors="replace").split())[:300]
        raise InputError(
            f"{address}: answers {error.status_code} ({said}): is it a Qdrant server, 1.16 or newer?"
        ) from None
    except (ApiException, ResponseHandlingException, ValueError) as error:  # ValueError: an answer that is no JSON
        said = " ".join(str(error).split())
        raise InputError(f"{address.place}: no Qdrant server answers ({said}): start it, or mend the address") from None


def _parameters(view: View) -> models.VectorParams:
    """As `embedded` has it."""
    codes: models.QuantizationConfig | None = None
    if view.precision == "int8":
        codes = models.ScalarQuantization(
            scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
        )
    elif view.precision == "binary":
        encoding = models.BinaryQuantizationQueryEncoding.SCALAR8BITS
        codes = models.BinaryQuantization(
            binary=models.BinaryQuantizationConfig(always_ram=True, query_encoding=encoding)
        )
    multi = view.head == "multi"
    return models.VectorParams(
        size=view.dim,
        distance=models.Distance.DOT,
        multivector_config=models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM) if multi else None,
        datatype=models.Datatype.FLOAT32 if view.precision == "fp32" else models.Datatype.FLOAT16,
        quantization_config=codes,
        hnsw_config=models.HnswConfigDiff(m=0) if multi else None,
        on_disk=quantised(view),
    )


def _params(view: View) -> models.SearchParams | None:
    if not quantised(view):
        return None
    return models.SearchParams(quantization=models.QuantizationSearchParams(rescore=True, oversampling=OVERSAMPLING))


def _filter(where: Where) -> models.Filter | None:
    if not where:
        return None
    any_of: list[Any] = [
        models.Filter(
            should=[models.FieldCondition(key=name, match=models.MatchValue(value=value)) for value in values]
        )
        for name, values in where.items()
    ]
    return models.Filter(must=any_of)
