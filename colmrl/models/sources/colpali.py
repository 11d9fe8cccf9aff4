"""ColPali's kind (arXiv:2407.01449): colpali-engine's adapters and whole checkpoints, and transformers' classes for the
same models. A backbone, a linear layer with a bias on every hidden state, no single vector.

    adapter_config.json, adapter_model.safetensors    LoRA on the backbone and mostly on `custom_text_proj`, which is in
                                                      the base; or that layer whole (modules_to_save)
    config.json (architectures: ColQwen2, …)          colpali-engine, whole: `custom_text_proj` beside the backbone
    config.json (model_type: colqwen2)                transformers: `embedding_proj_layer`, the backbone under `vlm`

Prompts are those in the code of colpali-engine 0.3.18, or in the processor_config.json of transformers. Of a document
the picture is seen, never a text.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from colmrl.config import LoraConfig, ModelConfig, MultiConfig, SingleConfig
from colmrl.errors import InputError
from colmrl.models.description import Description
from colmrl.models.sources.colpali_adapter import Adapter
from colmrl.models.sources.saved_tensors import SavedTensors, Shape
from colmrl.models.sources.source import Source, read_json, saved_dtype

HEADS = ("custom_text_proj", "embedding_proj_layer")  # colpali-engine's, transformers'
_NATIVE_TYPES = ("colqwen2", "colpali", "colmodernvbert")  # model_type of transformers' classes
_PAGE = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Describe the image.<|im_end|><|endoftext|>"
_BUFFER = 10  # tokens behind a query that carry no word: room to compute in
_QWEN = (_PAGE, "{text}" + _BUFFER * "<|endoftext|>")
# Of a document and of a query. colpali-engine has no InternVL: as a fork has it that builds on transformers' class
# (ColIntern3_5: the bare picture, the bare query).
_PROMPTS = {"qwen2_vl": _QWEN, "qwen2_5_vl": _QWEN, "qwen3_vl": _QWEN, "internvl": ("<IMG_CONTEXT>", "{text}")}


def read(folder: Path) -> Source | None:
    if (config := read_json(folder / "adapter_config.json")) is not None:
        return _adapted(folder, config)
    config = read_json(folder / "config.json") or {}
    named = any(str(name).startswith("Col") for name in config.get("architectures") or ())
    if not named and config.get("model_type") not in _NATIVE_TYPES and not _has_head(folder):
        return None
    whole = _Whole.read(folder)
    description = whole.description(str(folder.resolve()), folder)
    return Source(f"{whole.kind}, multi-vector", folder, description, whole.heads, notes=whole.notes)


def _adapted(folder: Path, config: Mapping[str, Any]) -> Source | None:
    """None where it is of a model that makes no embeddings."""
    from colmrl.models.sources import located  # which knows this module

    place, base = folder / "adapter_config.json", config.get("base_model_name_or_path")
    if not base:
        raise InputError(f"{place}: base_model_name_or_path: not given: write the folder or hub id of the base there")
    try:
        root = located(base)
        there = SavedTensors.of(root)
    except InputError as error:
        raise InputError(f"{place}: base_model_name_or_path: {base}: not found: correct it ({error})") from None
    adapter = Adapter.read(folder, config, there.shapes, HEADS)
    if not adapter.head and _head_name(there.shapes) is None:
        return None
    whole = _Whole.read(root, adapter.projection)
    description = whole.description(str(root.resolve()) if Path(base).is_dir() else base, folder)
    if adapter.modules:
        description = replace(description, model=replace(description.model, tuning="lora"), lora=adapter.lora)
    return Source(
        f"{whole.kind} adapter, multi-vector",
        folder,
        description,
        lambda: adapter.on_head(whole.heads()),
        adapter=adapter.on_backbone if adapter.modules else None,
        processor=str(folder) if _has_processor(folder) else None,
        notes=whole.notes,
    )


@dataclass(frozen=True)
class _Whole:
    """A folder with all weights of a model and its projection."""

    folder: Path
    tensors: SavedTensors
    family: str
    head: str  # what the projection is called
    projection: Shape  # (out, in)

    @classmethod
    def read(cls, folder: Path, projection: Shape | None = None) -> "_Whole":
        """`projection`: of an adapter that holds it whole."""
        config = read_json(folder / "config.json") or {}
        family = str((config.get("vlm_config") or config).get("model_type"))
        if family not in _PROMPTS:
            raise InputError(
                f"{folder / 'config.json'}: model_type: {family}: models of this kind are read on the backbones "
                f"{', '.join(_PROMPTS)} only: start from one of those"
            )
        tensors = SavedTensors.of(folder)
        head = _head_name(tensors.shapes)
        if head is not None:
            return cls(folder, tensors, family, head, tensors.shapes[f"{head}.weight"])
        if projection is not None:
            return cls(folder, tensors, family, HEADS[0], projection)
        wanted = " or ".join(f"{name}.weight" for name in HEADS)
        raise InputError(f"{folder}: {wanted}: not among its weights: train a head on it (model.backbone={folder})")

    @property
    def native(self) -> bool:
        return self.head.endswith(HEADS[1])

    @property
    def notes(self) -> tuple[str, ...]:
        counted = "visual tokens have places like words, as in that class; colpali-engine gives them rows and columns"
        return (counted,) if self.native else ()

    @property
    def kind(self) -> str:
        return "transformers' ForRetrieval" if self.native else "colpali-engine"

    def heads(self) -> dict[str, Any]:
        wanted = [f"{self.head}.{part}" for part in ("weight", "bias") if f"{self.head}.{part}" in self.tensors.shapes]
        found = self.tensors.read(wanted)
        return {f"multi.projection.{name.rpartition('.')[2]}": tensor.float() for name, tensor in found.items()}

    def description(self, backbone: str, folder: Path) -> Description:
        """With the processor of `folder`, where it has one."""
        page, query = _native_prompts(folder, self.folder) if self.native else _PROMPTS[self.family]
        model = ModelConfig(
            backbone=backbone,
            tuning="frozen",
            dtype=saved_dtype(read_json(self.folder / "config.json")),
            template="none",
            query_prompt=query,
            document_prompt=page,
            document_fields=("image",),
            # transformers' class hands its backbone no tokens but embeddings, so that it counts visual ones like words
            positions="text" if self.native else "native",
        )
        return Description(model, LoraConfig(), SingleConfig(dims=()), MultiConfig(dims=self.projection[:1], bias=True))


def _native_prompts(*folders: Path) -> tuple[str, str]:
    """Of a page and a query, as the first folder says that says something."""
    said: dict[str, Any] = {}
    for folder in reversed(folders):
        for name in ("tokenizer_config.json", "preprocessor_config.json", "processor_config.json"):
            said |= read_json(folder / name) or {}
    filler = said.get("pad_token") or "<|endoftext|>"
    filler = filler["content"] if isinstance(filler, dict) else filler
    query = (said.get("query_prefix") or "Query: ") + "{text}" + _BUFFER * filler + "\n"
    return said.get("visual_prompt_prefix") or _PAGE, query


def _has_processor(folder: Path) -> bool:
    pictures = ("processor_config.json", "preprocessor_config.json")
    return (folder / "tokenizer_config.json").is_file() and any((folder / name).is_file() for name in pictures)


def _has_head(folder: Path) -> bool:
    there = any((folder / name).is_file() for name in ("model.safetensors", "model.safetensors.index.json"))
    return there and _head_name(SavedTensors.names_in(folder)) is not None


def _head_name(there: Iterable[str]) -> str | None:
    """What the projection is called among a checkpoint's weights; some are saved under a prefix ("model.")."""
    names = [name.removesuffix(".weight") for name in there if name.endswith(".weight")]
    return next((name for name in names if name.rpartition(".")[2] in HEADS), None)
