"""One training run of a reranker: read everything, check it, write down what is run, train, leave a checkpoint."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

from transformers import set_seed

from colmrl.config import Config, TrainConfig
from colmrl.configure import replace
from colmrl.errors import InputError
from colmrl.processes import locked_by_first, on_first, processes, rank, start
from colmrl.runtime import memory_said, use_torch
from colmrl.training.held_out import best_point
from colmrl.training.rerank_trainer import HeldOutCandidates, RerankData, RerankTask, RerankTrainer
from colmrl.training.resumable import batches_of
from colmrl.training.run_folder import enter, start_folder
from colmrl.training.trainer import arguments

log = logging.getLogger(__name__)
_SMALLER = "lower train.batch_size and raise train.accumulation as much, set train.gradient_checkpointing=true, "
_SMALLER += "or lower model.max_pixels, rerank.top_k"

# Settings of section `train` that belong to the retriever's loss and batches.
_NOT_OURS = ("mini_batch_size", "mini_batch_tokens", "ema", "compile_heads", "tower_cache", "auto_batch")
_NOT_OURS += ("profile",)


def train_reranker(config: Config) -> Path:
    """Train as `config` says into `config.output`; returns its `checkpoint` folder.

    An interrupted run goes on from its last resume point; a finished one is refused, never overwritten. Of several
    processes all read and check, and the first alone writes.
    """
    _check_settings(config)
    start(use_torch(config))
    with locked_by_first(Path(config.output), "choose another --output"), memory_said("training", _SMALLER):
        return _train(config)


def _train(config: Config) -> Path:
    config, output = enter(config), Path(config.output)
    checkpoint = output / "checkpoint"
    task = task_of(config)
    wanted = config.train.max_steps if config.train.max_steps >= 0 else config.train.epochs
    data = task.examples(config) if wanted else None
    held_out = HeldOutCandidates(config) if wanted and _is_judged(config) else None
    set_seed(config.seed)
    model: Any = task.create(config)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if wanted and not trained:
        raise InputError("model.tuning: frozen: leaves nothing to train: use lora or full")
    now = data.identity() if data is not None else {"processes": processes(), "examples": ""}
    on_first(lambda: start_folder(config, output, now))
    if data is not None:
        total = sum(p.numel() for p in model.parameters())
        log.info("training %.2f M of %.2f M parameters", trained / 1e6, total / 1e6)
        _fit(config, task, model, data, held_out, output)
    on_first(lambda: model.save(checkpoint))
    on_first(lambda: shutil.rmtree(output / "trainer", ignore_errors=True))
    log.info("checkpoint: %s", checkpoint)
    return checkpoint


def task_of(config: Config) -> RerankTask:
    match config.task:
        case "pointwise":
            from colmrl.training import rerank_pointwise

            return rerank_pointwise
        case "listwise":
            from colmrl.training import rerank_listwise

            return rerank_listwise
        case "retriever":
            raise AssertionError(config.task)


def _is_judged(config: Config) -> bool:
    return bool(config.train.eval_steps or config.train.best_metric)


def _check_settings(config: Config) -> None:
    """An InputError for what a reranker's training cannot do, or cannot do together."""
    train, plain = config.train, TrainConfig()
    set_ = [f"train.{name}" for name in _NOT_OURS if getattr(train, name) != getattr(plain, name)]
    if set_:
        raise InputError(
            f"{', '.join(set_)}: of task: retriever alone: leave out; a smaller train.batch_size with "
            "train.accumulation is the same step in less memory"
        )
    if train.patience is not None and train.best_metric is None:
        raise InputError(
            f"train.patience: {train.patience}: nothing to wait for: name train.best_metric, e.g. ndcg_at_10"
        )


def _fit(
    config: Config,
    task: RerankTask,
    model: Any,
    data: RerankData,
    held_out: HeldOutCandidates | None,
    output: Path,
) -> None:
    """Leaves the weights that are to be kept in the model: the last, or the best."""
    if config.train.gradient_checkpointing:
        model.language.checkpoint_gradients()
    folder, train = output / "trainer", config.train
    an_epoch = -(-len(batches_of(config, data)) // train.accumulation)
    if held_out is not None and train.eval_steps is None:
        config = replace(config, train={"eval_steps": an_epoch})
    trainer = RerankTrainer(
        config,
        task,
        held_out,
        model=model,
        args=arguments(config, folder, an_epoch),
        train_dataset=data,
        eval_dataset=data if held_out is not None else None,  # the library wants one; ours are candidates
        data_collator=task.collator(config, model),
    )
    queries = train.batch_size * processes() * train.accumulation
    log.info(
        "%d steps of %d queries, %d steps an epoch; %d examples", trainer.args.max_steps, queries, an_epoch, len(data)
    )
    trainer.fit(output)
    _keep_best(config, trainer, output, an_epoch)


def _keep_best(config: Config, trainer: RerankTrainer, output: Path, an_epoch: int) -> None:
    """The weights of the best evaluation, named in the log and in the last line of metrics.jsonl."""
    state, name = trainer.state, config.train.best_metric
    best = best_point(output / "trainer", state)
    if best is None or state.best_global_step is None:
        return
    trainer._load_from_checkpoint(str(best))
    epoch = state.best_global_step / an_epoch
    log.info("kept: epoch %.4g (step %d), %s %.4f", epoch, state.best_global_step, name, state.best_metric)
    line = {"step": state.global_step, "kept_epoch": epoch, "kept_step": state.best_global_step}
    if not rank():
        with (output / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line | {f"kept_{name}": state.best_metric}) + "\n")
