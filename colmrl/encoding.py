"""Records → store: every shard that is missing is encoded, in batches of similar length, and written whole."""

import datetime
import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from colmrl import provenance
from colmrl.cluster import share_out
from colmrl.config import Config
from colmrl.configure import replace
from colmrl.data.fingerprint import record_hash
from colmrl.data.reading import read_collection
from colmrl.data.records import Document, Query, Records
from colmrl.errors import InputError
from colmrl.models.batching import batches
from colmrl.models.retriever import Description, Embeddings, Retriever, fingerprint, read_description
from colmrl.models.sources import located
from colmrl.processes import data_worker, locked_by_first, on_first, processes, rank, start, wait
from colmrl.progress import track
from colmrl.reduction import pool_records
from colmrl.runtime import memory_said, use_torch
from colmrl.scoring import MultiVectors, truncate
from colmrl.store import ArraySpec, Kind, Manifest, StoreWriter, arrays_for, begin, read_manifest
from colmrl.view import parse_views

log = logging.getLogger(__name__)
_PATIENCE = datetime.timedelta(days=1)  # processes wait for the one with the longest documents
RecordsOf = Mapping[Kind, Records[Document] | Records[Query]]


def encode(config: Config, checkpoint: str | Path, data: str | Path, out: str | Path, append: bool = False) -> Path:
    """Encode a data folder's corpus and queries into `out/documents` and `out/queries`, as `config.encode` says.

    Goes on where it was interrupted; refuses a store of another checkpoint, data or size. With `append` a finished
    store gets what the data has more, and only that is encoded. Several processes (torchrun) share the shards, or the
    workers of a Ray cluster (`encode.ray`).
    """
    checkpoint, out = located(checkpoint), Path(out)
    on = use_torch(config)
    start(on, timeout=_PATIENCE)
    if config.encode.ray and processes() > 1:
        raise InputError(f"encode.ray: {config.encode.ray}: Ray starts its own workers: leave torchrun out")
    description = read_description(checkpoint)
    collection = read_collection(str(data), config.data, description.show)
    records_of: RecordsOf = {"documents": collection.documents, "queries": collection.queries}
    named = str(Path(data).resolve()) if Path(data).exists() else str(data)

    def plan() -> None:
        begin_stores(config, description, records_of, named, fingerprint(checkpoint), checkpoint, out, append)

    with locked_by_first(out):
        on_first(plan)
        writers: dict[Kind, StoreWriter] = {kind: StoreWriter(out / kind) for kind in records_of}
        missing = on_first(lambda: [writer.missing() for writer in writers.values()])  # one list, shared by all
        if any(missing) and config.encode.ray:
            shards = [(kind, number) for kind, some in zip(writers, missing, strict=True) for number in some]
            asked, threads = config.encode, torch.get_num_threads()  # another number would round sums otherwise
            opener = functools.partial(open_encoder, replace(config, threads=threads), checkpoint, named, out)
            share_out(opener, shards, config.encode.ray, asked.ray_workers, asked.ray_gpus, threads)
        elif any(missing):
            model = Retriever.load(checkpoint, config.attention_kernel).to(on).eval()
            share = [numbers[rank() :: processes()] for numbers in missing]
            with memory_said("encoding", "lower encode.batch_size, or encode.shard_size; what is written stays"):
                fill_stores(config, model, records_of, writers, dict(zip(writers, share, strict=True)))
            wait()
        on_first(lambda: finish_stores(writers))
    log.info("store: %s (%d documents, %d queries)", out, *(writer.manifest.records for writer in writers.values()))
    return out


def open_encoder(config: Config, checkpoint: Path, data: str, out: Path) -> Callable[[tuple[Kind, int]], None]:
    """What encodes one shard after another of the stores that are planned in `out`, in any process on any machine."""
    on, description = use_torch(config), read_description(checkpoint)
    collection = read_collection(data, config.data, description.show)
    records_of: RecordsOf = {"documents": collection.documents, "queries": collection.queries}
    writers: dict[Kind, StoreWriter] = {kind: StoreWriter(out / kind) for kind in records_of}
    if fingerprint(checkpoint) != writers["documents"].manifest.fingerprint:
        raise InputError(f"{checkpoint}: is another checkpoint here: all machines must see the same files")
    model = Retriever.load(checkpoint, config.attention_kernel).to(on).eval()

    def encode_shard(shard: tuple[Kind, int]) -> None:
        kind, number = shard
        fill_stores(config, model, {kind: records_of[kind]}, writers, {kind: [number]})

    return encode_shard


