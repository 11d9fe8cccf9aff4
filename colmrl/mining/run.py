"""Mining: the store's queries, a block at a time, through search, steps and sampling into triples."""

import json
import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from colmrl import provenance
from colmrl.config import Config
from colmrl.configure import to_dict
from colmrl.data.reading import known_answers, read_collection
from colmrl.data.records import Collection, Triple, relevant
from colmrl.data.triples import write_triples
from colmrl.errors import InputError
from colmrl.files import digest, locked, write_text
from colmrl.mining import filters
from colmrl.mining.block import Block, Known
from colmrl.mining.contents import Contents
from colmrl.mining.report import EXAMPLES, Tally, picture_path, report_path, write_picture, write_readable
from colmrl.mining.steps import Step, make_steps
from colmrl.mining.teacher import Teacher, open_teacher
from colmrl.progress import track
from colmrl.reranking.candidates import generator
from colmrl.runtime import use_torch
from colmrl.search import Asked, Plan, open_searcher
from colmrl.search.index_files import IndexManifest, read_facts
from colmrl.search.rescoring import pair_scores
from colmrl.store import EmbeddingStore, check_same_data, read_manifest

log = logging.getLogger(__name__)
_QUERIES = 16384  # a block at most: documents are read once for each
_CANDIDATES = 1 << 21  # a block at most, each of about a hundred bytes


@dataclass(frozen=True)
class Source:
    """What is mined: data, its store, and how it is searched, by an index or (None) exactly. `positives`: query → its
    positives, sorted, of those that have any; `known`: query → what is never its negative.
    """

    collection: Collection
    root: str
    documents: EmbeddingStore
    queries: EmbeddingStore
    plan: Plan
    index: IndexManifest | None
    positives: Mapping[str, list[str]]
    known: Mapping[str, set[str]]


def mine(config: Config, store: str | Path, out: str | Path) -> Path:
    """Mine triples for a split's queries from a store: writes `out`, and beside it what `report` says.

    `out` appears last and whole: what is there is of a finished mining. Raises InputError where `out` exists, the data
    does not fit the store, or no pair keeps a negative.
    """
    store, out = Path(store), Path(out)
    if out.exists():
        raise InputError(f"{out}: exists already: choose another --out, or remove it")
    with locked(out, beside=True):
        return _mined(config, store, out)


def _mined(config: Config, store: Path, out: Path) -> Path:
    use_torch(config)
    source = open_source(config, store)
    teachers: list[Teacher] = []
    steps = open_steps(config, source, teachers)
    tally = Tally([step.label for step in steps])
    _clear(out)
    partial_out = out.with_name(f"{out.name}.partial")
    triples = _counted(mine_triples(config, source, steps, tally), tally, config.seed)
    try:
        write_triples(partial_out, triples, source.collection.queries, source.collection.documents, source.root)
        _check_any(tally)
    except InputError:
        _clear(out)
        raise
    report = _report(config, store, source, tally, teachers, partial_out)
    write_picture(out, report)
    write_readable(out, report, tally.examples, source.collection)
    write_text(report_path(out), json.dumps(report, indent=2))
    partial_out.replace(out)
    log.info("%s: %s", out, ", ".join(f"{value} {name}" for name, value in tally.counts.items()))
    return out


def open_source(config: Config, store: Path) -> Source:
    """The store and the data it was encoded from, or where that is now (data.path)."""
    manifest = read_manifest(store / "documents")
    root = config.data.path or manifest.data
    collection = read_collection(root, config.data, manifest.show)
    documents, queries = EmbeddingStore(store / "documents"), EmbeddingStore(store / "queries")
    check_same_data(documents, collection.documents, root)
    check_same_data(queries, collection.queries, root)
    split = config.data.train_split
    gone = documents.removed
    positives = {query: sorted(relevant(judged) - gone) for query, judged in collection.judged(split).items()}
    positives = {query: names for query, names in positives.items() if names}
    if not positives:
        raise InputError(f"{collection.source}: split {split!r}: no score above 0: there is nothing to mine for")
    index = read_facts(Path(config.mine.index))[0] if config.mine.index else None
    view = config.mine.view or (index.view if index else str(documents.views()[0]))
    known = {query: names - gone for query, names in known_answers(collection, split).items()}
    return Source(collection, str(root), documents, queries, Plan.parse(view), index, positives, known)


def mine_triples(config: Config, source: Source, steps: Sequence[Step], tally: Tally) -> Iterator[Triple]:
    """One triple for each (query, positive) pair, in the order of the judgements. A pair that keeps no negative stays,
    with none: it still trains against the batch.
    """
    ids = source.documents.ids
    for block in found_blocks(config, source):
        tally.counts["queries"] += len(block.query_ids)
        tally.counts["candidates"] += int(block.left.sum())
        tally.score("positives", block.positive_scores)
        for number, step in enumerate(steps):
            before = block.left.sum()
            block = step.apply(block)
            tally.removed[number] += int(before - block.left.sum())
            if number == 0:
                tally.score("candidates", block.scores[block.left])
        kept = sampled(config, block)
        tally.counts["kept candidates"] += int(kept.sum())
        tally.score("negatives", block.scores[kept])
        asked = tally.counts["queries"]
        if asked == len(block.query_ids) < len(source.positives) and not kept.any():
            log.warning("none of the first %d queries keeps a negative: %s", asked, _left(tally))
        yield from _triples(block, kept, ids)


