"""One adapter for every backbone: folder or hub id → hidden states. The only product file that knows a family, but
for what pictures need (processors.py).

Qwen2-VL, Qwen2.5-VL, Qwen3-VL and InternVL see pictures and text; Qwen3 and BERT read text. All go through
AutoModel (no LM head, so no logits) and the family's own processor (processors.py) and chat template.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForTextEncoding, PreTrainedModel

from colmrl.config import LoraConfig, ModelConfig
from colmrl.errors import InputError
from colmrl.models.attention import AttentionKernel, check_kernel, set_attention
from colmrl.models.families import family_of as family_of
from colmrl.models.families import how_to_read, sees_pictures
from colmrl.models.packed_vision import speed_up_vision
from colmrl.models.patches import embed_by_product
from colmrl.models.quantization import keep_unpacked, quantization_config
from colmrl.models.quiet import no_bars as no_bars
from colmrl.models.quiet import no_report
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
_DISPENSABLE = ("pooler.", "lm_head.")  # weights that embeddings do without; what needs them asks for them itself
_DEFAULTS = ModelConfig()
_ENCODERS_OF = frozenset({"t5", "mt5", "umt5"})


class Backbone(nn.Module):
    """Hidden states of a pretrained model, with LoRA adapters on it or without."""

    unquantized: tuple[str, ...] = ()  # beside what sees
    counts_visual = False  # visual tokens have places like words, not rows and columns
    lora_targets, bert_lora_targets = _LORA_TARGETS, _BERT_LORA_TARGETS

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model: Any = model
        self.family: str = model.config.model_type
        self.hidden_size: int = model.config.get_text_config().hidden_size

    @classmethod
    def load(
        cls,
        source: str,
        config: ModelConfig = _DEFAULTS,
        kernel: AttentionKernel = "sdpa",
        more: Mapping[str, Any] | None = None,
    ) -> "Backbone":
        """Weights from a folder or hub id, in `config`'s dtype, quantization and attention; `more` is for
        from_pretrained. InputError where there are none.
        """
        family = family_of(source)
        check_kernel(kernel, config.dtype)
        dtype, options = DTYPES[config.dtype], {**how_to_read(source), **(more or {})}
        if config.quantization:
            kept = [*_VISION, *cls.unquantized]
            options["quantization_config"] = quantization_config(config.quantization, dtype, kept)
        if kernel != "sdpa":  # which is taken anyway, except by the few models that have none (MPNet)
            options["attn_implementation"] = kernel
        weight_files(source)  # what has none, or pickles, is said before anything is loaded
        options |= {"use_safetensors": True, "trust_remote_code": False, "output_loading_info": True}
        with (
            files_said(f"model.backbone: {source!r}", "fetch or write it again", source),
            no_bars(local=Path(source).is_dir()),
            no_report(),
        ):
            model, info = cls.loader(family).from_pretrained(source, dtype=dtype, **options)
        if missing := sorted(name for name in info["missing_keys"] if not name.startswith(_DISPENSABLE)):
            raise InputError(
                f"model.backbone: {source!r}: lacks {len(missing)} weights, {missing[0]} first: give a whole model"
            )
        if "key_mapping" in options:  # which transformers would undo in what is saved of the model
            model._weight_conversions = None  # pyright: ignore[reportPrivateUsage]
        set_attention(model, config.attention)
        speed_up_vision(model)
        keep_unpacked(model)
        embed_by_product(model)
        backbone = cls(model)
        backbone.counts_visual = config.positions == "text"
        return backbone

    @staticmethod
    def loader(family: str) -> Any:
        """The auto class that reads a family's weights; of two halves, the one that reads texts."""
        return AutoModelForTextEncoding if family in _ENCODERS_OF else AutoModel

    @property
    def sees_pictures(self) -> bool:
        return sees_pictures(self.family)

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

    def set_lora(self, weights: Mapping[str, Tensor]) -> None:
        """Into adapters that `add_lora` made, the weights of `adapter_model.safetensors`."""
        from peft import set_peft_model_state_dict

        result = set_peft_model_state_dict(self.model, dict(weights))
        assert not result.unexpected_keys and not any("lora_" in name for name in result.missing_keys)

    def check_lengths(self, config: ModelConfig) -> None:
        """Raise an InputError where texts may be longer than the model has positions for."""
        limit = getattr(self.model.config, "max_position_embeddings", None) or math.inf
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
        given: dict[str, Any] = {n: tensor for n, tensor in inputs.items() if n not in ("positions", "scored")}
        if self.counts_visual and "image_grid_thw" in inputs:
            given["position_ids"] = (inputs["attention_mask"].long().cumsum(1) - 1).clamp(min=0)
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