def begin_stores(
    config: Config,
    description: Description,
    records_of: RecordsOf,
    data: str,
    stamp: str,
    checkpoint: Path,
    out: Path,
    append: bool = False,
) -> dict[Kind, StoreWriter]:
    """Stores of these records below `out`, begun or gone on with; `stamp` tells the weights that they are of. What is
    appended to is kept as it was, where no views are asked for.
    """
    views, trained = parse_views(config.encode.views), description.trained
    writers: dict[Kind, StoreWriter] = {}
    for kind, records in records_of.items():
        there = read_manifest(out / kind) if append and not views and (out / kind / "manifest.json").is_file() else None
        manifest = Manifest(
            kind=kind,
            fingerprint=stamp,
            checkpoint=str(checkpoint.resolve()),
            data=data,
            shard_size=config.encode.shard_size,
            content_hash="",
            arrays=there.arrays if there else arrays_for(views, trained, kind, config.encode.precision),
            single_dims=trained.single_dims,
            multi_dims=trained.multi_dims,
            pooling=config.encode.pooling,
            position_weight=description.multi.position_weight,
            show=description.show,
            command=provenance.command(),
            commit=provenance.commit(),
        )
        writers[kind] = begin(out / kind, manifest, {record.id: record_hash(record) for record in records}, append)
    return writers


def fill_stores(
    config: Config,
    model: Retriever,
    records_of: RecordsOf,
    writers: Mapping[Kind, StoreWriter],
    shards: Mapping[Kind, Sequence[int]],
) -> None:
    """Encode and write these shards."""
    for kind, records in records_of.items():
        writer = writers[kind]
        for number in shards[kind]:
            some = _records(records, writer, number)
            label = f"{kind}, shard {number + 1} of {len(writer.manifest.shards)}"
            embedded = embed(model, kind, some, config.encode.batch_size, config.encode.workers, label)
            manifest = writer.manifest
            writer.write(number, {spec.name: _array(embedded, spec, manifest) for spec in manifest.arrays})


def finish_stores(writers: Mapping[Kind, StoreWriter]) -> None:
    """Once nothing is missing."""
    for writer in writers.values():
        writer.finish()


def _records(
    records: Records[Document] | Records[Query], writer: StoreWriter, number: int
) -> Sequence[Document] | Sequence[Query]:
    """A shard's; in the place of one that is removed and not in the data, any other: nothing reads it."""
    ids, hidden = writer.ids(number), writer.hidden(number)
    absent = [name for row, name in enumerate(ids) if name not in records.position and row not in hidden]
    if absent:
        raise InputError(
            f"{writer.folder}: shard {number} has to be made anew, but the data has no {absent[0]!r}: give the data "
            "it was encoded from, or encode all into another folder"
        )
    found = [records.named(name) if name in records.position else records[0] for name in ids]
    return cast(Sequence[Document] | Sequence[Query], found)


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
    together = batches([model.inputs.about(record) for record in records], batch_size, model.device)
    build: Any = model.inputs.documents if kind == "documents" else model.inputs.queries
    loader = DataLoader(
        [[records[i] for i in batch] for batch in together],  # pyright: ignore[reportArgumentType]
        batch_size=None,
        collate_fn=build,
        num_workers=workers,
        worker_init_fn=data_worker,
    )
    single: list[Tensor | None] = [None] * len(records)
    multi: list[MultiVectors | None] = [None] * len(records)
    with torch.inference_mode():
        for batch, inputs in track(zip(together, loader, strict=True), label, len(together)):
            result = model({name: tensor.to(model.device) for name, tensor in inputs.items()})
            for place, i in enumerate(batch):
                if result.single is not None:
                    single[i] = result.single[place].cpu()
                if result.multi is not None:
                    multi[i] = result.multi.slice(place, place + 1).to("cpu")
    return Embeddings(
        single=torch.stack([v for v in single if v is not None]) if model.single is not None else None,
        multi=MultiVectors.cat([v for v in multi if v is not None]) if model.multi is not None else None,
    )


def _array(embedded: Embeddings, spec: ArraySpec, manifest: Manifest) -> np.ndarray | MultiVectors:
    if spec.head == "single":
        assert embedded.single is not None
        return truncate(embedded.single, spec.dim).numpy()
    items = embedded.multi
    assert items is not None
    if spec.vectors is None:
        return items.truncate(spec.dim)
    vectors, offsets = pool_records(
        items.vectors.numpy(),
        items.offsets.numpy(),
        spec.vectors,
        items.positions.numpy() if items.positions is not None else None,
        manifest.pooling,
        manifest.position_weight,
    )
    return MultiVectors(truncate(torch.from_numpy(vectors), spec.dim), torch.from_numpy(offsets))
