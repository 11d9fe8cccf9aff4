"""Qwen3-VL-Embedding: the last token's state behind a chat template whose system turn is the instruction.

After its published scripts/qwen3_vl_embedding.py (Qwen3VLEmbedder): image before text, an opened answer at the end, at
most 1,800 visual tokens a picture, nested dims from 64 on. Known by its chat template, which has the instruction that
stands where none is given; a folder that also has `modules.json` is read by that.
"""

from pathlib import Path

from colmrl.config import LoraConfig, ModelConfig, MultiConfig, SingleConfig
from colmrl.errors import InputError
from colmrl.models.description import Description
from colmrl.models.sources.nested import powers
from colmrl.models.sources.source import Source, hidden_size, read_json, saved_dtype

_DOCUMENT = "Represent the user's input."  # the script's default_instruction
_QUERY = "Retrieve images or text relevant to the user's query."  # its model card's
_TOKEN_PIXELS = 32 * 32
_MAX_PIXELS, _MAX_TOKENS, _LEAST_DIM = 1800 * _TOKEN_PIXELS, 8192, 64


def read(folder: Path) -> Source | None:
    config = read_json(folder / "config.json") or {}
    if "vision_config" not in config or _DOCUMENT not in _template(folder):
        return None
    width = hidden_size(config)
    if width is None:
        raise InputError(f"{folder}: config.json: says no hidden_size: download it again")
    model = ModelConfig(
        backbone=str(folder.resolve()),
        tuning="frozen",
        dtype=saved_dtype(config),
        query_instruction=_QUERY,
        document_instruction=_DOCUMENT,
        generation_prompt=True,
        max_query_tokens=_MAX_TOKENS,
        max_document_tokens=_MAX_TOKENS,
        max_pixels=_MAX_PIXELS,
    )
    single = SingleConfig(dims=(width, *reversed(powers(_LEAST_DIM, width))), pooling="last")
    return Source(
        kind="Qwen3-VL-Embedding, dense",
        folder=folder,
        description=Description(model, LoraConfig(), single, MultiConfig(dims=())),
    )


def _template(folder: Path) -> str:
    """The chat template, apostrophes unescaped, wherever it stands."""
    path = folder / "chat_template.jinja"
    found = [path.read_text(encoding="utf-8")] if path.is_file() else []
    for name in ("chat_template.json", "tokenizer_config.json", "processor_config.json"):
        found.append(str((read_json(folder / name) or {}).get("chat_template") or ""))
    return "\n".join(found).replace("\\'", "'")
