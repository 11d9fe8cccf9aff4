"""How good the answers are at how many bytes: one encoding, judged at every size and way to search that it serves.

Each document is pooled to all budgets by one tree, each point's vectors are coded once and searched as they would be
kept. Points that are known of the same store and settings (`points.jsonl`) are not computed again.
"""

import hashlib
import json
import logging
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from jaxtyping import Int

from colmrl import configure
from colmrl.coding import CodedItems, Codes
from colmrl.config import Config, IndexType
from colmrl.errors import InputError
from colmrl.evaluation.metrics import mean, per_query
from colmrl.evaluation.run import Task, size_of, without_itself
from colmrl.files import whole_lines
from colmrl.progress import track
from colmrl.search import Asked, Plan, open_searcher
from colmrl.search.building import build_indexes
from colmrl.search.faiss_types import LOSSY, check_type
from colmrl.search.plan import Stage
from colmrl.store import EmbeddingStore
from colmrl.view import View

log = logging.getLogger(__name__)
QUALITY = "ndcg_at_5"


@dataclass(frozen=True)
class Way:
    """To search: a view or a funnel, exactly or by an index of its first view."""

    plan: str
    index: IndexType | None = None

    def __str__(self) -> str:
        return f"{self.plan} {self.index}" if self.index else self.plan

    @cached_property
    def parsed(self) -> Plan:
        return Plan.parse(self.plan)


@dataclass(frozen=True)
class Point:
    """`bytes`: a document, of the index and of what is read of the store; `ms`: the median of a query by itself;
    `each`: query id → metric → value.
    """

    way: Way
    bytes: float
    ms: float
    each: dict[str, dict[str, float]]

    @cached_property
    def values(self) -> dict[str, float]:
        return mean(self.each)

    @property
    def quality(self) -> float:
        return self.values[QUALITY]

    @property
    def name(self) -> str:
        return str(self.way)


class Held(EmbeddingStore):
    """A store that keeps what was coded for the last view that was read: as if it had been encoded so."""

    _view: View | None = None
    _coded: tuple[CodedItems, ...] = ()

    def coded(self, view: View) -> Iterator[CodedItems]:
        if view != self._view:
            self._view, self._coded = view, tuple(super().coded(view))
        return iter(self._coded)

    def coded_rows(self, view: View, rows: Sequence[int] | Int[np.ndarray, " n"]) -> list[Codes]:
        spec = self.array_of(view)
        if (spec.vectors, spec.precision) == (view.vectors, view.precision):
            return super().coded_rows(view, rows)
        shards = tuple(self.coded(view))
        ends = np.cumsum([len(shard) for shard in shards])
        found = []
        for row in np.asarray(rows, dtype=np.int64).tolist():
            shard = shards[number := int(np.searchsorted(ends, row, side="right"))]
            within = row - (int(ends[number - 1]) if number else 0)
            found.append(shard.slice(within, within + 1).codes)
        return found


def sweep(config: Config, task: Task, out: Path) -> list[Point]:
    """A point a way to search, in the order of `ways`; `out`: for points.jsonl and indexes."""
    wanted, documents = ways(config, task.documents), Held(task.documents.folder)
    asked = Asked.of_store(task.queries, [row for row, name in enumerate(task.queries.ids) if name in task.qrels])
    stamp, path = _stamp(config, task), out / "points.jsonl"
    known = _known(path, stamp)
    missing = [way for way in wanted if str(way) not in known]
    if len(missing) < len(wanted):
        log.info("%s: %d of %d points are known", path, len(wanted) - len(missing), len(wanted))
    log.info("%d points to judge, %d of them by an index", len(missing), sum(way.index is not None for way in missing))
    if config.threads is not None:
        faiss.omp_set_num_threads(config.threads)
    if missing:
        budgets = {stage.view.vectors for way in missing for stage in way.parsed.stages}
        documents.hold_pooled(sorted(filter(None, budgets), reverse=True))
    out.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        for way in track(missing, "frontier", len(missing)):
            point = known[str(way)] = _point(config, task, documents, asked, way, out)
            file.write(json.dumps({"of": stamp, **_to_json(point)}, ensure_ascii=False) + "\n")
            file.flush()
    return [known[str(way)] for way in wanted]


def ways(config: Config, documents: EmbeddingStore) -> list[Way]:
    """Every combination that section `frontier` asks for and the store can serve; those of one budget together. What is
    left out is said.
    """
    settings = config.frontier
    views = _views(config, documents)
    found = [Way(str(view)) for view in views]
    for kind in settings.indexes:
        gaining = [view for view in views if _gains(view, kind)]
        found += [Way(str(view), kind) for view in gaining]
        if len(gaining) < len(views):
            log.info("%s: of %d views; the others have no such index, or no smaller one", kind, len(gaining))
    if settings.depths:
        last = View.parse(settings.rerank) if settings.rerank else _largest_multi(documents)
        documents.array_of(last)
        for view in (view for view in views if view.head == "single" and view != last):
            depths = [depth for depth in settings.depths if depth < len(documents)]
            found += [Way(str(Plan((Stage(view, depth), Stage(last))))) for depth in depths]
    if not found:
        raise InputError("frontier: nothing to sweep: give heads, dims, budgets and precisions that the store serves")
    return list(dict.fromkeys(found))


