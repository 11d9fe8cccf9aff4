"""Checkpoint averaging (model soups, arXiv:2203.05482): the weighted mean of what checkpoints of one recipe trained.

Heads and fully trained backbones are averaged weight by weight. LoRA's A and B are not, as the mean of products is not
the product of means: their ranks are put one after another, B scaled by its share, which is the mean of the products
exactly. The merged adapter's rank and alpha are therefore the sums of the others'.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from colmrl.errors import InputError
from colmrl.files import new_folder
from colmrl.models.description import is_own
from colmrl.models.retriever import Description, fingerprint, read_description, write_description
from colmrl.models.weights import names, read_tensors, tensor_of

# What each may have its own of: it is of the loss, or the sum is.
_FREE = {"single.temperature", "multi.temperature", "lora.r", "lora.alpha", "lora.dropout"}


def merge(folders: Sequence[str | Path], shares: Sequence[float] | None, out: str | Path) -> Path:
    """Write the mean of the checkpoints to a new folder `out`, a checkpoint like any other. `shares` (equal where there
    are none) are positive and divided by their sum.
    """
    if len(folders) < 2:
        raise InputError(f"merge: {len(folders)} checkpoint: give two or more")
    shares = shares or [1.0] * len(folders)
    if len(shares) != len(folders):
        raise InputError(f"--weights: {len(shares)} for {len(folders)} checkpoints: give one for each")
    if min(shares) <= 0:
        raise InputError(f"--weights: {min(shares):g}: is not positive: leave that checkpoint out")
    paths = [Path(folder) for folder in folders]
    for path in paths:
        if not is_own(path):
            raise InputError(f"{path}: not a colmrl checkpoint (no colmrl.json): only those are averaged")
    descriptions = [read_description(path) for path in paths]
    for path, description in zip(paths[1:], descriptions[1:], strict=True):
        if differing := _differences(descriptions[0], description):
            raise InputError(
                f"{path}: differs from {paths[0]} in {', '.join(differing)}: merge checkpoints of one recipe and base"
            )
    return _write(out, paths, descriptions, [share / sum(shares) for share in shares])


def _differences(one: Description, other: Description) -> list[str]:
    """The settings that two checkpoints must agree on and do not."""
    before, after = _flat(one), _flat(other)
    return [key for key in before if before[key] != after.get(key)]


def _flat(description: Description) -> dict[str, Any]:
    flat = {
        f"{section}.{name}": value
        for section, values in asdict(description).items()
        if isinstance(values, Mapping)
        for name, value in values.items()
        if f"{section}.{name}" not in _FREE
    }
    if description.model.tuning == "lora":
        flat["lora.alpha/lora.r"] = description.lora.alpha / description.lora.r
    if description.model.tuning != "full":  # the base is known by its weights, wherever it is
        flat["model.backbone"] = description.backbone_fingerprint
    return flat


@new_folder
def _write(out: Path, paths: list[Path], descriptions: list[Description], shares: list[float]) -> None:
    first, *_ = descriptions
    shutil.copytree(paths[0], out, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.safetensors"))
    _average(out / "heads.safetensors", [[path / "heads.safetensors"] for path in paths], shares)
    if first.model.tuning == "full":
        files = [sorted((path / "backbone").glob("*.safetensors")) for path in paths]
        for file in files[0]:
            _average(out / "backbone" / file.name, [[file], *files[1:]], shares)
    if first.model.tuning == "lora":
        rank, alpha = sum(d.lora.r for d in descriptions), sum(d.lora.alpha for d in descriptions)
        first = replace(first, lora=replace(first.lora, r=rank, alpha=alpha))
        name = "adapter/adapter_model.safetensors"
        save_file(concatenated([read_tensors(path / name) for path in paths], shares), out / name)
        settings = out / "adapter/adapter_config.json"
        settings.write_text(
            json.dumps(json.loads(settings.read_bytes()) | {"r": rank, "lora_alpha": alpha}, indent=2), encoding="utf-8"
        )
    write_description(out, first)
    made = {"of": [fingerprint(path) for path in paths], "weights": shares}
    (out / "merge.json").write_text(json.dumps(made, indent=2), encoding="utf-8")


def concatenated(adapters: Sequence[Mapping[str, Tensor]], shares: Sequence[float]) -> dict[str, Tensor]:
    """One adapter whose B @ A is the weighted sum of the adapters': A one below another, B side by side."""
    merged = {}
    for name in adapters[0]:
        parts = [adapter[name] for adapter in adapters]
        if "lora_B" in name:
            merged[name] = torch.cat([part * share for part, share in zip(parts, shares, strict=True)], dim=1)
        else:
            assert "lora_A" in name, name
            merged[name] = torch.cat(parts, dim=0)
    return merged


def _average(out: Path, sources: list[list[Path]], shares: list[float]) -> None:
    """Write the mean of the first source's tensors and of those by the same name in the others, a tensor at a time."""
    places = [_places(files) for files in sources]
    mean: dict[str, Tensor] = {}
    for name, place in places[0].items():
        first = tensor_of(place, name)
        total = first.double() * shares[0]
        for other, share in zip(places[1:], shares[1:], strict=True):
            tensor = tensor_of(other[name], name) if name in other else None
            if tensor is None or tensor.shape != first.shape:
                raise InputError(f"{next(iter(other.values()), out)}: {name}: not as in {place}: merge the same models")
            total += tensor.double() * share
        mean[name] = total.to(first.dtype)
    save_file(mean, out, {"format": "pt"})


def _places(files: list[Path]) -> dict[str, Path]:
    return {name: path for path in files for name in names(path)}
