"""A checkpoint as plain weights: LoRA merged into its base, a quantised base dequantised, each head one matrix.

A merged product W + BA is rounded to the base's dtype. A base that was trained on in 4 bits is exported as the very
values that its 4 bits stand for; 8-bit layers (LLM.int8()) also round their inputs, which plain weights do not.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor
from transformers.utils.hub import cached_file

from colmrl.exporting.asked import check_settings
from colmrl.models.backbone import Backbone, no_bars
from colmrl.models.retriever import Description, Retriever, read_description

_VIDEO = "video_preprocessor_config.json"


@dataclass(frozen=True)
class Plain:
    """What the layouts are made of."""

    description: Description
    family: str
    hidden_size: int
    model: Any  # transformers' own, merged
    processor: Any
    single: Float[Tensor, "dim h"] | None  # None: no such head, or pooled states are the vector as they are
    multi: Float[Tensor, "m h"] | None  # None: no such head

    @property
    def sees_pictures(self) -> bool:
        return self.tokenizer is not self.processor

    @property
    def tokenizer(self) -> Any:
        return getattr(self.processor, "tokenizer", self.processor)

    @property
    def has_single(self) -> bool:
        return bool(self.description.single.dims)

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    def save_model(self, out: Path) -> None:
        with no_bars():
            self.model.save_pretrained(out)

    def save_as(self, out: Path, architecture: str, prefix: str, more: Mapping[str, Tensor], **config: Any) -> None:
        """Under another class's name, its own tensors' names after `prefix`, with `more` tensors beside them."""
        self.model.config.save_pretrained(out)
        settings = json.loads((out / "config.json").read_bytes()) | {"architectures": [architecture], **config}
        write_json(out / "config.json", settings)
        tensors = {f"{prefix}{name}": tensor for name, tensor in self.model.state_dict().items()}
        save_torch_state_dict({**tensors, **{name: tensor.to(self.dtype) for name, tensor in more.items()}}, out)

    def save_processor(self, out: Path) -> None:
        self.processor.save_pretrained(out)
        copy_video_settings(self.description.model.backbone, out)


def load_plain(checkpoint: str | Path) -> Plain:
    """A retriever's checkpoint, merged. InputError where it is none."""
    checkpoint = Path(checkpoint)
    description = read_description(checkpoint)
    check_settings(description)
    retriever = Retriever.load(checkpoint).eval()
    if description.model.quantization:
        _dequantise(retriever, checkpoint)
    adapted = retriever.backbone.model
    merged = adapted.merge_and_unload() if hasattr(adapted, "merge_and_unload") else adapted
    return Plain(
        description,
        retriever.backbone.family,
        retriever.backbone.hidden_size,
        merged,
        retriever.inputs.processor,
        _single(retriever),
        _multi(retriever),
    )


def _dequantise(retriever: Retriever, checkpoint: Path) -> None:
    """Merged into 4 bits, LoRA would be rounded to 4 bits: the base is opened once more, and dequantised first."""
    model = retriever.description.model
    base = Backbone.load(model.backbone, model)
    base.model = base.model.dequantize()
    if model.tuning == "lora":
        base.load_lora(checkpoint / "adapter")
    retriever.backbone = base.eval()


def _single(retriever: Retriever) -> Float[Tensor, "dim h"] | None:
    """The head's matrix; of one without a projection that keeps the leading units alone, what picks those."""
    head, width = retriever.single, retriever.backbone.hidden_size
    if head is None:
        return None
    if head.projection is not None:
        return head.projection.weight.detach()[: head.dim]
    return _leading(retriever, head.dim) if head.dim < width else None


def _multi(retriever: Retriever) -> Float[Tensor, "m h"] | None:
    head = retriever.multi
    if head is None:
        return None
    return head.projection.weight.detach() if head.projection is not None else _leading(retriever, head.dim)


def _leading(retriever: Retriever, dim: int) -> Float[Tensor, "dim h"]:
    """The matrix that picks the first units."""
    return torch.eye(retriever.backbone.hidden_size)[:dim]


def copy_video_settings(source: str, out: Path) -> None:
    """Of the base's processor: ours has no such part, and a library that has wants it."""
    if video := cached_file(source, _VIDEO, _raise_exceptions_for_missing_entries=False):
        shutil.copy(video, out / _VIDEO)


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def save_dense(folder: Path, weight: Float[Tensor, "dim h"], dtype: torch.dtype, **settings: Any) -> None:
    """A projection without bias as a Dense module of sentence-transformers."""
    shape = {"in_features": weight.shape[1], "out_features": weight.shape[0], "bias": False}
    identity = {"activation_function": "torch.nn.modules.linear.Identity"}
    write_json(folder / "config.json", shape | identity | settings)
    save_file({"linear.weight": weight.to(dtype).contiguous()}, folder / "model.safetensors")


def module(place: int, name: str, kind: str) -> dict[str, Any]:
    """A line of modules.json; the first module lies in the folder itself."""
    path = f"{place}_{name}" if place else ""
    return {"idx": place, "name": str(place), "path": path, "type": kind}
