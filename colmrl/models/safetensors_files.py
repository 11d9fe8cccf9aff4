"""What is in safetensors files, from their headers alone: no tensor is read."""

import json
import math
from collections.abc import Iterable
from pathlib import Path


def weight_files_in(folder: Path) -> list[Path]:
    """A model's, or an adapter's: those that its index names, where it has one."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return sorted({folder / name for name in json.loads(index.read_bytes())["weight_map"].values()})
    return sorted(folder.glob("*.safetensors"))


def sizes(files: Iterable[Path]) -> tuple[int, tuple[str, ...]]:
    """Parameters in all of them, and the dtypes that they are kept in, the most frequent first."""
    counts: dict[str, int] = {}
    for path in files:
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        for name, tensor in header.items():
            if name != "__metadata__":
                counts[tensor["dtype"]] = counts.get(tensor["dtype"], 0) + math.prod(tensor["shape"])
    return sum(counts.values()), tuple(sorted(counts, key=lambda dtype: -counts[dtype]))
