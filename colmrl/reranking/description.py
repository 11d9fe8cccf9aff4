"""What a reranker's checkpoint is, and the `reranker.json` that says so; read without torch."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from colmrl.config import LoraConfig, ModelConfig, RerankConfig, ShowConfig
from colmrl.errors import InputError
from colmrl.models.description import as_written

FORMAT = 1


@dataclass(frozen=True)
class RerankerDescription:
    """What `reranker.json` says."""

    task: Literal["pointwise", "listwise"]
    model: ModelConfig
    lora: LoraConfig
    rerank: RerankConfig
    show: ShowConfig
    backbone_fingerprint: str | None = None  # of the base weights, where the folder does not hold them
    format: int = FORMAT

    @property
    def writes(self) -> bool:
        """Whether it answers with the language-model head."""
        return self.task == "listwise" or self.rerank.score == "yes_no"


_DESCRIPTION = TypeAdapter(RerankerDescription)


def write_description(folder: Path, description: RerankerDescription) -> None:
    (folder / "reranker.json").write_text(
        json.dumps(_DESCRIPTION.dump_python(description, mode="json"), indent=2), encoding="utf-8"
    )


def is_checkpoint(folder: str | Path) -> bool:
    return (Path(folder) / "reranker.json").is_file()


def read_description(folder: Path) -> RerankerDescription:
    """`reranker.json` of a checkpoint, checked."""
    path = folder / "reranker.json"
    if not path.is_file():
        raise InputError(f"{folder}: not a reranker (no reranker.json): give the OUTPUT/checkpoint of train.py")
    try:
        content = path.read_bytes()
        description = _DESCRIPTION.validate_json(content)
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read: {reason}: write the checkpoint again") from None
    if description.format != FORMAT:
        raise InputError(f"{path}: format: {description.format} is not {FORMAT}: use the colmrl that wrote it")
    return replace(description, model=as_written(folder, content, description.model))
