"""A processor or tokenizer as a model's settings want it; what is changed in it is also kept where it is saved.

Video processors need torchvision, which has no CPU build: processors are loaded without theirs.
"""

import importlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, no_type_check

from tokenizers import AddedToken, normalizers
from transformers import AutoTokenizer
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES  # pyright: ignore[reportPrivateImportUsage]
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

from colmrl.config import ModelConfig
from colmrl.config_model import Resize
from colmrl.errors import InputError
from colmrl.models.families import family_of, sees_pictures
from colmrl.models.patches import cut_at_once
from colmrl.models.positions import Grid
from colmrl.models.weights import files_said

_RIGHT_PADDING_ONLY = frozenset({"bert"})


def processor_of(model: ModelConfig, folder: str) -> Any:
    """From a folder or hub id, under the model's limits, with its special tokens and its case."""
    processor = load_processor(folder, model.max_pixels, model.padding_side, model.resize)
    tokenizer = getattr(processor, "tokenizer", processor)
    split = [token for token in model.special_tokens if tokenizer.tokenize(token) != [token]]
    if split:
        whole: list[str | AddedToken] = [AddedToken(token, normalized=False, special=True) for token in split]
        tokenizer.add_special_tokens({"additional_special_tokens": whole}, replace_extra_special_tokens=False)
    if model.lower_case:
        _lower(tokenizer.backend_tokenizer)
    return processor


def _lower(tokenizer: Any) -> None:
    """Every text, before anything else is done to it (sentence-transformers' do_lower_case)."""
    there = json.loads(tokenizer.to_str())["normalizer"]
    steps = [] if there is None else there.get("normalizers", [there])
    if any(step["type"] == "Lowercase" or step.get("lowercase") for step in steps):
        return
    before = tokenizer.normalizer
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *([before] if before is not None else [])])


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


def load_processor(
    source: str,
    max_pixels: int | None,
    padding_side: Literal["left", "right"] | None,
    resize: Resize = "torch",
) -> Any:
    """The family's processor (or, for text models, tokenizer) from a folder or hub id.

    Pictures are always prepared by the PIL backend, resized as `resize` says: the same with and without torchvision.
    `max_pixels` bounds a picture: its area for Qwen-VL, its number of tiles for InternVL.
    """
    family = family_of(source)
    with files_said(f"model.backbone: {source!r}: its processor", "give a folder or hub id that has one", source):
        if sees_pictures(family):
            given = {"backend": "pil", "trust_remote_code": False}
            processor = processor_class(family).from_pretrained(source, **given)  # pyright: ignore
            tokenizer = processor.tokenizer
            cut_at_once(processor.image_processor, resize)
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


def picture_grids(processor: Any, inputs: Mapping[str, Any], sizes: Sequence[tuple[int, int]]) -> list[Grid]:
    """How the tokens of each picture lie on it, in what the processor made of pictures of (width, height) pixels."""
    images = processor.image_processor
    if "image_grid_thw" in inputs:
        merged = (inputs["image_grid_thw"] // images.merge_size).tolist()
        return [Grid(rows, columns) for _, rows, columns in merged]
    tile, side = (images.size.height, images.size.width), math.isqrt(processor.image_seq_length)
    least, most = images.min_patches, images.max_patches
    canvases = [get_optimal_tiled_canvas((height, width), tile, least, most) for width, height in sizes]
    return [Grid(rows * side, columns * side, side) for columns, rows in canvases]
