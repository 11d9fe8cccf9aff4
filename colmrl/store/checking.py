"""Whether a shard's files are what the manifest says, by their headers and offsets; values are not read."""

import tokenize
from collections.abc import Callable
from pathlib import Path

import numpy as np

from colmrl.store.manifest import ArraySpec, Shard

# What numpy raises on files that are cut, or are no arrays.
UNREADABLE = (OSError, ValueError, EOFError, OverflowError, RecursionError, tokenize.TokenError)
_TYPES = {"fp32": np.float32, "fp16": np.float16, "int8": np.int8, "binary": np.uint8}


def opened(path: Path) -> np.ndarray:
    """Mapped, not read. A ValueError where it is no whole array."""
    try:
        return np.load(path, mmap_mode="c")
    except FileNotFoundError:
        raise
    except UNREADABLE:
        raise ValueError(f"{path.name}: cut short, or no array") from None


def check_shard(spec: ArraySpec, shard: Shard, load: Callable[[str], np.ndarray]) -> None:
    """A ValueError where an array's shape or type is another, or offsets lead out of it. `load`: suffix → array."""
    rows = shard.records
    if spec.head == "multi":
        offsets = load(".offsets")
        _check(offsets, (shard.records + 1,), np.int64, "offsets")
        if offsets[0] != 0 or (np.diff(offsets) < 0).any():
            raise ValueError("its offsets do not rise from 0")
        rows = int(offsets[-1])
    width = -(-spec.dim // 8) if spec.precision == "binary" else spec.dim
    _check(load(""), (rows, width), _TYPES[spec.precision], spec.name)
    if spec.precision == "int8":
        _check(load(".scales"), (rows,), np.float32, "scales")


def _check(array: np.ndarray, shape: tuple[int, ...], kind: type, name: str) -> None:
    if array.shape != shape or array.dtype != kind:
        raise ValueError(f"{name}: {array.shape} of {array.dtype}, not {shape} of {np.dtype(kind)}")
