"""`eval.py mteb`: each way of searching on each task, by mteb.evaluate (2.26), whose own code computes all scores.

OUT/results/<model>/<revision>/<task>.json   mteb's cache, one model a view and stage; not run again
OUT/predictions/<model>/<revision>/          what each found, which a reranker of a later run may take
OUT/stores/                                  embeddings, see mteb_stores
OUT/results.json                             {"command", "commit", "seed", "rows": [{"task", "view", "index",
                                             "reranker", "model", "revision", "metric", "value"}]}
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mteb
from mteb.abstasks import AbsTask
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.cache import ResultCache
from mteb.models.model_meta import ModelMeta
from mteb.results import TaskResult
from mteb.types import PromptType

from colmrl.config import Config
from colmrl.errors import InputError
from colmrl.evaluation.mteb_bm25 import Bm25Search
from colmrl.evaluation.mteb_meta import open_model
from colmrl.evaluation.mteb_stores import TaskStores
from colmrl.evaluation.mteb_tasks import is_retrieval
from colmrl.evaluation.mteb_ways import Way
from colmrl.evaluation.run import Row, read_results, write_results

log = logging.getLogger(__name__)
_METRICS = ("ndcg_at_1", "ndcg_at_5", "ndcg_at_10", "recall_at_5", "recall_at_10", "recall_at_100", "mrr_at_10")


@dataclass(frozen=True)
class Result:
    """What mteb says of a way (None: BM25) on a task."""

    way: Way | None
    meta: ModelMeta
    task: AbsTask
    scores: TaskResult


@dataclass(frozen=True)
class Judge:
    """`given`: settings of use that hold in place of the reranker's own; `bm25`: whether it is judged beside."""

    stores: TaskStores
    out: Path
    as_encoder: bool = False
    bm25: bool = False
    given: tuple[str, ...] = ()

    def judge(self, tasks: Sequence[AbsTask], ways: Sequence[Way]) -> list[Result]:
        """First stages, then what reranks the best that each found; a task's data is read once for all of them."""
        firsts = list(dict.fromkeys(way.first for way in ways))
        reranked = [way for way in ways if way.reranker is not None]
        tasks = self._fit(tasks, firsts, reranked)
        found = []
        for task in tasks:
            again = {way.first for way in reranked if self._known(task, self._model(way).mteb_model_meta) is None}
            found += [self._result(task, way, self._model(way), way in again) for way in firsts]
            found += [self._second(task, way) for way in reranked]
            if self.bm25 and _is_of_texts(task):
                found.append(self._result(task, None, Bm25Search(self.stores), False))
            if task.data_loaded:
                task.unload_data()
        return found

    def _model(self, way: Way) -> Any:
        return open_model(self.stores, way, self.as_encoder, self.given)

    def _predictions(self, meta: ModelMeta) -> Path:
        assert meta.revision is not None
        return self.out / "predictions" / meta.model_name_as_path() / meta.revision

    def _known(self, task: AbsTask, meta: ModelMeta) -> TaskResult | None:
        """What an earlier run found, where it is whole and of the same data."""
        known = ResultCache(self.out).load_task_result(task.metadata.name, meta)
        if known is None or known.get_missing_evaluations(task):
            return None
        return known if known.dataset_revision == task.metadata.revision else None

    def _result(self, task: AbsTask, way: Way | None, model: Any, predictions: bool) -> Result:
        """`predictions`: whether a reranker needs what is found."""
        meta: ModelMeta = model.mteb_model_meta
        folder = self._predictions(meta)
        known = self._known(task, meta)
        lacks = predictions and not (folder / task.prediction_file_name).is_file()
        if known is None or lacks:
            known = self._evaluated(task, model, folder, lacks)
        return Result(way, meta, task, known)

    def _second(self, task: AbsTask, way: Way) -> Result:
        """By mteb's own path for two stages: its predictions of the first become lists to rerank."""
        model = self._model(way)
        meta: ModelMeta = model.mteb_model_meta
        known = self._known(task, meta)
        if known is None:
            assert isinstance(task, AbsTaskRetrieval)
            first = self._predictions(self._model(way.first).mteb_model_meta)
            _load(task)
            task.convert_v1_dataset_format_to_v2(num_proc=None)
            task.convert_to_reranking(first, top_k=self.stores.config.rerank.top_k)
            known = self._evaluated(task, model, self._predictions(meta), False)
        return Result(way, meta, task, known)

    def _evaluated(self, task: AbsTask, model: Any, predictions: Path, again: bool) -> TaskResult:
        _load(task)
        cache = ResultCache(self.out)
        there = cache.load_task_result(task.metadata.name, model.mteb_model_meta)
        if there is not None and there.dataset_revision != task.metadata.revision:
            log.info("%s: its data changed: judged anew", task.metadata.name)
            again = True  # mteb itself would take what is there
        if again or there is None:
            (predictions / task.prediction_file_name).unlink(missing_ok=True)
        result = mteb.evaluate(
            model,
            task,
            cache=cache,
            overwrite_strategy="always" if again else "only-missing",
            prediction_folder=predictions,
            encode_kwargs={"batch_size": self.stores.config.encode.batch_size, "show_progress_bar": False},
            show_progress_bar=False,
            co2_tracker=False,
        )
        log.info("%s: %s: %.4f", task.metadata.name, model.mteb_model_meta.name, result.task_results[0].get_score())
        return result.task_results[0]

    def _fit(self, tasks: Sequence[AbsTask], firsts: Sequence[Way], reranked: Sequence[Way]) -> list[AbsTask]:
        """Tasks that can be judged so; others of a benchmark are left out, which is said."""
        for way in firsts:
            for stage in way.plan.stages:
                self.stores.description.trained.check(stage.view)
        any_task = self.as_encoder and all(way.plan.view.head == "single" for way in firsts)
        left = [task.metadata.name for task in tasks if not (any_task or is_retrieval(task))]
        kept = [task for task in tasks if task.metadata.name not in left]
        if not kept:
            remedy = "choose retrieval tasks, or give --encoder with views of the single head"
            raise InputError(f"{', '.join(left[:3])}: no retrieval, which a search cannot be judged by: {remedy}")
        if left:
            log.info("left out, being no retrieval: %s", ", ".join(left))
        for task in kept:
            self._check_modalities(task)
            if reranked and not isinstance(task, AbsTaskRetrieval):
                raise InputError(f"{task.metadata.name}: made of several tasks, which --rerank cannot take: name them")
        return kept

    def _check_modalities(self, task: AbsTask) -> None:
        for side in (PromptType.query, PromptType.document) if is_retrieval(task) else (None,):
            asked = task.metadata.get_modalities(side)
            if not self.stores.shown(asked):
                said = f"{task.metadata.name}: asks for {' and '.join(asked)}, which this model does not see"
                raise InputError(f"{said}: choose a task of texts, or another model")


