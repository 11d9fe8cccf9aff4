"""A vision-language model that writes: prompts and pictures in, texts out, greedily.

Any image-text-to-text model whose processor `processors.load_processor` reads, from a folder or hub id. Weights that a
checkpoint lacks would be random, and texts with them: such a checkpoint is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, GenerationConfig

from colmrl.data.media import open_image
from colmrl.errors import InputError
from colmrl.models.backbone import DTYPES, Dtype, no_bars
from colmrl.models.chat import templated
from colmrl.models.inputs import harmless
from colmrl.models.processors import load_processor
from colmrl.models.weights import files_said, weight_files

MAX_PIXELS = 512 * 28 * 28  # a product picture in at most 512 visual tokens of the 28-pixel families


@dataclass(frozen=True)
class Prompt:
    """What one text is written from; `name` is what messages call it, `images` are paths."""

    name: str
    text: str
    images: tuple[str, ...] = ()


class Generator:
    def __init__(self, model: Any, processor: Any):
        self.model, self.processor = model, processor
        self._harmless = harmless(processor.tokenizer)

    @classmethod
    def load(cls, source: str, dtype: Dtype | None = None, max_pixels: int = MAX_PIXELS) -> "Generator":
        """On the GPU in bf16 where there is one, else on the CPU in fp32."""
        try:
            processor = load_processor(source, max_pixels, "left")
        except (InputError, OSError, ValueError) as error:
            reason = _first_line(error).removeprefix("model.backbone: ")
            raise InputError(f"--vlm: {reason}: give the folder or hub id of a vision-language model") from None
        if not hasattr(processor, "tokenizer"):
            raise InputError(f"--vlm: {source!r}: reads text only: give a vision-language model")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = dtype or ("bf16" if device == "cuda" else "fp32")
        safe: Any = {"use_safetensors": True, "trust_remote_code": False, "output_loading_info": True}
        with files_said(f"--vlm: {source!r}", "give a model that writes text"), no_bars(Path(source).is_dir()):
            weight_files(source)  # what has none, or pickles, is said
            loaded: Any = AutoModelForImageTextToText.from_pretrained(
                source, dtype=DTYPES[dtype], attn_implementation="sdpa", **safe
            )
        model, info = loaded
        if missing := sorted(info["missing_keys"]):
            raise InputError(
                f"--vlm: {source!r}: has no weights for {', '.join(missing[:3])} ({len(missing)} in all), so that it "
                "cannot write: give a whole generation checkpoint"
            )
        return cls(model.eval().to(device), processor)

    @torch.inference_mode()
    def write(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[str]:
        """One text a prompt, on one line; "" where the model says nothing. A prompt's batch mates do not change it
        beyond rounding."""
        texts, pictures = [], []
        for prompt in prompts:
            content: list[dict[str, str]] = [{"type": "image"} for _ in prompt.images]
            content.append({"type": "text", "text": self._harmless(prompt.text)})
            message = [{"role": "user", "content": content}]
            texts.append(templated(self.processor, message, add_generation_prompt=True))
            try:
                pictures += [open_image(path) for path in prompt.images]
            except InputError as error:
                raise InputError(f"{prompt.name}: {error}") from None
        try:
            batch = self.processor(text=texts, images=pictures or None, padding=True, return_tensors="pt")
        except ValueError as error:  # e.g. a picture 200 times as wide as high
            raise InputError(
                f"one of {', '.join(p.name for p in prompts)}: the processor refuses it: {error}"
            ) from None
        length = batch["input_ids"].shape[1]
        written = self.model.generate(
            **batch.to(self.model.device, self.model.dtype), generation_config=self._greedy(max_new_tokens)
        )
        decoded = self.processor.tokenizer.batch_decode(written[:, length:], skip_special_tokens=True)
        return [" ".join(text.split()) for text in decoded]

    def _greedy(self, max_new_tokens: int) -> GenerationConfig:
        """Not the checkpoint's own settings: those sample, and penalise repetition by what padding shows too."""
        own, tokenizer = self.model.generation_config.eos_token_id, self.processor.tokenizer
        ends = {tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])} - {None}
        return GenerationConfig(
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            max_new_tokens=max_new_tokens,
            eos_token_id=sorted(ends),
            pad_token_id=tokenizer.pad_token_id,
        )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