def found_blocks(config: Config, source: Source) -> Iterator[Block]:
    """Queries with what the search finds, a block at a time."""
    index, how = Path(config.mine.index) if config.mine.index else None, config.index
    searcher = open_searcher(source.documents, source.plan, config.mine.gpu, index, how.probes, how.candidates)
    row_of = {name: row for row, name in enumerate(source.queries.ids)}
    place_of = {name: row for row, name in enumerate(source.documents.ids)}
    names = list(source.positives)
    size = max(1, min(_QUERIES, _CANDIDATES // config.mine.k))
    starts = range(0, len(names), size)
    for start in track(starts, "mining", len(starts)):
        some = names[start : start + size]
        asked = Asked.of_store(source.queries, [row_of[name] for name in some])
        ranking = searcher.rank(asked, config.mine.k)
        rows, answers = positives = _pairs(some, source.positives, place_of)
        scores = pair_scores(source.documents, source.plan.view, asked.rows(rows.tolist()), answers[:, None])[:, 0]
        yield Block(
            query_ids=some,
            positions=ranking.positions,
            scores=ranking.scores,
            left=ranking.positions >= 0,
            positives=positives,
            positive_scores=scores,
            known=_pairs(some, source.known, place_of),
        )


def sampled(config: Config, block: Block) -> Bool[np.ndarray, "q k"]:
    """Which of those that are left become negatives; what is drawn depends on the seed and the query alone."""
    if config.mine.sampling == "top":
        return filters.best(block.left, config.mine.negatives)
    depth = block.left.shape[1]
    lots = [generator(config.seed, name).random(depth) for name in block.query_ids]
    return filters.drawn(block.left, config.mine.negatives, np.stack(lots))


def _triples(block: Block, kept: Bool[np.ndarray, "q k"], ids: list[str]) -> Iterator[Triple]:
    """With the teacher's scores where there is one, else the search's."""
    scores = block.scores if block.judged is None else block.judged
    positive_scores = block.positive_scores if block.judged_positives is None else block.judged_positives
    ends = np.cumsum(kept.sum(1))
    names = [ids[place] for place in block.positions[kept]]
    values = scores[kept].tolist()
    for row, place, score in zip(*map(np.ndarray.tolist, (*block.positives, positive_scores)), strict=True):
        some = slice(ends[row - 1] if row else 0, ends[row])
        positive = None if np.isnan(score) else score
        yield Triple(block.query_ids[row], ids[place], tuple(names[some]), positive, tuple(values[some]))


def _counted(triples: Iterator[Triple], tally: Tally, seed: int) -> Iterator[Triple]:
    """Count them as they go by, and keep those to be read: of all with negatives each as likely (a reservoir)."""
    draw, drawn, seen = random.Random(seed), dict[int, tuple[int, Triple]](), 0
    for triple in triples:
        tally.counts["pairs"] += 1
        tally.counts["negatives"] += len(triple.neg_ids)
        tally.counts["pairs left without negatives"] += not triple.neg_ids
        if triple.neg_ids:
            place = seen if seen < EXAMPLES else draw.randrange(seen + 1)
            if place < EXAMPLES:
                drawn[place] = seen, triple
            seen += 1
        yield triple
    tally.examples = [triple for _, triple in sorted(drawn.values(), key=lambda one: one[0])]


def _check_any(tally: Tally) -> None:
    if not tally.counts["negatives"]:
        raise InputError(
            f"mine.k, mine.filters: no pair keeps a negative ({_left(tally)}): search deeper, or filter less"
        )


def _left(tally: Tally) -> str:
    """How many candidates there were, and how many each step left."""
    left = (f"{step['step']} left {step['left']}" for step in tally.steps())
    return "; ".join([f"{tally.counts['candidates']} candidates", ", ".join(left)])


def _clear(out: Path) -> None:
    """Remove what a run that did not finish left of triples and of what stands beside them."""
    for path in out.parent.glob("*.partial"):
        if path.name.startswith((f"{out.name}.", f"{picture_path(out).name}.")):
            path.unlink()


def _pairs(
    query_ids: Sequence[str], named: Mapping[str, list[str]] | Mapping[str, set[str]], place_of: Mapping[str, int]
) -> Known:
    pairs = [(row, place_of[name]) for row, query in enumerate(query_ids) for name in named[query] if name in place_of]
    rows, places = zip(*pairs, strict=True)
    return np.array(rows), np.array(places)


def open_steps(config: Config, source: Source, teachers: list[Teacher]) -> list[Step]:
    ids, query_ids = source.documents.ids, list(source.positives)

    def opened(settings: Any) -> Teacher:
        teachers.append(open_teacher(settings, config, source.collection, query_ids, ids))
        return teachers[-1]

    return make_steps(config.mine.filters, Contents(source.collection.documents, ids), opened)


def _report(
    config: Config, store: Path, source: Source, tally: Tally, teachers: Sequence[Teacher], triples: Path
) -> dict[str, Any]:
    return {
        "command": provenance.command(),
        "commit": provenance.commit(),
        "seed": config.seed,
        "store": str(store),
        "fingerprint": source.documents.manifest.fingerprint,
        "store_stamp": source.documents.stamp,
        "queries_stamp": source.queries.stamp,
        "index_stamp": source.index.hash if source.index else None,
        "triples_sha256": digest(triples, "sha256"),
        "view": str(source.plan),
        "scores": teachers[-1].name if teachers else str(source.plan.view),
        "mine": _given(to_dict(config)["mine"]) | {"view": str(source.plan)},
        "counts": tally.counts,
        "share_without_negatives": tally.counts["pairs left without negatives"] / tally.counts["pairs"],
        "steps": tally.steps(),
        "histograms": tally.histograms(),
    }


def _given(settings: dict[str, Any]) -> dict[str, Any]:
    """Of each filter only what it was given."""

    def dense(some: dict[str, Any]) -> dict[str, Any]:
        return {k: dense(v) if isinstance(v, dict) else v for k, v in some.items() if v is not None}

    return settings | {"filters": [dense(step) for step in settings["filters"]]}
