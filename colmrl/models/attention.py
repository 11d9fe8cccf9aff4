"""Which tokens see which, and with what kernel.

Bidirectional attention turns a causal language model into an encoder (LLM2Vec, arXiv:2404.05961). transformers makes
its masks from the text config's `is_causal`, and hands that to the kernels for batches that need no mask.
"""

import importlib.util
from typing import Any, Literal

import torch

from colmrl.errors import InputError

AttentionKernel = Literal["sdpa", "flash_attention_2"]


def set_attention(model: Any, attention: Literal["native", "bidirectional"]) -> None:
    """bidirectional: every token sees all that are no padding (within a layer's sliding window, where it has one).
    native: as the model's own config says. BERT sees all either way.
    """
    if attention == "bidirectional":
        model.config.get_text_config().is_causal = False


def check_kernel(kernel: AttentionKernel, dtype: str) -> None:
    """Raise an InputError where the machine or the dtype cannot run it."""
    if kernel == "sdpa":
        return
    place = f"attention_kernel: {kernel}"
    if not torch.cuda.is_available():
        raise InputError(f"{place}: torch sees no GPU here: use attention_kernel=sdpa")
    if importlib.util.find_spec("flash_attn") is None:
        raise InputError(
            f"{place}: the package is not installed: pip install flash-attn --no-build-isolation, or use "
            "attention_kernel=sdpa"
        )
    if dtype == "fp32":
        raise InputError(f"{place}: it has no fp32: set model.dtype=bf16 (with model.tuning=lora), or use sdpa")
