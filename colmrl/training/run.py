"""One training run: read everything, check it, write down what is run, train, leave a checkpoint."""

import json
import logging
import shutil
from pathlib import Path

import torch
from transformers import set_seed

from colmrl.config import Config
from colmrl.data.mixture import Mixture
from colmrl.data.reading import read_training
from colmrl.errors import InputError
from colmrl.files import write_text
from colmrl.models.initialising import take_over
from colmrl.models.retriever import Retriever
from colmrl.processes import locked_by_first, on_first, rank, start
from colmrl.runtime import memory_said, use_torch
from colmrl.training.auto_batch import choose_mini_batch
from colmrl.training.batches import Collator, ExampleDataset, check_teacher
from colmrl.training.caching import prepare_cache
from colmrl.training.ema import Ema, load_average
from colmrl.training.gather import whole_weights
from colmrl.training.guards import check_useful, describe, identity
from colmrl.training.held_out import HeldOut, best_point, check_watching
from colmrl.training.profiling import Profile
from colmrl.training.resumable import batches_of
from colmrl.training.run_folder import enter, resume_point, start_folder
from colmrl.training.throughput import Throughput
from colmrl.training.trainer import RetrieverTrainer, arguments

log = logging.getLogger(__name__)
_SMALLER = "set train.mini_batch_size (or --auto-batch, which finds it), train.gradient_checkpointing=true, or lower "
_SMALLER += "model.max_pixels, train.batch_size"


def train(config: Config) -> Path:
    """Train as `config` says into `config.output`; returns its `checkpoint` folder.

    An interrupted run goes on from its last resume point; a finished one is refused, never overwritten. Of several
    processes all read and check, and the first alone writes. A reranker, where that is the `task`, is trained by
    `rerank_run`.
    """
    if config.task != "retriever":
        from colmrl.training.rerank_run import train_reranker

        return train_reranker(config)
    check_watching(config)
    start(use_torch(config))
    with locked_by_first(Path(config.output), "choose another --output"), memory_said("training", _SMALLER):
        return _train(config)


def _train(config: Config) -> Path:
    config, output = enter(config), Path(config.output)
    checkpoint = output / "checkpoint"
    steps_wanted = config.train.max_steps if config.train.max_steps >= 0 else config.train.epochs
    data = held_out = examples = None
    if steps_wanted:
        examples, positives = read_training(config.data, config.show)
        negatives = negatives_to_use(config, examples)
        check_teacher(config, examples, negatives)
        check_useful(config, negatives)
        data = ExampleDataset(examples, negatives, config.seed), positives
        held_out = HeldOut(config) if config.train.eval_steps else None
    set_seed(config.seed)
    model = _model(config)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if steps_wanted and not trained:
        raise InputError("model.tuning: frozen, and no head has weights: train a head (single.projection, multi.dims)")
    on_first(lambda: start_folder(config, output, identity(examples)))
    if data:
        total = sum(p.numel() for p in model.parameters())
        log.info("training %.2f M of %.2f M parameters", trained / 1e6, total / 1e6)
        _fit(config, model, *data, held_out, output)
    gathered = whole_weights(model)
    on_first(lambda: (_with(gathered, config) if gathered else model).save(checkpoint))
    on_first(lambda: shutil.rmtree(output / "trainer", ignore_errors=True))
    log.info("checkpoint: %s", checkpoint)
    return checkpoint


def negatives_to_use(config: Config, examples: Mixture) -> int:
    """How many hard negatives a query trains with; an InputError where that is more than there are."""
    most = examples.most_negatives
    wanted = config.train.negatives
    if wanted is not None and wanted > most:
        raise InputError(
            f"train.negatives: {wanted} is more than the examples have ({most}): "
            + ("mine more, or lower it" if config.data.triples else "name mined triples with data.triples=")
        )
    used = min(1, most) if wanted is None else wanted
    log.info("%d examples with up to %d hard negatives each, %d of them a step", len(examples), most, used)
    return used


def _model(config: Config) -> Retriever:
    start = config.train.init_from
    return Retriever.create(config) if start is None else take_over(config, start)


def _with(weights: dict[str, torch.Tensor], config: Config) -> Retriever:
    """A model that is not sharded, with the weights that were trained."""
    model = _model(config)
    _, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected, unexpected
    return model


def _fit(
    config: Config,
    model: Retriever,
    dataset: ExampleDataset,
    positives: dict[str, set[str]],
    held_out: HeldOut | None,
    output: Path,
) -> None:
    """Leaves the weights that are to be kept in the model: the last, the best, or their average."""
    if config.train.gradient_checkpointing:
        model.backbone.checkpoint_gradients()
    if config.train.compile_heads:
        model.compile_heads()
    size = on_first(lambda: _mini_batch_size(config, model, dataset, output))
    inputs = model.inputs
    if config.train.tower_cache:
        inputs = prepare_cache(config, model.to(use_torch(config)), dataset, size)
    folder = output / "trainer"
    trainer = RetrieverTrainer(
        config,
        model=model,
        args=arguments(config, folder, -(-len(batches_of(config, dataset)) // config.train.accumulation)),
        train_dataset=dataset,
        eval_dataset=held_out,
        data_collator=Collator(inputs, positives, size, config.train.mini_batch_tokens),
    )
    _watch(config, trainer, output)
    log.info("%s", describe(config, len(dataset), dataset.negatives, trainer.args.max_steps))
    trainer.fit(output)
    best = best_point(folder, trainer.state)
    if best:
        log.info(
            "kept: step %s, %s %.4f",
            trainer.state.best_global_step,
            config.train.best_metric,
            trainer.state.best_metric,
        )
    if config.train.ema:
        load_average(model, best or Path(str(on_first(lambda: resume_point(folder)))))
    elif best:
        trainer._load_from_checkpoint(str(best))


def _mini_batch_size(config: Config, model: Retriever, dataset: ExampleDataset, output: Path) -> int | None:
    """What `train.auto_batch` finds is kept in the run folder: with another size dropout would draw otherwise."""
    if not config.train.auto_batch:
        return config.train.mini_batch_size
    found = output / "auto-batch.json"
    if not (found.is_file() and resume_point(output / "trainer")):
        size = choose_mini_batch(config, model.to(use_torch(config)), dataset)
        write_text(found, json.dumps({"mini_batch_size": size}))
    return json.loads(found.read_bytes())["mini_batch_size"]


def _watch(config: Config, trainer: RetrieverTrainer, output: Path) -> None:
    """The moving average, throughput and the profile, where they are asked for."""
    train, model = config.train, trainer.model
    assert isinstance(model, Retriever)
    if train.ema:
        trainer.ema = Ema(train.ema, on_first(lambda: resume_point(output / "trainer")))
        trainer.add_callback(trainer.ema)
    throughput = Throughput()
    trainer.add_callback(throughput)
    trainer.on_batch.append(throughput.on_batch)
    trainer.numbers.append(throughput.numbers)
    if train.profile and not rank():
        heads = [head for head in (model.single, model.multi) if head is not None]
        parts = {"vision": model.backbone.vision_modules, "language": [model.backbone], "heads": heads}
        trainer.add_callback(Profile(train.profile, output / "profile", trainer, parts))
