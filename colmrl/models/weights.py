"""Weights as files: safetensors alone, never a pickle, whose loading can run code; what is damaged is said by name. And
the base weights' identity: a hash of what is on disk, in whatever dtype and on whatever machine they are loaded.
"""

import contextlib
import hashlib
import json
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers.utils.hub import cached_file

from colmrl.errors import InputError

_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "model.pth", "consolidated.00.pth")


@contextlib.contextmanager
def files_said(place: str | Path, remedy: str, folder: str | Path | None = None) -> Iterator[None]:
    """Whatever the libraries raise on files that are cut, of other types, or that want code of their own to be run, is
    an InputError that names the place, and the file of `folder` that is not whole: their errors are of no common class.
    """
    try:
        yield
    except (InputError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        lines = str(error).strip().splitlines()
        said = lines[0][:300] if lines else type(error).__name__
        if "trust_remote_code" in str(error):
            said = "it wants code of its own to be run (auto_map), which is never done"
            remedy = "give a model whose family transformers has itself, or one converted to it"
        cut = f"{broken.name} is not whole: " if (broken := not_whole(Path(folder or place))) else ""
        raise InputError(f"{place}: cannot be loaded: {remedy} ({cut}{said})") from None


def not_whole(folder: Path) -> Path | None:
    """The first file of a folder that is no JSON, safetensors or torch.save's, though it is called so; values are not
    read.
    """
    for path in sorted(folder.glob("*")):
        try:
            if path.suffix == ".json":
                json.loads(path.read_bytes())
            elif path.suffix == ".safetensors":
                safe_open(path, framework="pt")
            elif path.suffix in (".pt", ".pth") and not zipfile.is_zipfile(path):
                return path
        except Exception:  # as above
            return path
    return None


def read_tensors(path: Path, remedy: str = "write the checkpoint again") -> dict[str, Tensor]:
    """A safetensors file's; an InputError where it is not whole."""
    with files_said(path, remedy):
        if not path.is_file():
            raise InputError(f"{path}: no such file: {remedy}")
        return load_file(path)


def weights_fingerprint(source: str) -> str:
    """Hash of the names, shapes and values in a folder's or hub id's safetensors, however they are split into files."""
    places = {name: path for path in weight_files(source) for name in names(path)}
    return hash_tensors((name, tensor_of(places[name], name)) for name in sorted(places))


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
        pickled = [name for name in _PICKLES if _find(source, name)]
        said = f"{pickled[0]}, a pickle, can run code when it is loaded, and is never" if pickled else "others are not"
        raise InputError(
            f"model.backbone: {source!r}: has no safetensors ({said}): convert its weights where you trust them "
            "(save_pretrained)"
        )
    with files_said(index, "fetch or write the weights again"):
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    return [path for name in names if (path := _find(source, name))]


def _find(source: str, name: str) -> Path | None:
    found = cached_file(
        source,
        name,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return Path(found) if found else None


def tensor_of(path: Path, name: str) -> Tensor:
    with files_said(path, "fetch or write it again"), safe_open(path, framework="pt") as file:
        return file.get_tensor(name)


def names(path: Path) -> list[str]:
    with files_said(path, "fetch or write it again"), safe_open(path, framework="pt") as file:
        return list(file.keys())
