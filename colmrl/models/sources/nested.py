"""The dims that a model's vectors may be cut to: what it says that Matryoshka training made whole, else all of them."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from colmrl.models.sources.source import read_json

_STATED = re.compile(r'"matryoshka_dims":\s*\[([\d,\s]+)\]')  # a sentence-transformers model card
_RANGE = re.compile(r"dimensions? ranging from (\d+) to (\d+)", re.IGNORECASE)  # Qwen's


def nested_dims(folder: Path, width: int, stated: Mapping[str, Any]) -> tuple[int, ...]:
    """The largest first: `width`, and below it those that config.json (vLLM's matryoshka_dimensions) or the model card
    name."""
    config = read_json(folder / "config.json") or {}
    named = list(config.get("matryoshka_dimensions") or [])
    card = folder / "README.md"
    if not named and card.is_file():
        text = card.read_text(encoding="utf-8", errors="replace")
        if found := _STATED.search(text):
            named = [int(number) for number in found[1].split(",") if number.strip()]
        elif found := _RANGE.search(text):
            named = powers(int(found[1]), width)
    top = min(width, stated.get("truncate_dim") or width)
    return (top, *sorted({dim for dim in named if dim < top}, reverse=True))


def powers(least: int, most: int) -> list[int]:
    """The powers of two from `least` on, below `most`."""
    return [2**n for n in range(most.bit_length()) if least <= 2**n < most]
