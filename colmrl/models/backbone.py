"""One adapter for every backbone: folder or hub id → hidden states. The only product file that knows a family.

Qwen2-VL, Qwen2.5-VL, Qwen3-VL and InternVL see pictures and text; Qwen3 and BERT read text. All go through
AutoModel (no LM head, so no logits) and the family's own processor and chat template. Video processors need
torchvision, which has no CPU build: processors are loaded without theirs.
"""

import contextlib
import importlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, no_type_check

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES  # pyright: ignore[reportPrivateImportUsage]
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas
from transformers.utils import logging as transformers_logging

from colmrl.config import LoraConfig, ModelConfig
from colmrl.errors import InputError
from colmrl.models.attention import AttentionKernel, check_kernel, set_attention
from colmrl.models.positions import Grid
from colmrl.models.quantization import keep_unpacked, quantization_config
from colmrl.models.weights import files_said, read_tensors, weight_files

Dtype = Literal["fp32", "bf16", "fp16"]
DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# What sees, up to the language model: Qwen-VL keep the projector in the tower, InternVL beside it.
_VISION = ["visual", "vision_tower", "vision_model", "multi_modal_projector"]
# The language model's linear layers; names alone would also match the vision towers of Qwen2.5-VL and InternVL.
_LANGUAGE = rf"^(?!.*({'|'.join(_VISION)})).*\."
_LORA_TARGETS = _LANGUAGE + r"(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)$"
ATTENTION_LORA_TARGETS = _LANGUAGE + r"(q_proj|k_proj|v_proj|o_proj)$"
# The vision side's: attention, feed-forward and projector; not the convolution that cuts patches, also called "proj".
_VISION_LORA_TARGETS = (
    rf".*\b({'|'.join(_VISION)})\.(?!patch_embed).*?"
    r"(qkv|proj|[qkv]_proj|projection_layer|fc[12]|linear_(fc)?[12]|gate_proj|up_proj|down_proj|mlp\.[02])$"
)
ATTENTION_BERT_LORA_TARGETS = r".*encoder\.layer\.\d+\.attention\.(self\.(query|key|value)|output\.dense)$"
_BERT_LORA_TARGETS = (
    r".*encoder\.layer\.\d+\.(attention\.self\.(query|key|value)|attention\.output\.dense|intermediate\.dense"
    r"|output\.dense)$"
)
# Position ids of these families depend on which tokens are visual; Qwen2.5-VL is silently wrong without.
NEEDS_TOKEN_TYPES = frozenset({"qwen2_vl", "qwen2_5_vl", "qwen3_vl"})
_DEFAULTS = ModelConfig()
_RIGHT_PADDING_ONLY = frozenset({"bert"})


@contextlib.contextmanager
def no_bars(local: bool = True) -> Iterator[None]:
    """Without the library's progress bars, which flash for every small file; a download (not local) keeps its own."""
    if local:
        transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.enable_progress_bar()


def processor_class(family: str) -> type:
    """The family's processor class with no video processor, so that it works where torchvision is absent."""
    base = getattr(importlib.import_module("transformers"), str(PROCESSOR_MAPPING_NAMES[family]))
    takes_sequence_length = family == "internvl"

    @no_type_check  # transformers reads the code object of __init__, which a checker's wrapper would hide
    def init(self: Any, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None, **kw: Any):
        kw.pop("video_processor", None)
        base.__init__(self, image_processor, tokenizer, None, chat_template=chat_template, **kw)

    @no_type_check
    def init_sequence(
        self: Any,
        image_processor: Any = None,
        tokenizer: Any = None,
        image_seq_length: int = 256,
        chat_template: Any = None,
        **kw: Any,
    ):
        init(self, image_processor, tokenizer, chat_template, image_seq_length=image_seq_length, **kw)

    return type(base.__name__, (base,), {"__init__": init_sequence if takes_sequence_length else init})


def load_processor(source: str, max_pixels: int | None, padding_side: Literal["left", "right"] | None) -> Any:
    """The family's processor (or, for text models, tokenizer) from a folder or hub id.

    Pictures are always prepared by the PIL backend, so that features are the same with and without torchvision.
    `max_pixels` bounds a picture: its area for Qwen-VL, its number of tiles for InternVL.
    """
    family = family_of(source)
    with files_said(f"model.backbone: {source!r}: its processor", "give a folder or hub id that has one"):
        if family in PROCESSOR_MAPPING_NAMES:
            given = {"backend": "pil", "trust_remote_code": False}
            processor = processor_class(family).from_pretrained(source, **given)  # pyright: ignore
            tokenizer = processor.tokenizer
            if max_pixels is not None:
                _bound_pixels(processor.image_processor, max_pixels)
        else:
            processor = tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    if family in _RIGHT_PADDING_ONLY and padding_side == "left":
        raise InputError(f"model.padding_side: left: {family} is right only: leave it null")
    if padding_side is not None:
        tokenizer.padding_side = padding_side
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return processor


