"""Frozen base weights in 4 or 8 bits (QLoRA, arXiv:2305.14314; LLM.int8(), arXiv:2208.07339).

Only the language model's linear layers are quantised. The vision tower and its projector stay in `model.dtype`: they
are a small part of the weights, every visual token passes through them, and what they lose no later layer has.
4 bits: NF4 with doubly quantised constants, computed in `model.dtype`; batch mates change nothing. 8 bits: which
columns are computed in 16 bits depends on the batch, and so do the last digits of its embeddings.
"""

import importlib.util
import logging
from typing import Any, Literal

import torch

from colmrl.errors import InputError

Quantization = Literal["4bit", "8bit"]


def quantization_config(quantization: Quantization, dtype: torch.dtype, unquantized: list[str]) -> Any:
    """What `from_pretrained` takes; modules whose name holds one of `unquantized` stay as they are."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise InputError(
            f"model.quantization: {quantization}: needs bitsandbytes: pip install bitsandbytes, or leave it null"
        )
    from transformers import BitsAndBytesConfig

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it says at each product of matrices that it casts

    if quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=unquantized)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=unquantized,
    )


def keep_unpacked(model: Any) -> None:
    """Keep bitsandbytes from packing 4-bit weights for CPUs with bf16 instructions, as it does in the first pass
    without gradients: every later gradient is wrong then (0.50.2), and embeddings depend on the CPU.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
