"""What a checkpoint makes of mteb's tasks, in stores: each corpus and each set of queries encoded once, in full.

    FOLDER/<fingerprint>/<task>/documents-<content>/documents/     a store, from which every view is read;
                                                    indexes/       what searches it
    FOLDER/<fingerprint>/<task>/queries-<content>/queries/
    FOLDER/pictures/                                               files of pictures that data sets hold as bytes

Stores are known by the content of their records: languages or splits of a task that share a corpus share its encoding,
and a data set that changed is encoded anew.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from colmrl.config import Config
from colmrl.configure import replace
from colmrl.data.fingerprint import content_hash
from colmrl.data.records import Document, Query, Records
from colmrl.encoding import begin_stores, fill_stores, finish_stores
from colmrl.models.inputs import InputBuilder
from colmrl.models.retriever import Retriever, fingerprint, read_description, read_processor
from colmrl.models.sources import located
from colmrl.runtime import use_torch
from colmrl.store import EmbeddingStore, StoreWriter
from colmrl.store.manifest import FINISHED, PLANNED, Kind


class TaskStores:
    """Of one checkpoint, which is read when something is to be encoded."""

    def __init__(self, config: Config, checkpoint: str | Path, folder: str | Path):
        self.config = replace(config, encode={"views": (), "precision": "fp32"})
        self.checkpoint = located(checkpoint)
        self.description = read_description(self.checkpoint)
        self.stamp = fingerprint(self.checkpoint)
        self.folder = Path(folder)

    @property
    def pictures(self) -> Path:
        return self.folder / "pictures"

    @cached_property
    def device(self) -> str:
        return use_torch(self.config)

    @cached_property
    def model(self) -> Retriever:
        return Retriever.load(self.checkpoint, self.config.attention_kernel).to(self.device).eval()

    @cached_property
    def sees_pictures(self) -> bool:
        model = self.description.model
        processor = read_processor(self.checkpoint)
        return InputBuilder(processor, model).sees_pictures

    def shown(self, modalities: Sequence[str]) -> list[str]:
        """What the model is shown of what a task has: a text model reads pages' texts."""
        return [name for name in modalities if name == "text" or (name == "image" and self.sees_pictures)]

    def task_folder(self, task: str) -> Path:
        return self.folder / self.stamp / re.sub(r"[^\w.()-]", "_", task)

    def encoded(self, kind: Kind, records: Records[Document] | Records[Query], task: str) -> EmbeddingStore:
        """The store of these records; what is missing of it is encoded first, shard by shard."""
        pooling = self.config.encode.pooling
        made = content_hash(records)[:16] + ("" if pooling == "ward" else f"-{pooling}")
        place = self.task_folder(task) / f"{kind}-{made}"
        config = self.config
        if any((place / kind / name).is_file() for name in (FINISHED, PLANNED)):  # begun with shards of another size
            config = replace(config, encode={"shard_size": StoreWriter(place / kind).manifest.shard_size})
        records_of: Mapping[Kind, Records[Document] | Records[Query]] = {kind: records}
        writers = begin_stores(
            config, self.description, records_of, f"mteb: {task}", self.stamp, self.checkpoint, place
        )
        if missing := writers[kind].missing():
            fill_stores(config, self.model, records_of, writers, {kind: missing})
        finish_stores(writers)
        return EmbeddingStore(place / kind)
