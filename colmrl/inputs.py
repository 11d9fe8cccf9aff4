"""What a recipe names and nobody has yet: `sample:KIND` as data, `tiny:FAMILY` as a backbone, written once.

Recipes run as they stand, without a download; `--data DIR` or `model.backbone=…` put the real thing in their place.
"""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from colmrl import configure
from colmrl.config import Config, DataConfig, SourceConfig
from colmrl.data.samples import write_sample_of
from colmrl.models.tiny import write_tiny_model

log = logging.getLogger(__name__)


def write_inputs(config: Config) -> Config:
    """Write what is missing of them below `config.output`; returns the configuration with their paths."""
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
    kind, _, inside = name.removeprefix("sample:").partition("/")
    folder = Path(config.output) / "data" / kind
    if not folder.exists():
        log.info("data: generated %s, since %s asks for it", folder, name)
        write_sample_of(kind, folder, config.seed)
    return str(folder / inside)