def _views(config: Config, documents: EmbeddingStore) -> list[View]:
    settings, manifest = config.frontier, documents.manifest
    trained = {"single": manifest.single_dims, "multi": manifest.multi_dims}
    found, left_out = [], []
    for head in settings.heads:
        for dim in settings.dims:
            if dim not in {*manifest.single_dims, *manifest.multi_dims}:
                documents.trained.check(View(head, dim))
        dims = [dim for dim in sorted(trained[head], reverse=True) if not settings.dims or dim in settings.dims]
        budgets = settings.budgets if head == "multi" else (None,)
        for view in (View(head, dim, n, how) for n in budgets for dim in dims for how in settings.precisions):
            try:
                documents.array_of(view)
            except InputError as error:
                left_out.append(str(error))
            else:
                found.append(view)
    if left_out:
        log.info("%d views are left out, e.g. %s", len(left_out), left_out[0])
    return found


def _gains(view: View, kind: IndexType) -> bool:
    """Whether there is such an index, and it is not one of whole vectors, of which the view keeps less."""
    try:
        check_type(view, kind)
    except InputError:
        return False
    return _reads_store(view, kind) or view.precision in ("fp32", "fp16")


def _reads_store(view: View, kind: IndexType) -> bool:
    """Whether what the index finds is scored again from the store."""
    return view.head == "multi" or kind in LOSSY


def _largest_multi(documents: EmbeddingStore) -> View:
    views = [view for view in documents.views() if view.head == "multi"]
    if not views:
        raise InputError("frontier.depths: the store has no multi head to rerank by: name a view with frontier.rerank")
    return max(views, key=lambda view: (view.dim, view.vectors is None))


def _point(config: Config, task: Task, documents: Held, asked: Asked, way: Way, out: Path) -> Point:
    plan, folder = way.parsed, None
    price = sum(size_of(documents, stage.view)["bytes_per_document"] for stage in plan.stages)
    if way.index:
        indexed = configure.replace(config, index={"type": way.index, "gpu": config.eval.gpu})
        (built,) = build_indexes(indexed, documents.folder.parent, [plan.view], out / "indexes", documents)
        folder = built.folder
        price = built.manifest.bytes / len(documents) + (price if _reads_store(plan.view, way.index) else 0)
    searcher = open_searcher(documents, plan, config.eval.gpu, folder, config.index.probes, config.index.candidates)
    ranking = searcher.rank(asked, config.eval.k)  # first, so that what is timed has been read
    times = []
    for row in np.random.default_rng(config.seed).permutation(len(asked))[: config.frontier.timed]:
        one = asked.rows([int(row)])
        started = time.perf_counter()
        searcher.rank(one, config.eval.k)
        times.append(time.perf_counter() - started)
    each = per_query(without_itself(ranking.run(), task.itself), task.qrels)
    return Point(way, price, statistics.median(times) * 1e3, each)


def _stamp(config: Config, task: Task) -> str:
    """Of all that a point's numbers depend on, but its way."""
    settings = configure.to_dict(config)
    depends = [settings[key] for key in ("seed", "index", "threads")]
    depends += [config.eval.k, config.eval.gpu, config.frontier.timed]
    stamps = [task.documents.stamp, task.queries.stamp, task.facts, dict(task.itself)]
    stated = json.dumps([depends, stamps, torch.get_num_threads()], sort_keys=True)
    return hashlib.sha256(stated.encode()).hexdigest()[:32]


def _to_json(point: Point) -> dict[str, Any]:
    """The numbers of each query by metric, in the queries' order."""
    by_metric = {metric: [of_query[metric] for of_query in point.each.values()] for metric in point.values}
    return {
        "way": asdict(point.way),
        "bytes": point.bytes,
        "ms": point.ms,
        "queries": list(point.each),
        "each": by_metric,
    }


def _from_json(stated: Mapping[str, Any]) -> Point:
    of_query = [dict(zip(stated["each"], values, strict=True)) for values in zip(*stated["each"].values(), strict=True)]
    each = dict(zip(stated["queries"], of_query, strict=True))
    return Point(Way(**stated["way"]), stated["bytes"], stated["ms"], each)


def _known(path: Path, stamp: str) -> dict[str, Point]:
    """Points of this stamp; a torn last line is cut off."""
    found = {}
    for number, line in enumerate(whole_lines(path), 1):
        try:
            stated = json.loads(line)
            if stated.pop("of") == stamp:
                point = _from_json(stated)
                found[point.name] = point
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{path}:{number}: cannot be read ({error}): remove the file") from None
    return found
