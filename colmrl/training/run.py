"""One training run: read everything, check it, write down what is run, train, leave a checkpoint."""

import json
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import yaml
from transformers import PrinterCallback, set_seed
from transformers.trainer_utils import get_last_checkpoint

from colmrl import provenance
from colmrl.config import Config
from colmrl.configure import flat, save_config, to_dict
from colmrl.data.beir import pair_examples, read_corpus, read_qrels, read_queries, triple_examples
from colmrl.data.records import Example, relevant
from colmrl.data.triples import has_ids, read_self_contained, read_triples
from colmrl.errors import InputError
from colmrl.models.retriever import Retriever, read_description
from colmrl.runtime import use_torch
from colmrl.training.batches import Collator, ExampleDataset
from colmrl.training.callbacks import Metrics
from colmrl.training.trainer import RetrieverTrainer, arguments, check_single_process

log = logging.getLogger(__name__)

# What may differ when an interrupted run is gone on with: none of it changes the weights.
_FREE = ("device", "encode.", "mine.", "eval.", "loop.", "train.workers", "train.log_steps", "train.save_steps")


def train(config: Config) -> Path:
    """Train as `config` says into `config.output`; returns its `checkpoint` folder.

    An interrupted run goes on from its last resume point; a finished one is refused, never overwritten.
    """
    check_single_process()
    output = Path(config.output)
    checkpoint = output / "checkpoint"
    if checkpoint.exists():
        raise InputError(f"{checkpoint}: exists already: choose another --output, or remove it")
    _check_same_run(config, output)
    steps_wanted = config.train.max_steps if config.train.max_steps >= 0 else config.train.epochs
    examples, positives = read_examples(config) if steps_wanted else ([], {})
    use_torch(config)
    set_seed(config.seed)
    model = _model(config)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if steps_wanted and not trained:
        raise InputError("model.tuning: frozen, and no head has weights: train a head (single.projection, multi.dims)")
    _start_folder(config, output)
    if steps_wanted:
        total = sum(p.numel() for p in model.parameters())
        log.info("training %.2f M of %.2f M parameters", trained / 1e6, total / 1e6)
        _fit(config, model, examples, positives, output)
    model.save(checkpoint)
    shutil.rmtree(output / "trainer", ignore_errors=True)
    log.info("checkpoint: %s", checkpoint)
    return checkpoint


def read_examples(config: Config) -> tuple[Sequence[Example], dict[str, set[str]]]:
    """Training examples, and for each query the ids of all documents known to answer it."""
    data = config.data
    root = data.root or data.path
    if data.triples and not has_ids(data.triples):
        examples = read_self_contained(data.triples, root, data.strict)
        positives: dict[str, set[str]] = {}
        for example in examples:
            positives.setdefault(example.query.id, set()).add(example.positive.id)
    else:
        documents, queries = read_corpus(data.path, data.strict), read_queries(data.path, data.strict)
        ids = {query.id for query in queries}, {document.id for document in documents}
        qrels = read_qrels(data.path, data.train_split, *ids, data.strict)
        positives = {query_id: relevant(judged) for query_id, judged in qrels.items()}
        if data.triples:
            triples = read_triples(data.triples, data.strict)
            examples = triple_examples(queries, documents, triples, data.triples)
        else:
            examples = pair_examples(queries, documents, qrels)
    if not examples:
        raise InputError(f"{data.triples or data.path}: no training examples: give qrels with a score above 0")
    most = max(len(example.negatives) for example in examples)
    if config.train.negatives > most:
        raise InputError(
            f"train.negatives: {config.train.negatives} is more than the examples have ({most}): "
            + ("mine more, or lower it" if data.triples else "name mined triples with data.triples=")
        )
    log.info("%d examples, up to %d hard negatives each", len(examples), most)
    return examples, positives


def _model(config: Config) -> Retriever:
    if config.train.init_from is None:
        return Retriever.create(config)
    described = read_description(Path(config.train.init_from))
    for section in ("single", "multi", "lora"):
        if getattr(described, section) != getattr(config, section):
            raise InputError(
                f"train.init_from: {config.train.init_from}: its section {section} is {getattr(described, section)}, "
                f"not {getattr(config, section)}: take its settings over"
            )
    if described.model.tuning != config.model.tuning:
        raise InputError(f"train.init_from: {config.train.init_from}: was trained with tuning={described.model.tuning}")
    return Retriever.load(config.train.init_from)


def _fit(
    config: Config, model: Retriever, examples: Sequence[Example], positives: dict[str, set[str]], output: Path
) -> None:
    if config.train.gradient_checkpointing:
        model.backbone.checkpoint_gradients()
    dataset = ExampleDataset(examples, config.train.negatives, config.seed)
    folder = output / "trainer"
    trainer = RetrieverTrainer(
        config,
        model=model,
        args=arguments(config, folder, -(-len(dataset) // config.train.batch_size)),
        train_dataset=dataset,
        data_collator=Collator(model.inputs, positives),
        callbacks=[Metrics(output / "metrics.jsonl")],
    )
    trainer.remove_callback(PrinterCallback)
    resume = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    if resume:
        log.info("going on from %s", resume)
    trainer.train(resume_from_checkpoint=resume)


def _check_same_run(config: Config, output: Path) -> None:
    """An interrupted run may only be gone on with as it was begun."""
    path = output / "config.yaml"
    changed = changed_keys(path, config) if path.is_file() else []
    changed = [key for key in changed if not key.startswith(_FREE)]
    if changed:
        raise InputError(f"{output}: an unfinished run with other {', '.join(changed)}: choose another --output")


def changed_keys(path: Path, config: Config) -> list[str]:
    """The dotted keys in which `config` differs from the one saved at `path`."""
    before, now = flat(yaml.safe_load(path.read_text())), flat(to_dict(config))
    return [key for key in now if before.get(key) != now[key]]


def _start_folder(config: Config, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    save_config(config, output / "config.yaml")
    environment = provenance.environment() | {"seed": config.seed, "pid": os.getpid()}
    (output / "environment.json").write_text(json.dumps(environment, indent=2))
