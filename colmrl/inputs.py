"""What a recipe names and nobody has yet: `sample:KIND` as data, `tiny:FAMILY` as a backbone, written once.

Recipes run as they stand, without a download; `--data DIR` or `model.backbone=…` put the real thing in their place.
What cannot be there is said first: nothing is written, and nothing heavy imported, for that.
"""

import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from colmrl import configure
from colmrl.config import Config, DataConfig, SourceConfig
from colmrl.data.reading import check_place
from colmrl.errors import InputError

log = logging.getLogger(__name__)

_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def check_inputs(config: Config, judged: bool = False) -> None:
    """Raise an InputError where the backbone, or the data that `config` trains (and is `judged`) on, can be neither
    here nor on the hub.
    """
    train, data, backbone = config.train, config.data, config.model.backbone
    known = train.init_from or backbone.startswith("tiny:") or Path(backbone).exists() or _HUB_ID.fullmatch(backbone)
    if not known:
        raise InputError(f"model.backbone: {backbone!r}: no such folder: give a folder, or a hub id (owner/name)")
    trains = (train.max_steps if train.max_steps >= 0 else train.epochs) > 0
    if trains and not data.sources and not data.triples:
        check_data(data.path, data)
    if judged:
        check_data(data.eval_path or data.path, data)


def check_data(path: str, data: DataConfig) -> None:
    """Raise an InputError where `path` can be no data set."""
    if data.format != "video-pairs" and not path.startswith("sample:"):  # both are written where there are none
        check_place(path)


def write_inputs(config: Config) -> Config:
    """Write what is missing of them below `config.output`; returns the configuration with their paths."""
    from colmrl.models.tiny import write_tiny_model

    family = config.model.backbone.removeprefix("tiny:")
    model = {}
    if family != config.model.backbone:
        folder = Path(config.output) / "model"
        if not folder.exists():
            write_tiny_model(family, folder, config.seed)
        model["backbone"] = str(folder)
    data = _samples(config.data, ("path", "eval_path", "triples", "root"), config)
    if config.data.sources:
        data["sources"] = tuple(
            replace(source, **_samples(source, ("path", "triples", "root"), config)) for source in config.data.sources
        )
    return configure.replace(config, data=data, model=model)


def _samples(settings: DataConfig | SourceConfig, keys: tuple[str, ...], config: Config) -> dict[str, Any]:
    asked = {key: getattr(settings, key) or "" for key in keys}
    return {key: _sample(value, config) for key, value in asked.items() if value.startswith("sample:")}


def _sample(name: str, config: Config) -> str:
    """`sample:KIND/SUB` → the path of SUB in the sample of that kind."""
    from colmrl.data.samples import write_sample_of

    kind, _, inside = name.removeprefix("sample:").partition("/")
    folder = Path(config.output) / "data" / kind
    if not folder.exists():
        log.info("data: generated %s, since %s asks for it", folder, name)
        write_sample_of(kind, folder, config.seed)
    return str(folder / inside)
