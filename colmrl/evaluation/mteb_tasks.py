"""Which tasks mteb (2.26) judges: by name, of a benchmark, or made of any data that we read, pictures and all."""

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

import mteb
from datasets import Dataset, Features, Image, List, Value
from datasets.arrow_writer import ArrowWriter
from mteb.abstasks import AbsTask
from mteb.abstasks.aggregated_task import AbsTaskAggregate
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata

from colmrl.config import Config, ShowConfig
from colmrl.data.fingerprint import content_hash
from colmrl.data.media import open_image
from colmrl.data.reading import read_collection
from colmrl.data.records import Collection, Document, Qrels, Query
from colmrl.errors import InputError
from colmrl.evaluation.run import judgements
from colmrl.files import absolute, is_file, write_whole

log = logging.getLogger(__name__)


def named_tasks(names: Sequence[str]) -> list[AbsTask]:
    """Tasks of mteb by their names."""
    found = []
    for name in names:
        try:
            found.append(mteb.get_task(name))
        except KeyError as error:
            raise InputError(f"--task {name}: no task of mteb ({_said(error)}): check the name") from None
    return found


def benchmark_tasks(name: str) -> list[AbsTask]:
    try:
        return list(mteb.get_benchmark(name).tasks)
    except KeyError as error:
        raise InputError(
            f"--benchmark {name}: no benchmark of mteb ({_said(error)}): check it, or give --task"
        ) from None


def is_retrieval(task: AbsTask) -> bool:
    """What a search can be judged by: retrieval, and reranking of lists that the task gives."""
    if isinstance(task, AbsTaskAggregate):
        return all(map(is_retrieval, task.metadata.tasks))
    return isinstance(task, AbsTaskRetrieval)


@dataclass(frozen=True)
class Shown:
    """What any of some records has."""

    text: bool
    pictures: int  # of the one that has most

    @classmethod
    def of(cls, records: Iterable[Query] | Iterable[Document]) -> "Shown":
        text, pictures = False, 0
        for record in records:
            text |= bool(record.body if isinstance(record, Document) else record.text)
            pictures = max(pictures, len(record.images))
        return cls(text, pictures)

    @property
    def letters(self) -> str:
        """As mteb's categories write it."""
        return "i" * bool(self.pictures) + "t" * self.text

    @property
    def columns(self) -> Features:
        """One picture a row, as mteb's own models expect, unless some record has several."""
        picture = {} if not self.pictures else {"image": Image() if self.pictures == 1 else List(Image())}
        return Features({"id": Value("string"), "title": Value("string"), "text": Value("string"), **picture})


class LocalRetrieval(AbsTaskRetrieval):
    """A split of a collection, in files that are mapped, not held. `local_task` makes a class of it for each."""

    collection: ClassVar[Collection]
    folder: ClassVar[Path]
    asks: ClassVar[Shown]
    shows: ClassVar[Shown]

    def load_data(self, num_proc: int | None = None, **_: Any) -> None:
        if self.data_loaded:
            return
        (split,) = self.metadata.eval_splits
        qrels, folder = self.collection.judged(split), self.folder / self.metadata.revision
        queries = map(self.collection.queries.named, qrels)
        data = {
            "corpus": _dataset(folder / "corpus.arrow", self.collection.documents, self.shows.columns),
            "queries": _dataset(folder / "queries.arrow", queries, self.asks.columns),
            "relevant_docs": {query: dict(judged) for query, judged in qrels.items()},
            "top_ranked": None,
        }
        self.dataset = {"default": {split: data}}  # pyright: ignore[reportAttributeAccessIssue]
        self.data_loaded = True


def local_task(config: Config, data: str, show: ShowConfig, folder: Path) -> AbsTaskRetrieval:
    """A data set in any format that we read (split `data.eval_split`), as a task; its files for mteb go to `folder`.
    Scored by nDCG@5 where documents have pictures, as ViDoRe is, else by nDCG@10.
    """
    collection, split = read_collection(data, config.data, show), config.data.eval_split
    named = "-".join(Path(data).resolve().parts[-2:])  # test and train are names of many
    qrels = judgements(collection, split)
    if collection.itself:
        raise InputError(
            f"{data}: queries that are documents themselves: mteb cannot leave a query out of its own answers: judge "
            "it by eval.py --checkpoint"
        )
    queries = [collection.queries.named(query) for query in qrels]
    asks, shows = Shown.of(queries), Shown.of(collection.documents)
    category = f"{asks.letters}2{shows.letters}"
    metadata = TaskMetadata.model_validate(
        {
            "name": f"local-{re.sub(r'[^0-9A-Za-z_.-]', '_', named)}",
            "description": f"{data}, split {split}: {len(queries)} queries, {len(collection.documents)} documents.",
            "dataset": {"path": absolute(data), "revision": _revision(collection, queries, qrels)},
            "type": "DocumentUnderstanding" if shows.pictures else "Retrieval",
            "category": category,
            "modalities": [name for letter, name in (("t", "text"), ("i", "image")) if letter in category],
            "eval_splits": [split],
            "eval_langs": ["und-Zyyy"],  # undetermined
            "main_score": "ndcg_at_5" if shows.pictures else "ndcg_at_10",
            "is_public": False,
        }
    )
    known = {"metadata": metadata, "collection": collection, "folder": folder, "asks": asks, "shows": shows}
    return type("Local", (LocalRetrieval,), known)()


def _revision(collection: Collection, queries: Sequence[Query], qrels: Qrels) -> str:
    """Of the content: results of other data are not taken for this one's."""
    judged = sorted((query, sorted(of.items())) for query, of in qrels.items())
    content = [content_hash(collection.documents), content_hash(queries), judged]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def _stored(reference: str) -> dict[str, Any]:
    """A file by its path; a frame of a video or a cell of a table, which mteb could not open, as a PNG's bytes."""
    if is_file(Path(reference)):
        return {"path": absolute(reference), "bytes": None}
    held = BytesIO()
    open_image(reference).save(held, "PNG")
    return {"path": None, "bytes": held.getvalue()}


def _dataset(path: Path, records: Iterable[Query] | Iterable[Document], columns: Features) -> Dataset:
    def write(partial: Path) -> None:
        writer = ArrowWriter(path=str(partial), features=columns)
        for record in records:
            images = [_stored(image) for image in record.images]
            row = {"id": record.id, "title": getattr(record, "title", ""), "text": record.text}
            if "image" in columns:
                row["image"] = images if isinstance(columns["image"], List) else next(iter(images), None)
            writer.write(row)
        writer.finalize()

    if not path.is_file():
        write_whole(path, write)
    return Dataset.from_file(str(path))


def _said(error: KeyError) -> str:
    return str(error.args[0]).rstrip(".?")
