"""Retrieval judged during training: the held-out records encoded by the model as it stands, searched, and scored by
the code that encode.py and eval.py run. Training goes on exactly as if it had not been looked at.
"""

import contextlib
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from colmrl.config import Config
from colmrl.configure import replace
from colmrl.data.reading import read_collection
from colmrl.data.records import Records
from colmrl.encoding import RecordsOf, begin_stores, fill_stores, finish_stores
from colmrl.errors import InputError
from colmrl.evaluation.metrics import METRICS
from colmrl.evaluation.run import Task, judge_views, judgements
from colmrl.models.retriever import Retriever, describe
from colmrl.store import EmbeddingStore
from colmrl.view import TrainedViews, View, parse_views


class HeldOut:
    """The judged queries and all documents of `data.eval_path`, read once; InputError where they cannot be judged."""

    def __init__(self, config: Config):
        data = config.data.eval_path or config.data.path
        if not data:
            raise InputError("train.eval_steps: needs data to judge on: name it with data.eval_path, or leave it null")
        self.views = judged_views(config)
        self.data = data
        kept = dict.fromkeys(View(view.head, view.dim, view.vectors) for view in self.views)
        self.config = replace(config, encode={"views": tuple(map(str, kept))})
        collection = read_collection(data, config.data, config.show)
        self.qrels = judgements(collection, config.data.eval_split)
        self.itself = collection.itself
        self.records: RecordsOf = {
            "documents": Records.of(list(collection.documents)),
            "queries": Records.of(
                [collection.queries.named(name) for name in collection.queries.ids if name in self.qrels]
            ),
        }

    def judge(self, model: Retriever, folder: Path) -> dict[str, float]:
        """`VIEW/METRIC` → value. The embeddings are left in `folder`, in place of what was there."""
        shutil.rmtree(folder, ignore_errors=True)
        with undisturbed(model):
            writers = begin_stores(self.config, describe(self.config), self.records, self.data, "", folder, folder)
            fill_stores(self.config, model, self.records, writers, {kind: w.missing() for kind, w in writers.items()})
            finish_stores(writers)
        queries, documents = EmbeddingStore(folder / "queries"), EmbeddingStore(folder / "documents")
        judged = judge_views(self.config, Task(documents, queries, self.qrels, self.itself), self.views)
        rows = [row for one in judged for row in one.rows()]
        return {f"{row['view']}/{row['metric']}": row["value"] for row in rows if row["metric"] in METRICS}


def judged_views(config: Config) -> list[View]:
    """Those of `eval.views`, or every trained dim of both heads."""
    trained = TrainedViews(config.single.dims, config.multi.dims)
    views = parse_views(config.eval.views)
    for view in views:
        trained.check(view)
    every = [View("single", dim) for dim in trained.single_dims] + [View("multi", dim) for dim in trained.multi_dims]
    return views or every


def check_watching(config: Config) -> None:
    """Raise an InputError where evaluation, best metric and patience do not go together."""
    train = config.train
    if train.patience is not None and train.best_metric is None:
        raise InputError(
            f"train.patience: {train.patience}: nothing to wait for: name train.best_metric, e.g. single@128/ndcg_at_10"
        )
    if train.best_metric is None:
        return
    if train.eval_steps is None:
        raise InputError(f"train.best_metric: {train.best_metric}: is never measured: give train.eval_steps")
    view, _, metric = train.best_metric.partition("/")
    views = list(map(str, judged_views(config)))
    if view not in views or metric not in METRICS:
        raise InputError(
            f"train.best_metric: {train.best_metric!r}: not of the form VIEW/METRIC: "
            f"views: {', '.join(views)}; metrics: {', '.join(METRICS)}"
        )


@contextlib.contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and after it everything as it was: mode, random states. Mixed precision, which accelerate puts
    around `forward`, is left out, since encode.py has none: the numbers are those of the checkpoint.
    """
    cuda = torch.cuda.is_available()
    modes = {module: module.training for module in model.modules()}
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda_states = torch.cuda.get_rng_state_all() if cuda else []
    wrapped = model.__dict__.pop("forward", None)
    try:
        model.eval()
        yield
    finally:
        for module, training in modes.items():
            module.training = training
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if cuda:
            torch.cuda.set_rng_state_all(cuda_states)
        if wrapped is not None:
            model.forward = wrapped


class KeepBest(TrainerCallback):
    """A resume point at every new best, which the trainer then does not remove (`best_point`)."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.best_global_step:  # the run folder may have been moved
            state.best_model_checkpoint = str(best_point(Path(str(args.output_dir)), state))

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        assert metrics is not None
        value = metrics[f"eval_{args.metric_for_best_model}"]
        if state.best_metric is None or value > state.best_metric:
            control.should_save = True


def best_point(folder: Path, state: TrainerState) -> Path | None:
    """The resume point of the best evaluation so far."""
    return folder / f"checkpoint-{state.best_global_step}" if state.best_global_step else None


def is_over(point: Path, steps: int, patience: int | None) -> bool:
    """Whether training had ended at this resume point, and only the checkpoint was still to be written."""
    state = json.loads((point / "trainer_state.json").read_bytes())
    stopping = state["stateful_callbacks"].get("EarlyStoppingCallback", {}).get("attributes", {})
    waited = stopping.get("early_stopping_patience_counter", 0)
    return state["global_step"] >= steps or (patience is not None and waited >= patience)
