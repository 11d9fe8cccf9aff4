"""A processor or tokenizer as a model's settings want it; what is changed in it is also kept where it is saved."""

import json
from typing import Any

from tokenizers import AddedToken, normalizers

from colmrl.config import ModelConfig
from colmrl.models.backbone import load_processor


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
