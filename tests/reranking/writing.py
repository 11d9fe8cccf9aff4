"""Tiny models that can say yes and no: their tokenizers have no such tokens, so these are added."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from colmrl.models.processors import load_processor


def write_answering_model(folder: Path, out: Path) -> Path:
    processor = load_processor(str(folder), None, None)
    tokenizer = getattr(processor, "tokenizer", processor)
    tokenizer.add_tokens(["yes", "no"])
    loader = AutoModelForCausalLM if tokenizer is processor else AutoModelForImageTextToText
    model = loader.from_pretrained(folder)
    torch.manual_seed(0)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.get_input_embeddings().weight.data[-2:].normal_(std=0.1)
    model.save_pretrained(out)
    processor.save_pretrained(out)
    return out
