"""The retriever: one forward pass of the backbone, both heads on it; and its checkpoint folder.

colmrl.json         what it is: model, heads, prompts, pixel budget, where the base weights come from
heads.safetensors   both heads
backbone/           all weights (tuning: full), or adapter/ (lora), or neither (frozen)
processor/          tokenizer, image processor, chat template
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from pydantic import TypeAdapter
from safetensors.torch import save_file
from torch import Tensor, nn

from colmrl.config import Config, LoraConfig, ModelConfig, MultiConfig, ShowConfig, SingleConfig
from colmrl.errors import InputError
from colmrl.models.attention import AttentionKernel
from colmrl.models.backbone import Backbone, load_processor, no_bars
from colmrl.models.heads import MultiHead, SingleHead
from colmrl.models.inputs import InputBuilder
from colmrl.models.weights import files_said, read_tensors, weights_fingerprint
from colmrl.scoring import MultiVectors
from colmrl.view import TrainedViews

FORMAT = 2


@dataclass(frozen=True)
class Embeddings:
    """What one forward pass gives; a head that the model does not have gives None."""

    single: Float[Tensor, "b h"] | None
    multi: MultiVectors | None

    @classmethod
    def cat(cls, parts: Sequence["Embeddings"]) -> "Embeddings":
        singles = [part.single for part in parts if part.single is not None]
        multis = [part.multi for part in parts if part.multi is not None]
        return cls(torch.cat(singles) if singles else None, MultiVectors.cat(multis) if multis else None)

    def select(self, places: Int[Tensor, " n"]) -> "Embeddings":
        """These records, in this order."""
        return Embeddings(
            self.single[places] if self.single is not None else None,
            self.multi.select(places) if self.multi is not None else None,
        )


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


class Retriever(nn.Module):
    def __init__(self, description: Description, backbone: Backbone, processor: Any):
        super().__init__()
        self.description = description
        self.backbone = backbone
        self.inputs = InputBuilder(processor, description.model)
        single, multi, width = description.single, description.multi, backbone.hidden_size
        self.single = SingleHead(single, width) if single.dims else None
        self.multi = MultiHead(multi, width) if multi.dims else None

    @classmethod
    def create(cls, config: Config, weights: str | None = None) -> "Retriever":
        """A new model from `model.backbone`, heads drawn with `seed`; `weights`: a folder with its weights instead."""
        model = config.model
        processor = load_processor(model.backbone, model.max_pixels, model.padding_side)
        backbone = Backbone.load(weights or model.backbone, model, config.attention_kernel)
        torch.manual_seed(config.seed)
        match model.tuning:
            case "full":
                backbone.requires_grad_(True)
            case "lora":
                backbone.add_lora(config.lora)
            case "frozen":
                backbone.requires_grad_(False)
        if not backbone.sees_pictures:
            backbone.check_lengths(model)
        description = describe(config)
        if model.tuning != "full":
            description = replace(description, backbone_fingerprint=weights_fingerprint(model.backbone))
        return cls(description, backbone, processor)

    @classmethod
    def load(cls, folder: str | Path, kernel: AttentionKernel = "sdpa") -> "Retriever":
        """A checkpoint, bit-equal to what was saved. Raises InputError where it is not one, or its base changed."""
        folder = Path(folder)
        description = read_description(folder)
        model = description.model
        processor = load_processor(str(folder / "processor"), model.max_pixels, model.padding_side)
        if model.tuning == "full":
            backbone = Backbone.load(str(folder / "backbone"), model, kernel)
            backbone.requires_grad_(True)
        else:
            backbone = Backbone.load(model.backbone, model, kernel)
            if weights_fingerprint(model.backbone) != description.backbone_fingerprint:
                raise InputError(
                    f"{folder}: was trained on other base weights than {model.backbone!r} now holds: put them back, "
                    "or train again"
                )
            if model.tuning == "lora":
                backbone.load_lora(folder / "adapter")
            else:
                backbone.requires_grad_(False)
        retriever = cls(description, backbone, processor)
        retriever.load_heads(folder)
        return retriever

    def load_heads(self, folder: Path) -> None:
        """The heads' weights from a checkpoint folder."""
        path = folder / "heads.safetensors"
        heads = read_tensors(path)
        with files_said(path, "write the checkpoint again"):
            missing, unexpected = self.load_state_dict(heads, strict=False)
        lacks = [name for name in missing if not name.startswith("backbone.")]
        if unexpected or lacks:
            raise InputError(
                f"{path}: has {', '.join(unexpected) or 'nothing'} that colmrl.json does not, and lacks "
                f"{', '.join(lacks) or 'nothing'}: write the checkpoint again"
            )

    def save(self, folder: str | Path) -> None:
        """Write the checkpoint under a temporary name, then rename it; only safetensors and JSON."""
        folder = Path(folder)
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        part = {"full": "backbone", "lora": "adapter", "frozen": None}[self.description.model.tuning]
        if part:
            with no_bars():
                self.backbone.model.save_pretrained(partial / part)
        heads = {name: t for name, t in self.state_dict().items() if not name.startswith("backbone.")}
        save_file({name: tensor.contiguous() for name, tensor in heads.items()}, partial / "heads.safetensors")
        self.inputs.processor.save_pretrained(partial / "processor")
        (partial / "processor" / "config.json").write_text(json.dumps({"model_type": self.backbone.family}))
        write_description(partial, self.description)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)

    def forward(self, *batches: Mapping[str, Tensor]) -> Embeddings:
        """All records of all batches, in their order; batches may differ in length."""
        return Embeddings.cat([self._embed(inputs) for inputs in batches])

    def _embed(self, inputs: Mapping[str, Tensor]) -> Embeddings:
        hidden, mask = self.backbone(inputs)
        multi = self.multi(hidden, mask) if self.multi is not None else None
        if multi is not None and "positions" in inputs:
            multi = replace(multi, positions=inputs["positions"][mask].float())
        return Embeddings(self.single(hidden, mask) if self.single is not None else None, multi)

    def compile_heads(self) -> None:
        """Both heads by torch.compile, for batches of any size; their weights and names stay as they are."""
        for head in (self.single, self.multi):
            if head is not None:
                head.compile(dynamic=True)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device


def write_description(folder: Path, description: Description) -> None:
    content = _DESCRIPTION.dump_python(description, mode="json")
    (folder / "colmrl.json").write_text(json.dumps(content, indent=2))


def read_description(folder: Path) -> Description:
    """`colmrl.json` of a checkpoint, checked."""
    path = folder / "colmrl.json"
    if not path.is_file():
        raise InputError(f"{folder}: not a colmrl checkpoint (no colmrl.json): give the OUTPUT/checkpoint of train.py")
    try:
        description = _DESCRIPTION.validate_json(path.read_bytes())
    except ValueError as error:
        raise InputError(
            f"{path}: cannot be read: {' '.join(str(error).split())}: write the checkpoint again"
        ) from None
    if description.format != FORMAT:
        raise InputError(f"{path}: format: {description.format} is not {FORMAT}: use the colmrl that wrote it")
    return description


def fingerprint(folder: str | Path) -> str:
    """Hash of all of a checkpoint's files: weights, processor, prompts, pixel budget, and its base's own hash."""
    digest = hashlib.sha256()
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file() and path.name != "README.md":
            digest.update(str(path.relative_to(folder)).encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:32]
