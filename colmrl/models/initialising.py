"""A new run on what another run's checkpoint trained.

Taken over is what keeps its meaning under the new settings: prompts, budgets of pixels, tokens and vectors,
temperatures, dropout, dtype, quantization and the loss may differ, and causal attention may become bidirectional. A
projection of which fewer rows are wanted gives its leading ones, which Matryoshka training made a whole. A head that
the checkpoint lacks is new; one that is not wanted is left out.
"""

import logging
from pathlib import Path

import torch

from colmrl.config import Config
from colmrl.errors import InputError
from colmrl.models.retriever import Description, Retriever, describe, read_description
from colmrl.models.weights import read_tensors, weights_fingerprint

log = logging.getLogger(__name__)


def take_over(config: Config, folder: str | Path) -> Retriever:
    """A model as `config` says, with the checkpoint's weights. Raises InputError where they cannot be its own."""
    folder = Path(folder)
    before, wanted = read_description(folder), describe(config)
    _check_settings(folder, before, wanted)
    trained = before.model.tuning
    model = Retriever.create(config, str(folder / "backbone") if trained == "full" else None)
    if trained != "full":
        base = model.description.backbone_fingerprint or weights_fingerprint(config.model.backbone)
        if base != before.backbone_fingerprint:
            raise InputError(
                f"train.init_from: {folder}: was trained on other base weights than {config.model.backbone!r} holds: "
                f"set model.backbone={before.model.backbone}"
            )
    if trained == "lora":
        model.backbone.set_lora(folder / "adapter")
    _take_heads(model, folder)
    return model


def _check_settings(folder: Path, before: Description, wanted: Description) -> None:
    old, new = before.model, wanted.model
    compared = {}
    if old.tuning != "frozen":  # of which there are but heads
        compared["model.tuning"] = (old.tuning, new.tuning)
        if old.tuning == "full":
            compared["model.backbone"] = (old.backbone, new.backbone)
        elif new.tuning == "lora":
            for name in ("r", "alpha", "targets", "vision"):
                compared[f"lora.{name}"] = (getattr(before.lora, name), getattr(wanted.lora, name))
    if old.attention == "bidirectional":
        compared["model.attention"] = (old.attention, new.attention)
    if before.single.dims and wanted.single.dims:
        compared["single.pooling"] = (before.single.pooling, wanted.single.pooling)
    changed = [f"{key} ({was}, not {now})" for key, (was, now) in compared.items() if was != now]
    if changed:
        raise InputError(
            f"train.init_from: {folder}: was made with another {', '.join(changed)}: take its settings over, or train "
            "from model.backbone"
        )


def _take_heads(model: Retriever, folder: Path) -> None:
    saved = read_tensors(folder / "heads.safetensors")
    own = {name: p for name, p in model.named_parameters() if not name.startswith("backbone.")}
    for name, parameter in own.items():
        if name not in saved:
            continue
        rows, there = len(parameter), len(saved[name])
        if rows > there:
            setting = "single.projection" if name.startswith("single.") else "multi.dims"
            raise InputError(
                f"train.init_from: {folder}: {setting}: {rows} is wider than the checkpoint's {there}: lower it, or "
                "train from model.backbone"
            )
        with torch.no_grad():
            parameter.copy_(saved[name][:rows])
    for what, names in (("new", own.keys() - saved.keys()), ("left out", saved.keys() - own.keys())):
        if names:
            log.info("from %s: %s: %s", folder, what, ", ".join(sorted(n.removesuffix(".weight") for n in names)))
