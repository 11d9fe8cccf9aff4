"""One training run: read everything, check it, write down what is run, train, leave a checkpoint."""

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

from transformers import PrinterCallback, set_seed

from colmrl import provenance
from colmrl.config import Config
from colmrl.configure import changed_keys, save_config
from colmrl.data.reading import read_training
from colmrl.data.records import Examples
from colmrl.errors import InputError
from colmrl.files import write_text
from colmrl.inputs import write_inputs
from colmrl.models.retriever import Retriever, describe, read_description
from colmrl.runtime import use_torch
from colmrl.training.batches import Collator, ExampleDataset
from colmrl.training.callbacks import Metrics
from colmrl.training.trainer import RetrieverTrainer, arguments

log = logging.getLogger(__name__)

# What may differ when an interrupted run is gone on with: none of it changes the weights.
_FREE = ("device", "encode.", "mine.", "eval.", "loop.", "train.workers", "train.log_steps", "train.save_steps")


def train(config: Config) -> Path:
    """Train as `config` says into `config.output`; returns its `checkpoint` folder.

    An interrupted run goes on from its last resume point; a finished one is refused, never overwritten.
    """
    output = Path(config.output)
    checkpoint = output / "checkpoint"
    if checkpoint.exists():
        raise InputError(f"{checkpoint}: exists already: choose another --output, or remove it")
    config = write_inputs(config)
    _check_same_run(config, output)
    steps_wanted = config.train.max_steps if config.train.max_steps >= 0 else config.train.epochs
    data = None
    if steps_wanted:
        examples, positives = read_training(config.data, config.show)
        data = ExampleDataset(examples, negatives_to_use(config, examples), config.seed), positives
    use_torch(config)
    set_seed(config.seed)
    model = _model(config)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if steps_wanted and not trained:
        raise InputError("model.tuning: frozen, and no head has weights: train a head (single.projection, multi.dims)")
    _start_folder(config, output)
    if data:
        total = sum(p.numel() for p in model.parameters())
        log.info("training %.2f M of %.2f M parameters", trained / 1e6, total / 1e6)
        _fit(config, model, *data, output)
    model.save(checkpoint)
    shutil.rmtree(output / "trainer", ignore_errors=True)
    log.info("checkpoint: %s", checkpoint)
    return checkpoint


def negatives_to_use(config: Config, examples: Examples) -> int:
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
    if config.train.init_from is None:
        return Retriever.create(config)
    described, wanted = read_description(Path(config.train.init_from)), describe(config)
    changed = [
        f"{section}.{name}"
        for section in ("model", "lora", "single", "multi")
        for name, value in vars(getattr(wanted, section)).items()
        if name != "temperature" and value != getattr(getattr(described, section), name)
    ]
    if changed:
        raise InputError(
            f"train.init_from: {config.train.init_from}: was made with another {', '.join(changed)}: "
            "take its settings over, or train from model.backbone"
        )
    model = Retriever.load(config.train.init_from)
    model.description = replace(model.description, single=wanted.single, multi=wanted.multi, show=wanted.show)
    return model


def _fit(
    config: Config, model: Retriever, dataset: ExampleDataset, positives: dict[str, set[str]], output: Path
) -> None:
    if config.train.gradient_checkpointing:
        model.backbone.checkpoint_gradients()
    folder, metrics = output / "trainer", Metrics(output / "metrics.jsonl")
    trainer = RetrieverTrainer(
        config,
        model=model,
        args=arguments(config, folder, -(-len(dataset) // config.train.batch_size)),
        train_dataset=dataset,
        data_collator=Collator(model.inputs, positives, config.train.mini_batch_size),
        callbacks=[metrics],
    )
    trainer.remove_callback(PrinterCallback)
    resume = _resume_point(folder)
    if resume:
        log.info("going on from %s", resume)
    try:
        trainer.train(resume_from_checkpoint=resume)
    finally:
        metrics.close()


def _check_same_run(config: Config, output: Path) -> None:
    """An interrupted run may only be gone on with as it was begun; one that has no resume point is begun anew."""
    if not _resume_point(output / "trainer"):
        return
    changed = [key for key in changed_keys(output / "config.yaml", config) if not key.startswith(_FREE)]
    if changed:
        raise InputError(
            f"{output}: an unfinished run with other {', '.join(changed)}: choose another --output, or remove it"
        )


def _resume_point(folder: Path) -> str | None:
    """The newest resume point that was written whole (its state comes last); half-written ones are removed."""
    points = sorted(folder.glob("checkpoint-*"), key=lambda point: int(point.name.rpartition("-")[2]))
    for point in reversed(points):
        if (point / "trainer_state.json").is_file():
            return str(point)
        shutil.rmtree(point)
    return None


def _start_folder(config: Config, output: Path) -> None:
    save_config(config, output / "config.yaml")
    environment = provenance.environment() | {"seed": config.seed}
    write_text(output / "environment.json", json.dumps(environment, indent=2))