def _is_of_texts(task: AbsTask) -> bool:
    """Whether BM25 can be judged on it; that it is left out is said."""
    asked = [task.metadata.get_modalities(side) for side in (PromptType.query, PromptType.document)]
    if is_retrieval(task) and all("text" in modalities for modalities in asked):
        return True
    log.info("%s: bm25 is left out: it reads texts alone", task.metadata.name)
    return False


def _load(task: AbsTask) -> None:
    if task.data_loaded:
        return
    try:
        task.load_data()
    except (OSError, ValueError) as error:  # what datasets and the hub's client raise, whatever went wrong
        if isinstance(error, InputError):
            raise
        said = " ".join(str(error).split())[:200] or type(error).__name__
        remedy = "get it where there is a network (HF_HOME keeps it), or judge a folder by --data"
        raise InputError(f"{task.metadata.name}: its data cannot be had here ({said}): {remedy}") from None


def write_judged(path: Path, results: Sequence[Result], config: Config) -> None:
    """Rows of other models and tasks, that earlier runs wrote, stay."""
    rows = [row for result in results for row in _rows(result)]
    judged = {_of(row) for row in rows}
    earlier = read_results(path)["rows"] if path.is_file() else []
    write_results(path, [*(row for row in earlier if _of(row) not in judged), *rows], config.seed)


def _of(row: Row) -> tuple[Any, ...]:
    return row["task"], row["model"], row["revision"]


def _rows(result: Result) -> list[Row]:
    way = result.way
    about = {
        "task": result.task.metadata.name,
        "view": "bm25" if way is None else str(way.plan),
        "index": None if way is None or way.index is None else str(way.index),
        "reranker": way and way.reranker,
        "model": result.meta.name,
        "revision": result.meta.revision,
    }
    entries: list[Mapping[str, Any]] = [entry for of_split in result.scores.scores.values() for entry in of_split]
    names = [name for name in dict.fromkeys([result.task.metadata.main_score, *_METRICS]) if name in entries[0]]
    values = {name: sum(entry[name] for entry in entries) / len(entries) for name in names}
    return [{**about, "metric": name, "value": value} for name, value in values.items()]


def table_lines(results: Sequence[Result]) -> list[list[str]]:
    """A header and a line a model: the main score of each task, and their mean where there are several."""
    tasks = {result.task.metadata.name: result.task.metadata.main_score for result in results}
    several = len(tasks) > 1
    heads = [f"{name} {score.replace('_at_', '@').replace('ndcg', 'nDCG')}" for name, score in tasks.items()]
    lines = [["model", *heads, *(["mean"] if several else [])]]
    by_model: dict[str, dict[str, float]] = {}
    for result in results:
        by_model.setdefault(str(result.meta.name), {})[result.task.metadata.name] = float(result.scores.get_score())
    for name, scores in by_model.items():
        mean = [f"{sum(scores.values()) / len(scores):.4f}"] if several else []
        lines.append([name, *(f"{scores[task]:.4f}" for task in tasks), *mean])
    return lines
