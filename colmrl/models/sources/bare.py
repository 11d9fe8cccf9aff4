"""A bare backbone: a model of transformers with no head that makes embeddings. It is for `model.backbone`."""

from pathlib import Path

from colmrl.errors import InputError
from colmrl.models.sources.source import read_json


def is_bare(folder: Path) -> bool:
    return "model_type" in (read_json(folder / "config.json") or {})


def read(folder: Path) -> None:
    if is_bare(folder):
        raise InputError(
            f"{folder}: not a colmrl checkpoint: a bare backbone (config.json), which has no head yet: train one from "
            f"it (model.backbone={folder})"
        )