def _bound_pixels(image_processor: Any, max_pixels: int) -> None:
    size = image_processor.size
    if size.longest_edge is not None:  # Qwen-VL: both "edges" are areas
        edges = {"shortest_edge": min(size.shortest_edge, max_pixels), "longest_edge": max_pixels}
        image_processor.size = type(size)(**edges)
        image_processor.max_pixels = max_pixels
    else:
        image_processor.max_patches = max(1, max_pixels // (size.height * size.width))


def pixels_used(processor: Any) -> int:
    """At most this many pixels of a picture reach the model: the budget of Qwen-VL, InternVL's tiles."""
    image_processor = processor.image_processor
    size = image_processor.size
    return int(size.longest_edge or image_processor.max_patches * size.height * size.width)


def picture_grids(processor: Any, inputs: Mapping[str, Tensor], sizes: Sequence[tuple[int, int]]) -> list[Grid]:
    """How the tokens of each picture lie on it, in what the processor made of pictures of (width, height) pixels."""
    images = processor.image_processor
    if "image_grid_thw" in inputs:
        merged = (inputs["image_grid_thw"] // images.merge_size).tolist()
        return [Grid(rows, columns) for _, rows, columns in merged]
    tile, side = (images.size.height, images.size.width), math.isqrt(processor.image_seq_length)
    least, most = images.min_patches, images.max_patches
    canvases = [get_optimal_tiled_canvas((height, width), tile, least, most) for width, height in sizes]
    return [Grid(rows * side, columns * side, side) for columns, rows in canvases]


def _read_config(source: str) -> Any:
    if not source:
        raise InputError("model.backbone: not given: name a folder with a model, or a hub id such as Qwen/Qwen3-0.6B")
    with files_said(f"model.backbone: {source!r}", "give a folder or hub id"):
        return AutoConfig.from_pretrained(source, trust_remote_code=False)


def family_of(source: str) -> str:
    """transformers' name of what is in a folder or hub id; InputError where it cannot be known."""
    return _read_config(source).model_type


class Backbone(nn.Module):
    """Hidden states of a pretrained model, with LoRA adapters on it or without."""

    unquantized: tuple[str, ...] = ()  # beside what sees
    lora_targets, bert_lora_targets = _LORA_TARGETS, _BERT_LORA_TARGETS

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model: Any = model
        self.family: str = model.config.model_type
        self.hidden_size: int = model.config.get_text_config().hidden_size

    @classmethod
    def load(cls, source: str, config: ModelConfig = _DEFAULTS, kernel: AttentionKernel = "sdpa") -> "Backbone":
        """Weights from a folder or hub id, in `config`'s dtype, quantization and attention. InputError where there
        are none.
        """
        family = family_of(source)
        check_kernel(kernel, config.dtype)
        dtype, options = DTYPES[config.dtype], {}
        if config.quantization:
            kept = [*_VISION, *cls.unquantized]
            options["quantization_config"] = quantization_config(config.quantization, dtype, kept)
        weight_files(source)  # what has none, or pickles, is said before anything is loaded
        safe = {"use_safetensors": True, "trust_remote_code": False}
        with files_said(f"model.backbone: {source!r}", "fetch or write it again"), no_bars(Path(source).is_dir()):
            loader = cls.loader(family)
            model = loader.from_pretrained(source, dtype=dtype, attn_implementation=kernel, **safe, **options)
        set_attention(model, config.attention)
        keep_unpacked(model)
        return cls(model)

    @staticmethod
    def loader(family: str) -> Any:
        """The auto class that reads a family's weights."""
        return AutoModel

    @property
    def sees_pictures(self) -> bool:
        return self.family in PROCESSOR_MAPPING_NAMES

    @property
    def vision_modules(self) -> list[nn.Module]:
        """The vision tower and what projects its features; none of a text model."""
        named = [(name, m) for name, m in self.model.named_modules() if name.rpartition(".")[2] in _VISION]
        return [m for name, m in named if not any(name.startswith(f"{outer}.") for outer, _ in named)]

    def add_lora(self, lora: LoraConfig) -> None:
        """New LoRA adapters on the language model, and on what sees where `lora.vision`; everything else is frozen."""
        from peft import LoraConfig as PeftLora
        from peft import get_peft_model

        targets = lora.targets or (self.bert_lora_targets if self.family == "bert" else self.lora_targets)
        if lora.vision:
            if not self.sees_pictures:
                raise InputError(f"lora.vision: true: {self.family} reads text only: leave it false")
            targets = f"({targets}|{_VISION_LORA_TARGETS})"
        peft = PeftLora(r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets)
        try:
            self.model = get_peft_model(self.model, peft)
        except (ValueError, re.error) as error:
            raise InputError(f"lora.targets: {targets!r}: {error}: write a regular expression on names") from None

    def load_lora(self, folder: Path) -> None:
        """Adapters saved by `save_lora`, ready to train on."""
        from peft import PeftModel

        weights = folder / "adapter_model.safetensors"
        if not weights.is_file():
            pickled = (folder / "adapter_model.bin").is_file()
            said = "adapter_model.bin, a pickle, can run code when it is loaded, and is never: " if pickled else ""
            raise InputError(f"{weights}: no such file: {said}give an adapter as safetensors, or train again")
        read_tensors(weights)
        with files_said(folder, "write the adapter again"):
            self.model = PeftModel.from_pretrained(self.model, str(folder), is_trainable=True, use_safetensors=True)

    def set_lora(self, folder: Path) -> None:
        """Into adapters that `add_lora` made, the weights saved in `folder`."""
        from peft import set_peft_model_state_dict

        result = set_peft_model_state_dict(self.model, read_tensors(folder / "adapter_model.safetensors"))
        assert not result.unexpected_keys and not any("lora_" in name for name in result.missing_keys)

    def check_lengths(self, config: ModelConfig) -> None:
        """Raise an InputError where texts may be longer than the model has positions for."""
        limit = self.model.config.max_position_embeddings
        for name in ("max_query_tokens", "max_document_tokens"):
            if getattr(config, name) > limit:
                raise InputError(f"model.{name}: {getattr(config, name)}: the backbone reads {limit}: lower it")

    def checkpoint_gradients(self) -> None:
        """Trade a second forward pass for activation memory."""
        self.model.gradient_checkpointing_enable({"use_reentrant": False})
        self.model.enable_input_require_grads()

    def forward(self, inputs: Mapping[str, Tensor]) -> tuple[Float[Tensor, "b n hidden"], Bool[Tensor, "b n"]]:
        """Last hidden states, and which positions hold a token rather than padding.

        Pictures may come as `image_features` gives them in place of `pixel_values`; "hidden" states pass through;
        "positions" are for the heads.
        """
        mask = inputs["attention_mask"].bool()
        if "hidden" in inputs:
            return inputs["hidden"], mask
        return self.model(**self.given(inputs), use_cache=False).last_hidden_state, mask

    def given(self, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
        """A model input in the library's words."""
        if "image_grid_thw" in inputs and self.family in NEEDS_TOKEN_TYPES:
            assert "mm_token_type_ids" in inputs, f"{self.family} needs mm_token_type_ids with pictures"
        given: dict[str, Any] = {name: tensor for name, tensor in inputs.items() if name != "positions"}
        if "image_features" in given:
            seen, layers = given.pop("image_features"), given.pop("deepstack_features", torch.empty(0, 0))
            given["mm_encoder_outputs"] = {
                "image": SimpleNamespace(
                    pooler_output=seen if self.family == "internvl" else [seen],
                    deepstack_features=[[layer] for layer in layers.unbind(1)],
                )
            }
        return given

    def image_features(self, inputs: Mapping[str, Tensor]) -> dict[str, Float[Tensor, "n ..."]]:
        """What the vision tower gives the language model of a batch's pictures, a row a visual token, in the form that
        `forward` takes; `image_tokens` tells how many are a picture's."""
        seen = {name: inputs[name] for name in ("pixel_values", "image_grid_thw") if name in inputs}
        output = self.model.get_image_features(**seen, return_dict=True)
        features = {"image_features": torch.cat([part.reshape(-1, part.shape[-1]) for part in output.pooler_output])}
        if layers := getattr(output, "deepstack_features", None):
            features["deepstack_features"] = torch.stack([torch.cat(list(layer)) for layer in layers], 1)
        return features

    def image_tokens(self, inputs: Mapping[str, Tensor]) -> Int[Tensor, " b"]:
        """How many visual tokens each record has."""
        return (inputs["input_ids"] == self.model.config.image_token_id).sum(1)
