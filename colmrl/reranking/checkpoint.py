"""A reranker's checkpoint folder.

reranker.json            what it is: task, model, prompts, where the base weights come from
adapter/                 LoRA alone (tuning: lora), or backbone/, all weights (full), or neither (frozen)
classifier.safetensors   the head of rerank.score: classifier, or what rerank.relevance reads candidates by
processor/               tokenizer, image processor, chat template
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from colmrl.config import Config
from colmrl.errors import InputError
from colmrl.models.attention import AttentionKernel
from colmrl.models.backbone import family_of, no_bars
from colmrl.models.language import LanguageModel
from colmrl.models.processors import load_processor
from colmrl.models.weights import weights_fingerprint
from colmrl.reranking.description import RerankerDescription, write_description


def describe(config: Config) -> RerankerDescription:
    """What a checkpoint of this configuration is; a backbone in a local folder is named by its absolute path."""
    assert config.task != "retriever"
    source = Path(config.model.backbone)
    model = replace(config.model, backbone=str(source.resolve())) if source.is_dir() else config.model
    fingerprint = None if model.tuning == "full" else weights_fingerprint(model.backbone)
    return RerankerDescription(config.task, model, config.lora, config.rerank, config.show, fingerprint)


def create_language_model(config: Config, description: RerankerDescription) -> tuple[LanguageModel, Any]:
    """A new model of `model.backbone`, tuned as it says, and its processor; what is drawn comes from `seed`."""
    model = config.model
    processor = load_processor(model.backbone, model.max_pixels, model.padding_side, model.resize)
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
    processor = load_processor(str(folder / "processor"), model.max_pixels, model.padding_side, model.resize)
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
    (partial / "processor" / "config.json").write_text(json.dumps({"model_type": language.family}), encoding="utf-8")
    write_description(partial, description)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
