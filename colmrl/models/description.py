"""What a checkpoint is, and the `colmrl.json` that says so."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from colmrl.config import Config, LoraConfig, ModelConfig, MultiConfig, ShowConfig, SingleConfig
from colmrl.errors import InputError
from colmrl.view import TrainedViews

FORMAT = 2
FILE = "colmrl.json"


@dataclass(frozen=True)
class Description:
    """What `colmrl.json` says."""

    model: ModelConfig
    lora: LoraConfig
    single: SingleConfig
    multi: MultiConfig
    show: ShowConfig = field(default_factory=ShowConfig)
    backbone_fingerprint: str | None = None  # of the base weights, where the folder does not hold them
    format: int = FORMAT

    @property
    def trained(self) -> TrainedViews:
        return TrainedViews(self.single.dims, self.multi.dims)


_DESCRIPTION = TypeAdapter(Description)


def describe(config: Config) -> Description:
    """What a checkpoint of this configuration is; a backbone in a local folder is named by its absolute path."""
    source = Path(config.model.backbone)
    model = replace(config.model, backbone=str(source.resolve())) if source.is_dir() else config.model
    return Description(model, config.lora, config.single, config.multi, config.show)


def as_json(description: Description) -> dict[str, Any]:
    return _DESCRIPTION.dump_python(description, mode="json")


def write_description(folder: Path, description: Description) -> None:
    content = as_json(description)
    (folder / FILE).write_text(json.dumps(content, indent=2), encoding="utf-8")


def is_own(folder: Path) -> bool:
    return (folder / FILE).is_file()


def as_written(folder: Path, content: bytes, model: ModelConfig) -> ModelConfig:
    """In a checkpoint that was written before there was `model.resize`, pictures are resized as they all were then."""
    sees = (folder / "processor" / "processor_config.json").is_file()
    return replace(model, resize="pil") if sees and "resize" not in json.loads(content)["model"] else model


def read_own(folder: Path) -> Description:
    """`colmrl.json` of a checkpoint, checked."""
    path = folder / FILE
    try:
        content = path.read_bytes()
        description = _DESCRIPTION.validate_json(content)
    except ValueError as error:
        raise InputError(
            f"{path}: cannot be read: {' '.join(str(error).split())}: write the checkpoint again"
        ) from None
    if description.format != FORMAT:
        raise InputError(f"{path}: format: {description.format} is not {FORMAT}: use the colmrl that wrote it")
    return replace(description, model=as_written(folder, content, description.model))
