"""What is asked of an export, and whether it can be: said before a model, or torch, is loaded."""

import importlib.util
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, Protocol, cast, get_args, runtime_checkable

from colmrl.errors import InputError
from colmrl.exporting.prompts import prompts_around, prompts_before
from colmrl.files import read_json
from colmrl.models.description import Description, is_own
from colmrl.models.sources import read_description

Format = Literal["sentence-transformers", "pylate", "colpali-engine", "vllm", "transformers", "onnx"]
Head = Literal["single", "multi"]
_KEEPS_ADAPTERS = ("transformers", "colpali-engine")

# family: model, processor, width of the projection
CLASSES = {
    "qwen2_vl": ("ColQwen2", "ColQwen2Processor", 128),
    "qwen2_5_vl": ("ColQwen2_5", "ColQwen2_5_Processor", 128),
    "qwen3_vl": ("ColQwen3", "ColQwen3Processor", 320),
}
# vLLM's with multi-vectors: family: the class, its prefix, and what it calls the projection
COLUMNS = {
    "qwen3_vl": ("ColQwen3", "model.", "custom_text_proj.weight"),
    "bert": ("HF_ColBERT", "bert.", "linear.weight"),
}

# What the layouts take over, or what is of training and of search alone.
_TAKEN = {
    "model": {"backbone", "tuning", "dtype", "attention", "quantization", "padding_side", "query_prompt"}
    | {"document_prompt", "document_fields", "max_query_tokens", "max_document_tokens", "max_pixels"}
    | {"resize"},  # as the library's processors do: export says where that is otherwise
    "single": {"dims", "pooling", "projection", "temperature"},
    "multi": {"dims", "budgets", "projection", "position_weight", "temperature"},
}


def check_settings(description: Description) -> None:
    """Raise an InputError where a setting changes vectors and no layout is known to take it over."""
    for section, taken in _TAKEN.items():
        settings = getattr(description, section)
        plain = type(settings)()
        for name in (field.name for field in fields(settings) if field.name not in taken):
            if getattr(settings, name) != getattr(plain, name):
                raise InputError(
                    f"{section}.{name}: {getattr(settings, name)!r}: no layout is known to take it over: not exported"
                )


@dataclass(frozen=True)
class Asked:
    """What is to be written."""

    to: Format
    head: Head | None = None  # of the two, where a layout has room for one
    adapter: bool = False  # LoRA as it is, not merged
    license: str | None = None


@runtime_checkable
class Outline(Protocol):
    """What decides, of a checkpoint or of its plain weights."""

    @property
    def description(self) -> Description: ...
    @property
    def family(self) -> str: ...
    @property
    def sees_pictures(self) -> bool: ...


@dataclass(frozen=True)
class Outlined:
    description: Description
    family: str
    sees_pictures: bool


def asked_for(to: str, head: str | None, adapter: bool, license: str | None) -> Asked:
    """The same, from words that may be wrong."""
    if to not in get_args(Format):
        raise InputError(f"--to {to}: unknown: choose from {', '.join(get_args(Format))}")
    if head is not None and head not in get_args(Head):
        raise InputError(f"--head {head}: unknown: choose from {', '.join(get_args(Head))}")
    return Asked(cast(Format, to), cast(Head | None, head), adapter, license)


def check(checkpoint: Path, asked: Asked) -> None:
    """Raise an InputError where the checkpoint cannot be written so, as far as its folder tells."""
    description = read_description(checkpoint)
    if asked.head is not None and asked.to != "vllm":
        raise InputError(f"--head: {asked.to} takes {_heads(asked.to)}: leave it out")
    if asked.adapter and asked.to not in _KEEPS_ADAPTERS:
        raise InputError(f"--adapter: {asked.to} takes merged weights: leave it out, or use --to transformers")
    if asked.adapter and not (checkpoint / "adapter").is_dir():
        raise InputError(f"--adapter: {checkpoint}: has no LoRA (model.tuning: {description.model.tuning})")
    processor = checkpoint / "processor"
    if is_own(checkpoint) and (processor / "config.json").is_file():  # of other libraries' it is known once loaded
        stated = read_json(processor / "config.json", "copy the checkpoint whole again", ("model_type",))
        family = str(stated["model_type"])
        check_layout(asked, Outlined(description, family, (processor / "processor_config.json").is_file()))


