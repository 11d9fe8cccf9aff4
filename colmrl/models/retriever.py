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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors.torch import save_file
from torch import Tensor, nn

from colmrl.config import Config, ModelConfig
from colmrl.errors import InputError
from colmrl.models.attention import AttentionKernel
from colmrl.models.backbone import Backbone, no_bars
from colmrl.models.description import FILE, describe, is_own, read_own
from colmrl.models.description import Description as Description
from colmrl.models.description import write_description as write_description
from colmrl.models.families import family_of, sees_pictures
from colmrl.models.heads import MultiHead, SingleHead
from colmrl.models.inputs import InputBuilder
from colmrl.models.processors import processor_of
from colmrl.models.sources import find_source, located
from colmrl.models.sources import read_description as read_description
from colmrl.models.sources.source import Source
from colmrl.models.weights import files_said, read_tensors, weights_fingerprint
from colmrl.scoring import MultiVectors

_OWN = (FILE, "reranker.json")  # they say how pictures are resized


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
    def create(cls, config: Config, weights: str | None = None, source: Source | None = None) -> "Retriever":
        """A new model from `model.backbone`, heads drawn with `seed`. `weights`: a folder with its weights instead;
        `source`: of which it has the processor, and by which the weights are read.
        """
        model = config.model
        processor = processor_of(model, (source and source.processor) or model.backbone)
        options = source.options if source else {}
        backbone = Backbone.load(weights or model.backbone, model, config.attention_kernel, options)
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
        folder = located(folder)
        if not is_own(folder):
            return cls._from_source(find_source(folder), kernel)
        description = read_own(folder)
        model = description.model
        processor = processor_of(model, str(folder / "processor"))
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

    @classmethod
    def _from_source(cls, source: Source, kernel: AttentionKernel) -> "Retriever":
        description = source.description
        model = description.model
        processor = processor_of(model, source.processor or model.backbone)
        backbone = Backbone.load(model.backbone, model, kernel, source.options)
        description = replace(description, backbone_fingerprint=weights_fingerprint(model.backbone))
        if source.adapter is not None:
            backbone.add_lora(description.lora)
            backbone.set_lora(source.adapter())
        else:
            backbone.requires_grad_(False)
        if not backbone.sees_pictures:
            backbone.check_lengths(model)
        retriever = cls(description, backbone, processor)
        retriever.set_heads(source.heads(), model.backbone)
        return retriever

    def load_heads(self, folder: Path) -> None:
        """The heads' weights from a checkpoint folder."""
        path = folder / "heads.safetensors"
        self.set_heads(read_tensors(path), path)

    def set_heads(self, heads: Mapping[str, Tensor], place: str | Path) -> None:
        """`place`: where they are from, for messages."""
        with files_said(place, "write the checkpoint again"):
            missing, unexpected = self.load_state_dict(heads, strict=False)
        lacks = [name for name in missing if not name.startswith("backbone.")]
        if unexpected or lacks:
            raise InputError(
                f"{place}: has {', '.join(unexpected) or 'nothing'} that its description does not, and lacks "
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
        (partial / "processor" / "config.json").write_text(
            json.dumps({"model_type": self.backbone.family}), encoding="utf-8"
        )
        write_description(partial, self.description)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)

    def forward(self, *batches: Mapping[str, Tensor]) -> Embeddings:
        """All records of all batches, in their order; batches may differ in length."""
        return Embeddings.cat([self._embed(inputs) for inputs in batches])

    def _embed(self, inputs: Mapping[str, Tensor]) -> Embeddings:
        hidden, mask = self.backbone(inputs)
        scored = inputs.get("scored", mask)
        multi = self.multi(hidden, scored) if self.multi is not None else None
        if multi is not None and "positions" in inputs:
            multi = replace(multi, positions=inputs["positions"][scored].float())
        return Embeddings(self.single(hidden, mask) if self.single is not None else None, multi)

    def compile_heads(self) -> None:
        """Both heads by torch.compile, for batches of any size; their weights and names stay as they are."""
        for head in (self.single, self.multi):
            if head is not None:
                head.compile(dynamic=True)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device


def read_processor(folder: str | Path) -> Any:
    """A checkpoint's processor or tokenizer, as its settings want it."""
    folder = located(folder)
    if is_own(folder):
        return processor_of(read_own(folder).model, str(folder / "processor"))
    source = find_source(folder)
    return processor_of(source.description.model, source.processor or source.description.model.backbone)


def fingerprint(folder: str | Path) -> str:
    """Hash of all of a checkpoint's files: weights, processor, prompts, pixel budget, and its base's own hash. Another
    library's does not say how pictures are resized: `model.resize` is hashed too where it may be given some.
    """
    digest, folder = hashlib.sha256(), located(folder)
    paths = sorted(folder.rglob("*"))
    for path in paths:
        name = path.relative_to(folder)
        if path.is_file() and path.name != "README.md" and not name.parts[0].startswith("."):  # .git, .cache
            digest.update(str(name).encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    adapted = folder / "adapter_config.json"  # another library's, which does not say what its base was
    base = find_source(folder).description.model.backbone if adapted.is_file() else None
    if base is not None:
        digest.update(weights_fingerprint(base).encode())
    sees = any(path.name.endswith("processor_config.json") for path in paths)
    sees = sees or (base is not None and sees_pictures(family_of(base)))
    if sees and not any((folder / name).is_file() for name in _OWN):
        digest.update(ModelConfig().resize.encode())
    return digest.hexdigest()[:32]
