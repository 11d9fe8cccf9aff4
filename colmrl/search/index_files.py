"""The folder of an index.

index.faiss      what FAISS wrote
manifest.json    store (stamp and path), view, type, parameters as used, recall against exact search, bytes, hash
measured.json    times, which alone differ when the same index is built again
"""

import errno
import functools
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import faiss
from pydantic import TypeAdapter, ValidationError

from colmrl.config import IndexType
from colmrl.errors import InputError
from colmrl.files import digest, write_text, write_whole
from colmrl.store import EmbeddingStore
from colmrl.view import View

FORMAT = 1
MANIFEST, MEASURED, VECTORS = "manifest.json", "measured.json", "index.faiss"
_REMEDY = "remove the folder and run colmrl index again"
T = TypeVar("T")


@dataclass(frozen=True)
class IndexManifest:
    """`stamp` is the store's; `settings` what was asked for, of which null was chosen: `lists` and what follows it are
    what was used. `recall`: of the exact top 10 and 100 of `queries`, drawn from `queries_of`. Where only `candidates`
    (100, unless set) are scored exactly, recall at 100 is that of the index before them: exact scores order those 100,
    and bring in none.
    """

    store: str
    stamp: str
    view: str
    type: IndexType
    settings: dict[str, Any]
    seed: int
    documents: int
    vectors: int
    lists: int | None
    probes: int | None
    candidates: int | None
    training_vectors: int
    recall: dict[str, float]
    queries: int
    queries_of: str
    bytes: int
    hash: str
    threads: int
    faiss: str
    command: str
    commit: str | None
    format: int = FORMAT


@dataclass(frozen=True)
class Measured:
    """Seconds that the build took, and the median milliseconds of a query, one at a time, by the index and by exact
    search on as many threads.
    """

    build_s: float
    query_ms: float
    exact_ms: float


def write_index(folder: Path, index: Any) -> tuple[int, str]:
    """Its bytes and their hash."""
    write_whole(folder / VECTORS, functools.partial(_write_faiss, index))
    return (folder / VECTORS).stat().st_size, digest(folder / VECTORS)


def write_facts(folder: Path, manifest: IndexManifest, measured: Measured) -> None:
    write_text(folder / MEASURED, json.dumps(asdict(measured), indent=1))
    write_text(folder / MANIFEST, json.dumps(asdict(manifest), indent=1))


def read_index(folder: Path, manifest: IndexManifest) -> Any:
    """What FAISS wrote; an InputError where it is anything else, which takes reading it twice."""
    path = folder / VECTORS
    size = path.stat().st_size if path.is_file() else 0
    if size != manifest.bytes:
        raise InputError(f"{path}: {size} bytes, not {manifest.bytes}: it was cut or replaced: {_REMEDY}")
    if (found := digest(path)) != manifest.hash:
        raise InputError(f"{path}: its hash is {found}, not {manifest.hash}: it was damaged or replaced: {_REMEDY}")
    try:
        return faiss.read_index(str(path))
    except RuntimeError as error:
        raise InputError(f"{path}: cannot be read ({_said(error)}): {_REMEDY}") from None


def read_facts(folder: Path) -> tuple[IndexManifest, Measured]:
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(f"{folder}: not an index (no {MANIFEST}): give a folder that colmrl index wrote")
    if (written := _stated(path, dict).get("format")) != FORMAT:
        raise InputError(f"{path}: format: {written} is not {FORMAT}: build the index again")
    return _stated(path, IndexManifest), _stated(folder / MEASURED, Measured)


def check_index(folder: Path, manifest: IndexManifest, documents: EmbeddingStore, view: View) -> None:
    """Raise an InputError unless the index is of this store, as it is now, and of this view."""
    if manifest.view != str(view):
        raise InputError(f"{folder}: is of view {manifest.view}, not {view}: search at that, or give another index")
    if manifest.stamp != documents.stamp:
        raise InputError(
            f"{folder}: is of another store than {documents.folder}, or of this one before records came or went: "
            f"give its own, or build it again: colmrl index --view {view} --type {manifest.type}"
        )


def _stated(path: Path, kind: type[T]) -> T:
    """What a file of JSON states."""
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes())
    except OSError as error:
        said = error.strerror
    except ValidationError as error:
        first = error.errors()[0]
        said = ": ".join([".".join(map(str, first["loc"])), first["msg"]]).removeprefix(": ")
    raise InputError(f"{path}: {said}: {_REMEDY}")


def _write_faiss(index: Any, path: Path) -> None:
    try:
        faiss.write_index(index, str(path))
    except RuntimeError as error:
        raise OSError(errno.EIO, _said(error)) from None


def _said(error: RuntimeError) -> str:
    return cast(str, str(error).strip().splitlines()[-1])
