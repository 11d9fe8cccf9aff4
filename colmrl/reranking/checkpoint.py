"""A reranker's checkpoint folder.

reranker.json            what it is: task, model, prompts, where the base weights come from
adapter/                 LoRA alone (tuning: lora), or backbone/, all weights (full), or neither (frozen)
classifier.safetensors   the head of rerank.score: classifier, or what rerank.relevance reads candidates by
processor/               tokenizer, image processor, chat template
"""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import TypeAdapter
from safetensors.torch import save_file
from torch import nn

from colmrl.config import Config, LoraConfig, ModelConfig, RerankConfig, ShowConfig
from colmrl.errors import InputError
from colmrl.models.attention import AttentionKernel
from colmrl.models.backbone import family_of, load_processor, no_bars
from colmrl.models.language import LanguageModel
from colmrl.models.weights import weights_fingerprint

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


def describe(config: Config) -> RerankerDescription:
    """What a checkpoint of this configuration is; a backbone in a local folder is named by its absolute path."""
    assert config.task != "retriever"
    source = Path(config.model.backbone)
    model = replace(config.model, backbone=str(source.resolve())) if source.is_dir() else config.model
    fingerprint = None if model.tuning == "full" else weights_fingerprint(model.backbone)
    return RerankerDescription(config.task, model, config.lora, config.rerank, config.show, fingerprint)


def is_checkpoint(folder: str | Path) -> bool:
    return (Path(folder) / "reranker.json").is_file()


def read_description(folder: Path) -> RerankerDescription:
    """`reranker.json` of a checkpoint, checked."""
    path = folder / "reranker.json"
    if not path.is_file():
        raise InputError(f"{folder}: not a reranker (no reranker.json): give the OUTPUT/checkpoint of train.py")
    try:
        description = _DESCRIPTION.validate_json(path.read_bytes())
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read: {reason}: write the checkpoint again") from None
    if description.format != FORMAT:
        raise InputError(f"{path}: format: {description.format} is not {FORMAT}: use the colmrl that wrote it")
    return description


def create_language_model(config: Config, description: RerankerDescription) -> tuple[LanguageModel, Any]:
    """A new model of `model.backbone`, tuned as it says, and its processor; what is drawn comes from `seed`."""
    model = config.model
    processor = load_processor(model.backbone, model.max_pixels, model.padding_side)
    language = LanguageModel.load(_weights(config), model, config.attention_kernel, writes=description.writes)
    torch.manual_seed(config.seed)
    match model.tuning:
        case "full":
            language.requires_grad_(True)
        case "lora":
            language.add_lora(config.lora)
        case "frozen":
            language.requires_grad_(False)
    return language, processor


def _weights(config: Config) -> str:
    """Where a new model's weights are: of `model.backbone`, or what a retriever or reranker of it was trained to."""
    before = config.train.init_from
    if before is None:
        return config.model.backbone
    own = Path(before) / "backbone"
    if not own.is_dir() or config.model.tuning != "full":
        raise InputError(
            f"train.init_from: {before}: a reranker takes over a backbone that was trained whole, to train it whole "
            "(model.tuning=full): leave it out"
        )
    if family_of(str(own)) != family_of(config.model.backbone):
        raise InputError(f"train.init_from: {before}: is of another family than {config.model.backbone!r}")
    return str(own)


def load_language_model(
    folder: Path, description: RerankerDescription, kernel: AttentionKernel = "sdpa"
) -> tuple[LanguageModel, Any]:
    """The trained model of a checkpoint and its processor. InputError where its base weights are other ones by now."""
    model = description.model
    processor = load_processor(str(folder / "processor"), model.max_pixels, model.padding_side)
    own = str(folder / "backbone") if model.tuning == "full" else model.backbone
    language = LanguageModel.load(own, model, kernel, writes=description.writes)
    if model.tuning != "full" and weights_fingerprint(own) != description.backbone_fingerprint:
        raise InputError(
            f"{folder}: was trained on other base weights than {own!r} now holds: put them back, or train again"
        )
    match model.tuning:
        case "full":
            language.requires_grad_(True)
        case "lora":
            language.load_lora(folder / "adapter")
        case "frozen":
            language.requires_grad_(False)
    return language, processor


def save_checkpoint(
    folder: Path,
    description: RerankerDescription,
    language: LanguageModel,
    processor: Any,
    classifier: nn.Module | None = None,
) -> None:
    """Write the checkpoint under a temporary name, then rename it; only safetensors and JSON."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    part = {"full": "backbone", "lora": "adapter", "frozen": None}[description.model.tuning]
    if part:
        with no_bars():
            language.model.save_pretrained(partial / part)
    if classifier is not None:
        weights = {name: tensor.contiguous() for name, tensor in classifier.state_dict().items()}
        save_file(weights, partial / "classifier.safetensors")
    processor.save_pretrained(partial / "processor")
    (partial / "processor" / "config.json").write_text(json.dumps({"model_type": language.family}))
    content = _DESCRIPTION.dump_python(description, mode="json")
    (partial / "reranker.json").write_text(json.dumps(content, indent=2))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
