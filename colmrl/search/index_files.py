"""The folder of an index.

index.faiss      what FAISS wrote
manifest.json    store (stamp and path), view, type, parameters as used, recall against exact search, bytes, hash
measured.json    times, which alone differ when the same index is built again
"""

import errno
import functools
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import faiss
from pydantic import TypeAdapter

from colmrl.config import IndexType
from colmrl.errors import InputError
from colmrl.files import write_text, write_whole
from colmrl.store import EmbeddingStore
from colmrl.view import View

FORMAT = 1
MANIFEST, MEASURED, VECTORS = "manifest.json", "measured.json", "index.faiss"


@dataclass(frozen=True)
class IndexManifest:
    """`stamp` is the store's; `settings` what was asked for, of which null was chosen: `lists` and what follows it are
    what was used. `recall`: of the exact top 10 and 100 of `queries`, drawn from `queries_of`.
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
    """Seconds that the build took, and the median milliseconds of a query, one at a time."""

    build_s: float
    query_ms: float


_MANIFEST, _MEASURED = TypeAdapter(IndexManifest), TypeAdapter(Measured)


def write_index(folder: Path, index: Any) -> tuple[int, str]:
    """Its bytes and their hash."""
    write_whole(folder / VECTORS, functools.partial(_write_faiss, index))
    with (folder / VECTORS).open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    return (folder / VECTORS).stat().st_size, digest


def write_facts(folder: Path, manifest: IndexManifest, measured: Measured) -> None:
    write_text(folder / MEASURED, json.dumps(asdict(measured), indent=1))
    write_text(folder / MANIFEST, json.dumps(_MANIFEST.dump_python(manifest, mode="json"), indent=1))


def read_index(folder: Path, manifest: IndexManifest) -> Any:
    """What FAISS wrote; an InputError where it is not whole."""
    path = folder / VECTORS
    remedy = "remove the folder and run colmrl index again"
    size = path.stat().st_size if path.is_file() else 0
    if size != manifest.bytes:
        raise InputError(f"{path}: {size} bytes, not {manifest.bytes}: it was cut or replaced: {remedy}")
    try:
        return faiss.read_index(str(path))
    except RuntimeError as error:
        raise InputError(f"{path}: cannot be read ({_said(error)}): {remedy}") from None


def read_facts(folder: Path) -> tuple[IndexManifest, Measured]:
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(f"{folder}: not an index (no {MANIFEST}): give a folder that colmrl index wrote")
    try:
        stated = json.loads(path.read_bytes())
        if stated["format"] != FORMAT:
            raise InputError(f"{path}: format: {stated['format']} is not {FORMAT}: build the index again")
        return _MANIFEST.validate_python(stated), _MEASURED.validate_json((folder / MEASURED).read_bytes())
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        said = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read: {said}: remove the folder and run colmrl index again") from None


def check_index(folder: Path, manifest: IndexManifest, documents: EmbeddingStore, view: View) -> None:
    """Raise an InputError unless the index is of this store, as it is now, and of this view."""
    if manifest.view != str(view):
        raise InputError(f"{folder}: is of view {manifest.view}, not {view}: search at that, or give another index")
    if manifest.stamp != documents.stamp:
        raise InputError(
            f"{folder}: is of another store than {documents.folder}, or of this one before records came or went: "
            f"give its own, or build it again: colmrl index --view {view} --type {manifest.type}"
        )


def _write_faiss(index: Any, path: Path) -> None:
    try:
        faiss.write_index(index, str(path))
    except RuntimeError as error:
        raise OSError(errno.EIO, _said(error)) from None


def _said(error: RuntimeError) -> str:
    return cast(str, str(error).strip().splitlines()[-1])
