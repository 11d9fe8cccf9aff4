"""Small random models of the real architectures, with their real processor classes and a small tokenizer.

`colmrl prepare tiny-model --family qwen3_vl --out DIR` writes a folder that `model.backbone=DIR` takes like any
other: for trying a recipe without a download, and for tests. The sizes were seen to learn the sample data set
on one CPU core in about a minute.
"""

import json
import logging
from pathlib import Path
from typing import Any, get_args

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import AutoConfig, AutoModel, BertTokenizer, PreTrainedTokenizerBase, Qwen2Tokenizer
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from colmrl.config import TinyFamily
from colmrl.data.sample import vocabulary
from colmrl.errors import InputError
from colmrl.files import new_folder
from colmrl.models.backbone import no_bars
from colmrl.models.processors import processor_class

log = logging.getLogger(__name__)


_WIDTH, _LAYERS, _VISION_WIDTH, _VISION_LAYERS, _PATCH, _IMAGE = 128, 3, 96, 2, 8, 64
_QWEN_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"]
_QWEN_SPECIAL += ["<|image_pad|>", "<|video_pad|>"]
_INTERNVL_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", "<video>"]
# 1/√fan-in: transformers' default of 0.02 is meant for wide models; here it costs 100 steps of standing still
_TEXT = {
    "initializer_range": _WIDTH**-0.5,
    "hidden_size": _WIDTH,
    "intermediate_size": 2 * _WIDTH,
    "num_hidden_layers": _LAYERS,
    "num_attention_heads": 4,
}


def write_tiny_model(family: str, out: str | Path, seed: int = 0) -> Path:
    """Write model, processor and tokenizer to a new folder `out`; the same seed gives the same bytes."""
    if family not in get_args(TinyFamily):
        raise InputError(f"--family {family!r}: unknown: choose from {', '.join(get_args(TinyFamily))}")
    return _write(out, family, seed)


@new_folder
def _write(out: Path, family: str, seed: int) -> None:
    tokenizer = _bert_tokenizer() if family == "bert" else _bpe_tokenizer(family)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModel.from_config(_config(family, tokenizer))
    with no_bars():
        model.save_pretrained(out)
    (_processor(family, tokenizer) or tokenizer).save_pretrained(out)
    log.info("a random %s of %.2f M parameters", family, model.num_parameters() / 1e6)


def _config(family: str, tokenizer: PreTrainedTokenizerBase) -> Any:
    def token(name: str) -> int:
        return int(tokenizer.convert_tokens_to_ids(name))  # pyright: ignore[reportArgumentType]

    text: dict[str, Any] = {**_TEXT, "vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    if family == "bert":
        return AutoConfig.for_model("bert", **text, max_position_embeddings=512)
    text |= {"num_key_value_heads": 2, "max_position_embeddings": 4096, "tie_word_embeddings": True}
    mrope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]}  # halves of a 32-wide head
    if family == "qwen3":
        return AutoConfig.for_model("qwen3", **text, head_dim=32)
    if family == "internvl":
        vision = {"hidden_size": _VISION_WIDTH, "num_hidden_layers": _VISION_LAYERS, "num_attention_heads": 4}
        vision |= {"intermediate_size": 2 * _VISION_WIDTH, "image_size": [_IMAGE] * 2, "patch_size": [_PATCH] * 2}
        vision["initializer_range"] = _VISION_WIDTH**-0.5
        return AutoConfig.for_model(
            "internvl",
            text_config={"model_type": "qwen2", **text},
            vision_config=vision,
            image_token_id=token("<IMG_CONTEXT>"),
            image_seq_length=(_IMAGE // _PATCH // 2) ** 2,
        )
    special = {
        "image_token_id": token("<|image_pad|>"),
        "video_token_id": token("<|video_pad|>"),
        "vision_start_token_id": token("<|vision_start|>"),
        "vision_end_token_id": token("<|vision_end|>"),
    }
    vision = {
        "initializer_range": _VISION_WIDTH**-0.5,
        "depth": _VISION_LAYERS,
        "num_heads": 4,
        "patch_size": _PATCH,
        "spatial_merge_size": 2,
    }
    match family:
        case "qwen2_vl":
            vision |= {"embed_dim": _VISION_WIDTH, "hidden_size": _WIDTH, "mlp_ratio": 2}
        case "qwen2_5_vl":
            vision |= {"hidden_size": _VISION_WIDTH, "intermediate_size": 2 * _VISION_WIDTH}
            vision |= {"out_hidden_size": _WIDTH, "window_size": 4 * _PATCH, "fullatt_block_indexes": [1]}
        case _:
            text["head_dim"], mrope["mrope_interleaved"] = 32, True
            vision |= {"hidden_size": _VISION_WIDTH, "intermediate_size": 2 * _VISION_WIDTH}
            vision |= {"out_hidden_size": _WIDTH, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]}
    text["rope_parameters"] = mrope
    special["tie_word_embeddings"] = True  # so that a model that writes can be loaded from these weights too
    return AutoConfig.for_model(family, text_config=text, vision_config=vision, **special)


def _processor(family: str, tokenizer: PreTrainedTokenizerBase) -> Any:
    if family in ("bert", "qwen3"):
        return None
    if family == "internvl":
        images = GotOcr2ImageProcessorPil(size={"height": _IMAGE, "width": _IMAGE}, min_patches=1, max_patches=1)
        sequence = {"image_seq_length": (_IMAGE // _PATCH // 2) ** 2}
        return processor_class(family)(images, tokenizer, chat_template=_INTERNVL_TEMPLATE, **sequence)
    images = Qwen2VLImageProcessorPil(
        patch_size=_PATCH,
        merge_size=2,
        temporal_patch_size=2,
        size={"shortest_edge": (2 * _PATCH) ** 2, "longest_edge": _IMAGE**2},
    )
    return processor_class(family)(images, tokenizer, chat_template=_QWEN_TEMPLATE)


def _bpe_tokenizer(family: str) -> PreTrainedTokenizerBase:
    """Byte-level BPE on the sample's words: every text has tokens, the sample's words mostly one each."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,  # pyright: ignore[reportCallIssue]
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    state = json.loads(tokenizer.to_str())["model"]
    special = _INTERNVL_SPECIAL if family == "internvl" else _QWEN_SPECIAL
    extra = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    built = Qwen2Tokenizer(
        vocab=state["vocab"],
        merges=[tuple(merge) for merge in state["merges"]],  # pyright: ignore[reportArgumentType]
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="left",
        extra_special_tokens=extra if family == "internvl" else {},
    )
    built.add_special_tokens({"additional_special_tokens": special[1:]}, replace_extra_special_tokens=False)
    return built


def _bert_tokenizer() -> PreTrainedTokenizerBase:
    letters = [chr(c) for c in range(33, 127) if not chr(c).isupper()]
    words = sorted({word for line in _corpus() for word in line.split()} - set(letters))
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *letters, *[f"##{c}" for c in letters]]
    return BertTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, model_max_length=512)


def _corpus() -> list[str]:
    words = vocabulary()
    return [*words, *[f" {word}" for word in words], "user\n", "assistant\n", "system\n"] * 8


_QWEN_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% for part in message.content %}{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
)
_INTERNVL_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% for part in message.content %}{% if part.type == 'image' %}<IMG_CONTEXT>\n"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
)
