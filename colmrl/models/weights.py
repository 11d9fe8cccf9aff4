"""The base weights' identity: a hash of what is on disk, in whatever dtype and on whatever machine they are loaded."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor
from transformers.utils.hub import cached_file

from colmrl.errors import InputError


def weights_fingerprint(source: str) -> str:
    """Hash of the names, shapes and values in a folder's or hub id's safetensors, however they are split into files."""
    places = {name: path for path in weight_files(source) for name in names(path)}
    return hash_tensors((name, _read(places[name], name)) for name in sorted(places))


def hash_tensors(named: Iterable[tuple[str, Tensor]]) -> str:
    """Hash of names, shapes, dtypes and values, in the order given."""
    digest = hashlib.sha256()
    for name, tensor in named:
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]


def weight_files(source: str) -> list[Path]:
    """The safetensors that transformers loads from a folder or hub id."""
    if whole := _find(source, "model.safetensors"):
        return [whole]
    index = _find(source, "model.safetensors.index.json")
    if index is None:
        raise InputError(
            f"model.backbone: {source!r}: has no safetensors, by which a checkpoint knows its base again: convert its "
            "weights (save_pretrained)"
        )
    names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    return [path for name in names if (path := _find(source, name))]


def _find(source: str, name: str) -> Path | None:
    found = cached_file(
        source,
        name,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return Path(found) if found else None


def _read(path: Path, name: str) -> Tensor:
    with safe_open(path, framework="pt") as file:
        return file.get_tensor(name)


def names(path: Path) -> list[str]:
    with safe_open(path, framework="pt") as file:
        return list(file.keys())
