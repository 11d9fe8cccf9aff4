"""The safetensors of a local folder: what is in them, and some of it. Without torch, until a tensor is read."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from colmrl.errors import InputError

Shape = tuple[int, ...]


@dataclass(frozen=True)
class SavedTensors:
    files: tuple[Path, ...]

    @classmethod
    def of(cls, folder: Path, name: str = "model.safetensors") -> "SavedTensors":
        """The files that transformers (peft: `name`) reads. Raises InputError where there are none."""
        if (folder / name).is_file():
            return cls((folder / name,))
        index = folder / f"{name}.index.json"
        if not index.is_file():
            pickled = next((path.name for path in folder.glob("*.bin")), None)
            why = f"{pickled} is a pickle, which is never loaded" if pickled else "no weights there"
            raise InputError(f"{folder / name}: not found ({why}): save the model as safetensors")
        files = tuple(folder / file for file in sorted(set(json.loads(index.read_bytes())["weight_map"].values())))
        if missing := [file.name for file in files if not file.is_file()]:
            raise InputError(f"{index}: {', '.join(missing)}: named there, but not found: download the model again")
        return cls(files)

    @staticmethod
    def names_in(folder: Path) -> frozenset[str]:
        """What a model's tensors are called, by the index where there is one: its files need not be there."""
        index = folder / "model.safetensors.index.json"
        if not (folder / "model.safetensors").is_file() and index.is_file():
            return frozenset(json.loads(index.read_bytes())["weight_map"])
        return frozenset(SavedTensors.of(folder).shapes)

    @cached_property
    def _places(self) -> Mapping[str, tuple[Path, Shape]]:
        found = {}
        for path in self.files:
            try:
                with safe_open(path, framework="numpy") as file:
                    found |= {name: (path, tuple(file.get_slice(name).get_shape())) for name in file.keys()}  # noqa: SIM118
            except SafetensorError as error:
                raise InputError(f"{path}: is no safetensors ({error}): download it again") from None
        return found

    @property
    def shapes(self) -> Mapping[str, Shape]:
        return {name: shape for name, (_, shape) in self._places.items()}

    def read(self, names: Iterable[str]) -> dict[str, Any]:
        """These tensors, and no others."""
        found = {}
        for name in names:
            with safe_open(self._places[name][0], framework="pt") as file:
                found[name] = file.get_tensor(name)
        return found
