"""What a recipe names and nobody has yet: `sample:KIND` as data, `tiny:FAMILY` as a backbone, written once.

Recipes run as they stand, without a download; `--data DIR` or `model.backbone=…` put the real thing in their place.
What cannot be there is said first: nothing is written, and nothing heavy imported, for that.
"""

import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from colmrl import configure
from colmrl.config import Config, DataConfig, SampleKind, SourceConfig, TinyFamily
from colmrl.data.reading import check_place, may_be_of_the_hub
from colmrl.errors import InputError

log = logging.getLogger(__name__)

_NAME = re.compile(r"\w[\w.-]*")


def check_inputs(config: Config, judged: bool = False) -> None:
    """Raise an InputError where the backbone, or the data that `config` trains (and is `judged`) on, can be neither
    here nor on the hub.
    """
    train, data = config.train, config.data
    if train.init_from is None:
        _check_model(config.model.backbone, "model.backbone")
    else:
        _check_model(train.init_from, "train.init_from")
    trains = (train.max_steps if train.max_steps >= 0 else train.epochs) > 0
    if trains and not data.sources and not data.triples:
        check_data(data.path, data)
    if data.eval_path and (judged or train.eval_steps or train.best_metric):
        check_data(data.eval_path, data, "data.eval_path")
    elif judged:
        check_data(data.path, data)


def _check_model(name: str, setting: str) -> None:
    family = name.removeprefix("tiny:")
    if family != name:
        if family not in get_args(TinyFamily):
            raise InputError(f"{setting}: {name}: unknown: choose from {', '.join(get_args(TinyFamily))}")
    elif not (Path(name).exists() or _NAME.fullmatch(name) or may_be_of_the_hub(name)):
        raise InputError(f"{setting}: {name!r}: no such folder: give a folder, or a hub id (owner/name)")


def check_data(path: str, data: DataConfig, setting: str = "data.path") -> None:
    """Raise an InputError where `path`, which `setting` names, can be no data set."""
    if path.startswith("sample:"):
        kind = path.removeprefix("sample:").partition("/")[0]
        if kind not in get_args(SampleKind):
            raise InputError(f"{setting}: sample:{kind}: no such sample: choose from {', '.join(get_args(SampleKind))}")
    elif data.format != "video-pairs":  # which is written where there is none
        check_place(path, setting)


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
