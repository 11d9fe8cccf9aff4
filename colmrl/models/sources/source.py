"""A model that another library saved, in our words: how it is described, and where its weights are."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from colmrl.errors import InputError
from colmrl.models.description import Description

_DTYPES: dict[str, Literal["fp32", "bf16", "fp16"]] = {"bfloat16": "bf16", "float16": "fp16"}
Tensors = Callable[[], Mapping[str, Any]]  # read when asked for


@dataclass(frozen=True)
class Source:
    """`description.model.backbone` is the folder (or hub id) of the base weights; its tuning is "frozen" where they are
    all there is, "lora" where there is an adapter on them: none of it was trained by us, so there is no more to keep.
    """

    kind: str  # as messages and `colmrl inspect` call it
    folder: Path
    description: Description
    heads: Tensors = dict  # by their names in heads.safetensors: single.projection.weight, multi.dense.0.linear.bias
    adapter: Tensors | None = None  # by their names in adapter_model.safetensors, of `description.lora` on our backbone
    processor: str | None = None  # the folder of processor or tokenizer; null: the backbone's
    options: Mapping[str, Any] = field(default_factory=dict)  # for from_pretrained of the backbone, e.g. key_mapping
    notes: tuple[str, ...] = ()  # what `colmrl inspect` should say beside it


def read_json(path: Path) -> Any:
    """A file's content; None where there is none. Raises InputError where it is no JSON."""
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: is no JSON ({error}): download it again") from None


def read_tensors(folder: Path) -> dict[str, Any]:
    """`model.safetensors` of a module's folder. Raises InputError where there are but pickled weights, or none."""
    path = folder / "model.safetensors"
    if not path.is_file():
        pickled = (folder / "pytorch_model.bin").exists()
        what = "its weights are pickled (pytorch_model.bin), which can run code" if pickled else "no model.safetensors"
        raise InputError(f"{folder}: {what}: save the model again with its library (safetensors)")
    from colmrl.models import weights

    return weights.read_tensors(path, "save the model again with its library")


def refuse_remote_code(folder: Path) -> None:
    """Raise an InputError where the model wants code of its own to be run."""
    for name in ("config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json"):
        if "auto_map" in (read_json(folder / name) or {}):
            raise InputError(
                f"{folder / name}: auto_map: the model asks to run Python of its own (trust_remote_code), which is "
                "never done: take a version of it that transformers reads by itself"
            )


def hidden_size(config: Mapping[str, Any]) -> int | None:
    """Of what config.json says, the units of the (language) model's hidden states."""
    text = config.get("text_config") or config.get("llm_config") or config
    return next((text[name] for name in ("hidden_size", "d_model", "dim", "n_embd") if name in text), None)


def token_limit(folder: Path) -> int:
    """Tokens that a tokenizer keeps of a text: what it says, and no more than the model has positions for."""
    config, tokenizer = read_json(folder / "config.json") or {}, read_json(folder / "tokenizer_config.json") or {}
    text = config.get("text_config") or config
    limits = [tokenizer.get("model_max_length"), text.get("max_position_embeddings"), text.get("n_positions")]
    known = [int(limit) for limit in limits if limit and 0 < limit < 1e9]
    return min(known) if known else 512


def saved_dtype(config: Mapping[str, Any]) -> Literal["fp32", "bf16", "fp16"]:
    """That config.json says the weights are kept in, which is what transformers loads them in."""
    said = str(config.get("dtype") or config.get("torch_dtype") or "float32").removeprefix("torch.")
    return _DTYPES.get(said, "fp32")
