"""A new run on what another run's checkpoint trained.

Taken over is what keeps its meaning under the new settings: prompts, budgets of pixels, tokens and vectors,
temperatures, dropout, dtype, quantization and the loss may differ, and causal attention may become bidirectional. A
projection of which fewer rows are wanted gives its leading ones, which Matryoshka training made a whole. A head that
the checkpoint lacks is new; one that is not wanted is left out.
"""

import logging
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path

import torch
from torch import Tensor

from colmrl.config import Config
from colmrl.errors import InputError
from colmrl.models.description import Description, describe, is_own, read_own
from colmrl.models.retriever import Retriever
from colmrl.models.sources import find_source, located
from colmrl.models.sources.source import Source
from colmrl.models.weights import read_tensors, weights_fingerprint

log = logging.getLogger(__name__)


# How a record becomes vectors; where one of these settings is left at its default, the checkpoint's stands.
_KEPT: dict[str, tuple[str, ...]] = {
    "model": (
        "padding_side", "lower_case", "special_tokens", "query_prompt", "document_prompt", "template",
        "query_instruction", "document_instruction", "generation_prompt", "query_expansion", "query_skiplist",
        "document_skiplist", "document_vectors", "positions", "resize",
    ),
    "single": ("dense", "bias"),
    "multi": ("dense", "projection", "bias"),
}  # fmt: skip
_KEPT_OF_OTHERS: dict[str, tuple[str, ...]] = {  # these too, where another library trained it
    "model": ("document_fields", "max_query_tokens", "max_document_tokens"),
    "lora": ("r", "alpha", "targets"),
    "single": ("pooling", "projection"),
}


def take_over(config: Config, checkpoint: str | Path) -> Retriever:
    """A model as `config` says, with the checkpoint's weights. Raises InputError where they cannot be its own."""
    folder = located(checkpoint)
    source = None if is_own(folder) else find_source(folder)
    before = source.description if source else read_own(folder)
    config = _kept(config, before, folder, _KEPT_OF_OTHERS if source else {})
    _check_settings(folder, before, describe(config))
    trained = before.model.tuning
    model = Retriever.create(config, str(folder / "backbone") if trained == "full" else None, source)
    if trained != "full":
        wanted = before.backbone_fingerprint or weights_fingerprint(before.model.backbone)
        if wanted != (model.description.backbone_fingerprint or weights_fingerprint(config.model.backbone)):
            raise InputError(
                f"train.init_from: {folder}: was trained on other base weights than {config.model.backbone!r} holds: "
                f"set model.backbone={before.model.backbone}"
            )
    if trained == "lora":
        model.backbone.set_lora(_adapter(folder, source))
    _take_heads(model, source.heads() if source else read_tensors(folder / "heads.safetensors"), folder)
    return model


def _adapter(folder: Path, source: Source | None) -> Mapping[str, Tensor]:
    if source is None:
        return read_tensors(folder / "adapter" / "adapter_model.safetensors")
    assert source.adapter is not None
    return source.adapter()


def _kept(config: Config, before: Description, folder: Path, more: Mapping[str, tuple[str, ...]]) -> Config:
    """With the checkpoint's settings in place of those that were left at their defaults; and with its base, if none is
    named."""
    sections, said = {}, []
    heads = {name for name in ("single", "multi") if getattr(before, name).dims}
    adapted = {"lora"} if before.model.tuning == config.model.tuning == "lora" else set[str]()
    for section in ("model", *heads, *adapted):
        now, then = getattr(config, section), getattr(before, section)
        names = (*_KEPT.get(section, ()), *more.get(section, ()))
        default = {field.name: field.default for field in fields(now)}
        kept = {name: getattr(then, name) for name in names if getattr(now, name) == default[name]}
        said += [f"{section}.{name}={value}" for name, value in kept.items() if value != default[name]]
        if section == "model" and not now.backbone:
            kept["backbone"] = then.backbone
        sections[section] = replace(now, **kept)
    if said:
        log.info("from %s: as there: %s", folder, ", ".join(said))
    return replace(config, **sections)


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
    for section, names in (("single", ("pooling", "dense", "bias")), ("multi", ("dense", "projection", "bias"))):
        one, other = getattr(before, section), getattr(wanted, section)
        if one.dims and other.dims:
            compared |= {f"{section}.{name}": (getattr(one, name), getattr(other, name)) for name in names}
    changed = [f"{key} ({was}, not {now})" for key, (was, now) in compared.items() if was != now]
    if changed:
        raise InputError(
            f"train.init_from: {folder}: was made with another {', '.join(changed)}: take its settings over, or train "
            "from model.backbone"
        )


def _take_heads(model: Retriever, saved: Mapping[str, Tensor], folder: Path) -> None:
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
