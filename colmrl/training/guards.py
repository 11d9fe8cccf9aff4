"""What would make a run another than was asked for is said, not passed over: other data or processes than
it was begun with, settings that nothing uses, weights that are no numbers.
"""

import hashlib
import logging
from pathlib import Path

from torch import nn

from colmrl.config import Config, LoraConfig
from colmrl.data.mixture import Mixture
from colmrl.errors import InputError
from colmrl.files import read_json
from colmrl.processes import processes

log = logging.getLogger(__name__)


def identity(examples: Mixture | None) -> dict[str, object]:
    """What a run must find again to go on: how many processes share a step, and which examples there are."""
    digest = hashlib.sha256()
    for part in examples.parts if examples is not None else ():
        for triple in part.triples():
            digest.update(f"{triple.query_id}\t{triple.pos_id}\t{triple.neg_ids}\n".encode())
    return {"processes": processes(), "examples": digest.hexdigest()[:32]}


def check_identity(saved: Path, now: dict[str, object]) -> None:
    """An InputError where an interrupted run's environment.json names another."""
    before = read_json(saved, "remove the run folder, and train again", ("processes", "examples"))
    if before["processes"] != now["processes"]:
        raise InputError(
            f"{saved.parent}: an unfinished run of {before['processes']} processes, not {now['processes']}: its "
            "batches would be others: launch as many, choose another --output, or remove it"
        )
    if before["examples"] != now["examples"]:
        raise InputError(
            f"{saved.parent}: an unfinished run on other training examples than data.path, data.triples or "
            "data.sources now hold: put them back, choose another --output, or remove it"
        )


def check_finite(model: nn.Module, step: int) -> None:
    """An InputError where a trained weight is no number any more."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not bool(parameter.detach().isfinite().all()):
            raise InputError(
                f"step {step}: {name}: holds NaN or infinite numbers: training has come apart: lower "
                "train.learning_rate, set train.max_grad_norm, or use bf16 rather than fp16; earlier weights are in "
                "the run folder's trainer/, where a resume point was written before"
            )


def check_useful(config: Config, negatives: int) -> None:
    """An InputError where there is nothing to tell a positive from; a warning for each setting that nothing uses."""
    if config.train.batch_size * processes() == 1 and not negatives:
        raise InputError("train.batch_size: 1, and no hard negatives: nothing to tell a positive from: raise it")
    for said in unused(config):
        log.warning("not used: %s", said)


def unused(config: Config) -> list[str]:
    """Settings that were changed and change nothing, each with the reason."""
    lora = [f"lora.{name}" for name, value in vars(config.lora).items() if value != getattr(LoraConfig(), name)]
    found = []
    if lora and config.model.tuning != "lora":
        found.append(f"{', '.join(lora)}: model.tuning is {config.model.tuning}")
    if config.multi.budgets and not config.multi.dims:
        found.append("multi.budgets: multi.dims is empty")
    if config.single.projection and not config.single.dims:
        found.append("single.projection: single.dims is empty")
    if config.loss.teacher_temperature != 1 and not config.loss.teacher_kl:
        found.append("loss.teacher_temperature: loss.teacher_kl is 0")
    if config.data.sources and config.data.triples:
        found.append("data.triples: data.sources is trained on; give a source its own triples")
    return found


def describe(config: Config, examples: int, negatives: int, steps: int) -> str:
    """One line on what a step is."""
    train, count = config.train, processes()
    queries = train.batch_size * count * train.accumulation
    return (
        f"{steps} steps of {queries} queries (processes {count} × batch {train.batch_size} × accumulation "
        f"{train.accumulation}), "
        f"each against up to {train.batch_size * count * (1 + negatives)} documents; {examples} examples"
    )