def check_layout(asked: Asked, plain: Outline) -> None:
    """Raise an InputError where the layout has no room for such a model."""
    check_settings(plain.description)
    match asked.to:
        case "sentence-transformers":
            _check_prompts(plain, "sentence-transformers")
        case "pylate":
            _check_pylate(plain)
        case "colpali-engine":
            _check_colpali(plain)
        case "vllm":
            _check_vllm(plain, head_of(plain.description, asked.head))
        case "transformers":
            prompts_around(plain.description)
        case "onnx":
            _check_onnx(plain)


def head_of(description: Description, asked: Head | None) -> Head:
    """The head that is exported: the one that is asked for, or the only one."""
    there: list[tuple[Head, bool]] = [
        ("single", bool(description.single.dims)),
        ("multi", bool(description.multi.dims)),
    ]
    heads: list[Head] = [head for head, has in there if has]
    if asked is None and len(heads) > 1:
        raise InputError("--to vllm: one folder serves one head: give --head single or --head multi")
    if asked is not None and asked not in heads:
        raise InputError(f"--head {asked}: the checkpoint has the {heads[0]} head alone")
    return asked if asked is not None else heads[0]


def _heads(to: Format) -> str:
    match to:
        case "sentence-transformers" | "transformers":
            return "both heads"
        case "onnx":
            return "the single head"
        case _:
            return "the multi head"


def _check_prompts(plain: Outline, tool: str) -> None:
    if plain.sees_pictures:
        prompts_around(plain.description)
    else:
        prompts_before(plain.description, tool)


def _check_pylate(plain: Outline) -> None:
    if plain.sees_pictures:
        raise InputError(f"--to pylate: {plain.family} sees pictures, and PyLate reads text: use sentence-transformers")
    if not plain.description.multi.dims:
        raise InputError("--to pylate: the checkpoint has no multi head, which is what PyLate loads")
    prompts_before(plain.description, "PyLate")


def _check_colpali(plain: Outline) -> None:
    if plain.family not in CLASSES:
        raise InputError(f"--to colpali-engine: {plain.family}: is none of {', '.join(CLASSES)}, whose classes it has")
    dims = plain.description.multi.dims
    if not dims:
        raise InputError("--to colpali-engine: the checkpoint has no multi head, which is what it loads")
    name, _, width = CLASSES[plain.family]
    if max(dims) > width:
        raise InputError(f"multi.dims: {max(dims)}: {name} has {width} at most: train with fewer")
    prompts_around(plain.description)


def _check_vllm(plain: Outline, head: Head) -> None:
    if plain.sees_pictures and plain.description.model.attention == "bidirectional":
        raise InputError(
            f"model.attention: bidirectional: vLLM has causal attention alone for {plain.family}: use "
            "sentence-transformers"
        )
    if head == "multi" and plain.family not in COLUMNS:
        raise InputError(
            f"--head multi: vLLM has a class with multi-vectors for {', '.join(COLUMNS)}, and none for "
            f"{plain.family}: use sentence-transformers"
        )
    if plain.sees_pictures:
        prompts_around(plain.description)
    elif head == "single":
        prompts_before(plain.description, "vLLM's callers")


def _check_onnx(plain: Outline) -> None:
    if plain.sees_pictures:
        raise InputError(f"--to onnx: {plain.family} sees pictures: the graph is of text models alone")
    if not plain.description.single.dims:
        raise InputError("--to onnx: the checkpoint has no single head, which is what is exported")
    prompts_around(plain.description)
    if importlib.util.find_spec("onnxscript") is None:
        raise InputError("--to onnx: needs onnxscript: pip install colmrl[onnx]")
