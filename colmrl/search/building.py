"""A store → one index a view, a shard at a time; and what the index is worth: recall against exact search, bytes, time.

A folder appears whole; a build that was killed starts again and ends in the same bytes. HNSW's graph depends on the
order in which threads add to it: it is built on one.
"""

import dataclasses
import json
import logging
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from jaxtyping import Float, Int

from colmrl import provenance
from colmrl.config import Config
from colmrl.errors import InputError
from colmrl.files import locked, new_folder
from colmrl.progress import track
from colmrl.search.asked import Asked
from colmrl.search.exact import exact
from colmrl.search.faiss_types import LISTED, LOSSY, check_type, lists_for, new_index, train
from colmrl.search.index_files import IndexManifest, Measured, read_facts, read_index, write_facts, write_index
from colmrl.search.indexed import Opened, open_finder
from colmrl.store import EmbeddingStore
from colmrl.view import View

log = logging.getLogger(__name__)
_PROBES, _CANDIDATES = 32, 100  # where the settings leave them to us
_DEEPEST = 100  # ranks that recall is taken at, and the ten best
_TIMED = 10  # queries, of exact search one at a time: it may read the store for each
_OF_SEARCH = ("probes", "candidates", "queries", "gpu")  # settings that an index is measured by, and not rebuilt for
Block = tuple[Float[np.ndarray, "n h"], Int[np.ndarray, " n"]]  # vectors, and whose they are


@dataclass(frozen=True)
class Built:
    """An index's folder, what its manifest says, and whether it was there already."""

    folder: Path
    manifest: IndexManifest
    measured: Measured
    there: bool

    @property
    def slower(self) -> bool:
        """Than exact search."""
        return self.measured.query_ms > self.measured.exact_ms


def build_indexes(
    config: Config,
    store: str | Path,
    views: Sequence[View],
    out: str | Path | None = None,
    documents: EmbeddingStore | None = None,
) -> list[Built]:
    """One index for each view of `store`, of `config.index.type`, in `out`/VIEW-TYPE (None: beside the store).
    `documents`: the store's, where they have been opened.

    What is there already by the same settings stays; by other settings of search alone it is measured anew; by others
    it is an InputError.
    """
    store = Path(store)
    out = Path(out) if out else store.parent / "indexes"
    documents = documents or EmbeddingStore(store / "documents")
    if not len(documents):
        raise InputError(f"{store}/documents: holds no documents: encode some first")
    for view in views:
        check_type(view, config.index.type)
        documents.array_of(view)
    if config.threads is not None:
        faiss.omp_set_num_threads(config.threads)
        torch.set_num_threads(config.threads)
    found = []
    for view in views:
        folder = out / f"{view.slug}-{config.index.type}"
        there = (folder / "manifest.json").is_file()
        if there:
            with locked(folder, beside=True):
                _go_on(folder, config, documents, queries_of(store), view)
        else:
            _build(folder, config, documents, queries_of(store), view)
        found.append(Built(folder, *read_facts(folder), there))
    return found


@new_folder
def _build(folder: Path, config: Config, documents: EmbeddingStore, queries: EmbeddingStore | None, view: View) -> None:
    settings, started = config.index, time.perf_counter()
    index, lists, vectors, sampled = _fill(config, documents, view)
    size, digest = write_index(folder, index)
    seconds = time.perf_counter() - started
    searched, query_ms, exact_ms = _searched(config, documents, queries, view, index, lists)
    manifest = IndexManifest(
        store=str(documents.folder.parent.resolve()),
        stamp=documents.stamp,
        view=str(view),
        type=settings.type,
        seed=config.seed,
        documents=len(documents),
        vectors=vectors,
        lists=lists,
        training_vectors=sampled,
        bytes=size,
        hash=digest,
        threads=faiss.omp_get_max_threads(),
        faiss=faiss.__version__,
        command=provenance.command(),
        commit=provenance.commit(),
        **searched,
    )
    write_facts(folder, manifest, Measured(round(seconds, 3), query_ms, exact_ms))


def _go_on(folder: Path, config: Config, documents: EmbeddingStore, queries: EmbeddingStore | None, view: View) -> None:
    """With an index that is there."""
    manifest, measured = read_facts(folder)
    settings = _settings(config)
    _check_same(folder, manifest, documents, settings)
    if settings == manifest.settings:
        log.info("%s: already there", folder)
        return
    log.info("%s: already there: only how it is searched is another: measured anew", folder)
    index = read_index(folder, manifest)
    searched, query_ms, exact_ms = _searched(config, documents, queries, view, index, manifest.lists)
    manifest = dataclasses.replace(manifest, threads=faiss.omp_get_max_threads(), **searched)
    write_facts(folder, manifest, Measured(measured.build_s, query_ms, exact_ms))


def _searched(
    config: Config,
    documents: EmbeddingStore,
    queries: EmbeddingStore | None,
    view: View,
    index: Any,
    lists: int | None,
) -> tuple[dict[str, Any], float, float]:
    """What a manifest says of how the index is searched and what it finds so; milliseconds by it, and exactly."""
    settings = config.index
    probes = (settings.probes or _PROBES) if settings.type in LISTED or settings.type == "hnsw" else None
    candidates = settings.candidates or _CANDIDATES
    refined = view.head == "multi" or settings.type in LOSSY
    finder = open_finder(documents, view, settings.type, index, Opened(probes or 1, candidates, settings.gpu))
    asked = drawn(queries, documents, view, config)
    recall, query_s, exact_s = _measure(finder.find, exact(documents, view, settings.gpu).find, asked, len(documents))
    facts = {
        "settings": _settings(config),
        "probes": min(probes, lists) if probes and lists else probes,
        "candidates": candidates if refined else None,
        "recall": recall,
        "queries": len(asked),
        "queries_of": "documents" if queries is None else "queries",
    }
    return facts, round(query_s * 1e3, 3), round(exact_s * 1e3, 3)


