"""Stores to search: clustered vectors that look like pages', and real pages and abstracts through a real model."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from colmrl.data.fingerprint import record_hash
from colmrl.data.records import Document, Query
from colmrl.scoring import MultiVectors
from colmrl.store import ArraySpec, Manifest, begin
from colmrl.store.manifest import Kind

DIM = 128
SHARD = 1000


def clustered(folder: Path, documents: int, tokens: int, queries: int, data: Path | None = None) -> Path:
    """Books of 25 pages: a page's patches are drawn from 40 of the 160 things that its book shows, of 4,000 that there
    are (some far more often than others), moved by its own and its book's topic and by noise; leading dims hold more of
    the energy, as trained Matryoshka dims do. A query: 24 noisy patches of one page. single: the mean of a page's.
    `data`: a folder to write, with a text and its book for each page; where it is given, the store is of it.
    """
    if (folder / "queries" / "manifest.json").is_file():
        return folder
    rng = np.random.default_rng(0)
    spectrum = (1 + np.arange(DIM)) ** -0.5

    def drawn(*shape: int) -> np.ndarray:
        return unit(rng.standard_normal((*shape, DIM)) * spectrum)

    things, share = drawn(4000), (1 + np.arange(4000)) ** -0.7
    items: list[np.ndarray] = []
    book, theme = np.empty(0), np.empty(0)
    for page in range(documents):
        if page % 25 == 0:
            book, theme = rng.choice(4000, 160, replace=False, p=share / share.sum()), drawn()
        shown = rng.choice(rng.choice(book, 40, replace=False), tokens)
        items.append(unit(things[shown] + 0.28 * (theme + drawn()) + 0.5 * drawn(tokens)))
    asked = [items[page] for page in rng.integers(documents, size=queries)]
    asked = [unit(page[rng.choice(tokens, min(24, tokens), replace=False)]) for page in asked]
    asked = [unit(patches + 0.6 * drawn(len(patches))) for patches in asked]
    for kind, some in (("documents", items), ("queries", asked)):
        _write(folder / kind, kind, some, data)
    return folder


def encoded(folder: Path, data: Path, model: Path) -> Path:
    """A real text model's token vectors of real texts, a page's text layer or an abstract, up to 510 tokens: MiniLM as
    published, its 384 dims projected to 128 by the multi head as it is initialised (random, not trained); single: its
    own mean. Made by colmrl train (no step) and colmrl encode.
    """
    if (folder / "queries" / "manifest.json").is_file():
        return folder
    run = folder.with_name(folder.name + "-model")
    split = "train" if (data / "qrels/train.tsv").is_file() else "test"
    settings = [f"model.backbone={model}", "model.tuning=frozen", "model.document_fields=[text]", f"data.path={data}"]
    settings += [f"data.train_split={split}", "single.dims=[384,128,64]", f"multi.dims=[{DIM},64]", f"output={run}"]
    commands = [
        ["train.py", *settings, "train.max_steps=0"],
        ["encode.py", "--checkpoint", str(run / "checkpoint"), "--data", str(data), "--out", str(folder)],
    ]
    for command in commands:
        subprocess.run([sys.executable, *command, "threads=1"], check=True)
    return folder


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def _records(kind: Kind, count: int, data: Path) -> list[Document] | list[Query]:
    """Written as the data's corpus, or queries."""
    data.mkdir(parents=True, exist_ok=True)
    if kind == "queries":
        asked = [Query(f"q{row}", f"query {row}") for row in range(count)]
        lines = [{"_id": query.id, "text": query.text} for query in asked]
        (data / "queries.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return asked
    pages = [Document(f"d{row}", f"page {row} of book {row // 25}", meta={"book": row // 25}) for row in range(count)]
    lines = [{"_id": page.id, "text": page.text, "meta": dict(page.meta)} for page in pages]
    (data / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return pages


def _write(folder: Path, kind: Kind, items: list[np.ndarray], data: Path | None) -> None:
    records = _records(kind, len(items), data) if data else None
    hashes = {f"{kind[0]}{row}": str(row) for row in range(len(items))}
    if records:
        hashes = {record.id: record_hash(record) for record in records}
    manifest = Manifest(
        kind=kind,
        fingerprint="clustered",
        checkpoint="none",
        data=str(data.resolve()) if data else "none",
        shard_size=SHARD,
        content_hash="",
        arrays=(ArraySpec("single", DIM), ArraySpec("multi", DIM)),
        single_dims=(DIM, 64),
        multi_dims=(DIM, 64),
    )
    writer = begin(folder, manifest, hashes)
    for shard in writer.missing():
        some = items[shard * SHARD : (shard + 1) * SHARD]
        multi = MultiVectors.pack([torch.from_numpy(item) for item in some])
        writer.write(shard, {"single": unit(np.stack([item.mean(0) for item in some])), "multi": multi})
    writer.finish()
