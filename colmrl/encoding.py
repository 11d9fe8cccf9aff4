"""Records → store: every shard that is missing is encoded, in batches of similar length, and written whole."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from colmrl import provenance
from colmrl.config import Config
from colmrl.data.fingerprint import content_hash
from colmrl.data.reading import read_collection
from colmrl.data.records import Document, Query, Records
from colmrl.models.retriever import Description, Embeddings, Retriever, fingerprint, read_description
from colmrl.progress import track
from colmrl.reduction import as_view, pool_records
from colmrl.runtime import use_torch
from colmrl.scoring import MultiVectors
from colmrl.store import ArraySpec, Kind, Manifest, StoreWriter, arrays_for, order_hash
from colmrl.view import View, parse_views

log = logging.getLogger(__name__)
RecordsOf = Mapping[Kind, Records[Document] | Records[Query]]


def encode(config: Config, checkpoint: str | Path, data: str | Path, out: str | Path) -> Path:
    """Encode a data folder's corpus and queries into `out/documents` and `out/queries`, as `config.encode` says.

    Goes on where it was interrupted; refuses a store of another checkpoint, data or size.
    """
    checkpoint, out = Path(checkpoint), Path(out)
    description = read_description(checkpoint)
    collection = read_collection(str(data), config.data, description.show)
    records_of: RecordsOf = {"documents": collection.documents, "queries": collection.queries}
    named = str(Path(data).resolve()) if Path(data).exists() else str(data)
    writers = begin_stores(config, description, records_of, named, fingerprint(checkpoint), checkpoint, out)
    if any(writer.missing() for writer in writers.values()):
        model = Retriever.load(checkpoint, config.attention_kernel).to(use_torch(config)).eval()
        fill_stores(config, model, records_of, writers)
        log.info("store: %s (%d documents, %d queries)", out, len(collection.documents), len(collection.queries))
    return out


def begin_stores(
    config: Config,
    description: Description,
    records_of: RecordsOf,
    data: str,
    stamp: str,
    checkpoint: Path,
    out: Path,
) -> dict[Kind, StoreWriter]:
    """Stores of these records below `out`, begun or gone on with; `stamp` tells the weights that they are of."""
    views, trained = parse_views(config.encode.views), description.trained
    writers: dict[Kind, StoreWriter] = {}
    for kind, records in records_of.items():
        ids = list(records.ids)
        manifest = Manifest(
            kind=kind,
            fingerprint=stamp,
            checkpoint=str(checkpoint.resolve()),
            data=data,
            records=len(ids),
            shard_size=config.encode.shard_size,
            order_hash=order_hash(ids),
            content_hash=content_hash(records),
            dtype=config.encode.dtype,
            arrays=tuple(arrays_for(views, trained, kind)),
            single_dims=trained.single_dims,
            multi_dims=trained.multi_dims,
            show=description.show,
            command=provenance.command(),
            commit=provenance.commit(),
        )
        writers[kind] = StoreWriter(out / kind, manifest, ids)
    return writers


def fill_stores(config: Config, model: Retriever, records_of: RecordsOf, writers: Mapping[Kind, StoreWriter]) -> None:
    """Encode and write every shard that is missing."""
    for kind, records in records_of.items():
        _encode_records(config, model, kind, records, writers[kind])


def _encode_records(
    config: Config, model: Retriever, kind: Kind, records: Sequence[Document] | Sequence[Query], writer: StoreWriter
) -> None:
    size = writer.manifest.shard_size
    for shard in writer.missing():
        some = records[shard * size : (shard + 1) * size]
        label = f"{kind}, shard {shard + 1} of {writer.manifest.shards}"
        embedded = embed(model, kind, some, config.encode.batch_size, config.encode.workers, label)
        writer.write(shard, {spec.name: _array(embedded, spec) for spec in writer.manifest.arrays})


def embed(
    model: Retriever,
    kind: Kind,
    records: Sequence[Document] | Sequence[Query],
    batch_size: int,
    workers: int = 0,
    label: str = "",
) -> Embeddings:
    """Both heads' embeddings of the records, in their order, on the CPU. Which are batched together changes
    nothing but speed: records of similar length go together, the longest first, so that memory fails early.
    """
    order = sorted(range(len(records)), key=lambda i: _length(records[i]), reverse=True)
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    build: Any = model.inputs.documents if kind == "documents" else model.inputs.queries
    loader = DataLoader(
        [[records[i] for i in batch] for batch in batches],  # pyright: ignore[reportArgumentType]
        batch_size=None,
        collate_fn=build,
        num_workers=workers,
    )
    single: list[Tensor | None] = [None] * len(records)
    multi: list[Tensor | None] = [None] * len(records)
    with torch.inference_mode():
        for batch, inputs in track(zip(batches, loader, strict=True), label, len(batches)):
            result = model({name: tensor.to(model.device) for name, tensor in inputs.items()})
            for part, into in (
                (result.single, single),
                (result.multi.unpack() if result.multi else None, multi),
            ):
                if part is not None:
                    for i, vectors in zip(batch, part, strict=True):
                        into[i] = vectors.cpu()
    return Embeddings(
        single=torch.stack([v for v in single if v is not None]) if model.single is not None else None,
        multi=MultiVectors.pack([v for v in multi if v is not None]) if model.multi is not None else None,
    )


def _length(record: Document | Query) -> tuple[int, int]:
    return len(record.images), len(record.body if isinstance(record, Document) else record.text)


def _array(embedded: Embeddings, spec: ArraySpec) -> np.ndarray | MultiVectors:
    view = View(spec.head, spec.dim)
    if spec.head == "single":
        assert embedded.single is not None
        return as_view(embedded.single.numpy(), view)
    assert embedded.multi is not None
    vectors, offsets = embedded.multi.vectors.numpy(), embedded.multi.offsets.numpy()
    if spec.vectors:
        vectors, offsets = pool_records(vectors, offsets, spec.vectors)
    return MultiVectors(torch.from_numpy(as_view(vectors, view)), torch.from_numpy(offsets))