def _fill(config: Config, documents: EmbeddingStore, view: View) -> tuple[Any, int | None, int, int]:
    """The index with all vectors; its lists, how many vectors it has, and how many it was trained on."""
    settings = config.index
    lists, sampled, vectors = None, 0, 0
    if settings.type in LISTED:
        sample, vectors = _sample(_blocks(documents, view), settings.training_vectors, config.seed)
        lists, sampled = lists_for(settings.lists, vectors, len(sample)), len(sample)
        index = new_index(view, settings.type, lists, sampled)
        train(index, sample, config.seed, settings.gpu)
        del sample
    else:
        index = new_index(view, settings.type, None, 0)
    threads = faiss.omp_get_max_threads()
    if settings.type == "hnsw":
        faiss.omp_set_num_threads(1)
    for block, rows in track(_blocks(documents, view), f"index {view}", len(documents.manifest.shards)):
        index.add_with_ids(block, rows) if view.head == "multi" else index.add(block)
    faiss.omp_set_num_threads(threads)
    return index, lists, int(index.ntotal), sampled


def _blocks(documents: EmbeddingStore, view: View) -> Iterator[Block]:
    """A shard's vectors at a time, and the document of each."""
    start = 0
    if view.head == "single":
        for vectors in documents.single(view):
            yield np.ascontiguousarray(vectors), np.arange(start, start + len(vectors))
            start += len(vectors)
        return
    for items in documents.multi(view):
        rows = torch.arange(start, start + len(items)).repeat_interleave(items.counts)
        yield np.ascontiguousarray(items.vectors.numpy()), rows.numpy()
        start += len(items)


def _sample(blocks: Iterator[Block], most: int, seed: int) -> tuple[Float[np.ndarray, "m h"], int]:
    """At most so many vectors, each as likely as any other, in their order; and how many there are. Each vector draws
    a number, the smallest stay: memory holds these and one block.
    """
    rng = np.random.default_rng(seed)
    kept: np.ndarray | None = None
    drawn, total = np.empty(0), 0
    for block, _ in blocks:
        new, total = rng.random(len(block)), total + len(block)
        better = new < (drawn.max() if len(drawn) == most else np.inf)
        drawn = np.concatenate([drawn, new[better]])
        kept = block[better] if kept is None else np.concatenate([kept, block[better]])
        if len(drawn) > most:
            stay = np.sort(np.argpartition(drawn, most - 1)[:most])
            drawn, kept = drawn[stay], kept[stay]
    assert kept is not None, "a store without shards"
    return kept, total


def _measure(find: Any, find_exactly: Any, asked: Asked, documents: int) -> tuple[dict[str, float], float, float]:
    """Recall at 10 and 100 against exact search, and the median seconds of a query by either."""
    depth = min(_DEEPEST, documents)
    found, seconds = _one_at_a_time(find, asked, depth)
    _, exact_seconds = _one_at_a_time(find_exactly, asked.rows(range(len(asked))[:_TIMED]), depth)
    best = find_exactly(asked, depth)[1]
    at = {str(k): recall_at(k, np.stack(found), best) for k in (10, _DEEPEST)}
    return at, seconds, exact_seconds


def _one_at_a_time(find: Any, asked: Asked, k: int) -> tuple[list[Int[np.ndarray, " n"]], float]:
    """What is found for each query, and the median seconds of one."""
    times, found = [], []
    for row in range(len(asked)):
        one = asked.rows([row])
        started = time.perf_counter()
        found.append(find(one, k)[1][0])
        times.append(time.perf_counter() - started)
    return found, statistics.median(times)


def recall_at(k: int, found: Int[np.ndarray, "q n"], best: Int[np.ndarray, "q m"]) -> float:
    """The share of the `k` best that are among the first `k` found."""
    shares = [np.isin(wanted[:k], ranked[:k]).mean() for ranked, wanted in zip(found, best, strict=True)]
    return float(np.mean(shares))


def queries_of(store: Path) -> EmbeddingStore | None:
    """The store's queries, where there are any."""
    queries = EmbeddingStore(store / "queries") if (store / "queries" / "manifest.json").is_file() else None
    return queries if queries is not None and len(queries) else None


def drawn(queries: EmbeddingStore | None, documents: EmbeddingStore, view: View, config: Config) -> Asked:
    """Queries to measure with; documents' own vectors where there are no queries."""
    of = documents if queries is None else queries
    rng = np.random.default_rng(config.seed)
    rows = np.sort(rng.choice(len(of), min(config.index.queries, len(of)), replace=False)).tolist()
    if queries is not None:
        return Asked.of_store(queries, rows)
    names = [documents.ids[row] for row in rows]
    if view.head == "single":
        return Asked(names, documents.single_rows(view, rows), None)
    return Asked(names, None, documents.multi_rows(view, rows))


def _settings(config: Config) -> dict[str, Any]:
    return {**dataclasses.asdict(config.index), "seed": config.seed}


def _check_same(folder: Path, manifest: IndexManifest, documents: EmbeddingStore, settings: dict[str, Any]) -> None:
    """Raise an InputError unless the same bytes would be built."""
    before = manifest.settings
    different = [
        f"{'' if name == 'seed' else 'index.'}{name}={json.dumps(before.get(name))}, not {json.dumps(value)}"
        for name, value in settings.items()
        if name not in _OF_SEARCH and before.get(name) != value
    ]
    if manifest.stamp != documents.stamp:
        different = [f"the store {manifest.store} as it was, not {documents.folder.parent} as it is", *different]
    if different:
        raise InputError(f"{folder}: was built with {'; '.join(different)}: remove it, or give another --out")
