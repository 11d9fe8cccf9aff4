"""What a folder or hub id is, read without loading it: our checkpoints, other libraries' models, bare backbones."""

from pathlib import Path
from typing import Any

from colmrl.config import DenseConfig, LoraConfig, ModelConfig, MultiConfig, SingleConfig
from colmrl.errors import InputError
from colmrl.models.description import Description, as_json, is_own, read_own
from colmrl.models.safetensors_files import sizes, weight_files_in
from colmrl.models.sources import find_source, located
from colmrl.models.sources.bare import is_bare
from colmrl.models.sources.source import Source, hidden_size, read_json, refuse_remote_code

Facts = dict[str, str | int | list[str] | dict[str, Any] | None]


def inspect(name: str | Path) -> Facts:
    """Facts in the order that they are shown in, in words; null where there is nothing to say; `settings`: the same as
    a configuration has them. Raises InputError where it is nothing that we know."""
    folder = located(name)
    for half in (folder, folder / "documents"):
        if (half / "manifest.json").is_file():
            raise InputError(f"{name}: a store of embeddings, no model: colmrl store show {name}")
    if (folder / "reranker.json").is_file():
        return _reranker(folder)
    if is_own(folder):
        return _retriever("colmrl checkpoint", folder, read_own(folder), None)
    if not (folder / "modules.json").is_file() and not (folder / "adapter_config.json").is_file() and is_bare(folder):
        try:
            source = find_source(folder)
        except InputError as error:
            if "a bare backbone" not in str(error):
                raise
            return _bare(folder)
        return _retriever(source.kind, folder, source.description, source)
    source = find_source(folder)
    return _retriever(source.kind, folder, source.description, source)


def _retriever(kind: str, folder: Path, description: Description, source: Source | None) -> Facts:
    model, single, multi = description.model, description.single, description.multi
    own_weights = source is None and model.tuning == "full"
    base = folder / "backbone" if own_weights else Path(model.backbone)
    parts = {"full": "trained whole, weights here", "lora": _lora(description.lora), "frozen": "as it came, heads only"}
    return {
        "what": kind,
        "backbone": model.backbone,
        **_weights(base),
        "heads": _parameters([folder / "heads.safetensors"] if source is None else _head_files(folder, base)),
        "single": _single(single),
        "multi": _multi(multi),
        "query": _record(model, "query"),
        "document": _record(model, "document"),
        "tokens": f"queries {model.max_query_tokens:,}, documents {model.max_document_tokens:,}",
        "pixels": f"{model.max_pixels:,} a picture" if model.max_pixels else None,
        "resized by": "Pillow" if model.resize == "pil" else None,
        "query expansion": _expansion(model),
        "without vectors": _skipped(model),
        "attention": model.attention,
        "tuning": parts[model.tuning] if source is None else ("adapter" if source.adapter else "none yet"),
        "loaded in": model.dtype + (f", {model.quantization}" if model.quantization else ""),
        "licence": licence_of(folder) or licence_of(base),
        "notes": list(source.notes) if source and source.notes else None,
        "settings": as_json(description),
    }


def _reranker(folder: Path) -> Facts:
    stated = read_json(folder / "reranker.json")
    model, rerank = stated["model"], stated["rerank"]
    base = folder / "backbone" if model["tuning"] == "full" else Path(model["backbone"])
    return {
        "what": f"colmrl reranker, {stated.get('task', '')}".rstrip(", "),
        "backbone": model["backbone"],
        **_weights(base),
        "instruction": rerank["instruction"],
        "tokens": f"queries {model['max_query_tokens']:,}, documents {model['max_document_tokens']:,}",
        "attention": model["attention"],
        "tuning": model["tuning"],
        "loaded in": model["dtype"],
        "licence": licence_of(folder) or licence_of(base),
        "settings": stated,
    }


def _bare(folder: Path) -> Facts:
    return {
        "what": f"a bare backbone, no head yet: train one from it with model.backbone={folder}",
        "backbone": str(folder),
        **_weights(folder),
        "tokens": None,
        "licence": licence_of(folder),
    }


def _weights(base: Path) -> Facts:
    """Of the folder that holds the base weights; of a hub id nothing is known before it is downloaded."""
    config = read_json(base / "config.json") if base.is_dir() else None
    if config is None:
        return {"family": None, "parameters": None}
    refuse_remote_code(base)
    config = config.get("vlm_config") or config  # a backbone inside a model with a projection
    files = weight_files_in(base)
    missing = [path.name for path in files if not path.is_file()]
    said = f"{config.get('model_type')}, {hidden_size(config)} wide"
    if missing or not files:
        pickles = sorted(path.name for path in base.glob("*.bin"))
        lacks = f"no {', '.join(missing) or 'safetensors'}" + (
            f" ({pickles[0]}, a pickle, is not loaded)" if pickles else ""
        )
        return {"family": said, "parameters": f"not known: {lacks}"}
    count, dtypes = sizes(files)
    return {"family": said, "parameters": f"{count:,} in {', '.join(dtypes)}"}


def _head_files(folder: Path, base: Path) -> list[Path]:
    """Of another library's folder: of its modules, not of the backbone."""
    whole = {*weight_files_in(base)} if base.is_dir() else set()
    there = sorted(path.resolve() for path in folder.glob("*/model.safetensors"))
    return [path for path in there if path not in whole]


def _parameters(files: list[Path]) -> str | None:
    count, _ = sizes(path for path in files if path.is_file())
    return f"{count:,} parameters" if count else None


def _single(single: SingleConfig) -> str | None:
    if not single.dims:
        return None
    projection = _projection(single.dense, single.projection, single.bias)
    return f"dims {_dims(single.dims)}; pooling {single.pooling}; {projection}"


def _multi(multi: MultiConfig) -> str | None:
    if not multi.dims:
        return None
    projection = _projection(multi.dense, multi.dims[0] if multi.projection else None, multi.bias)
    budgets = f"; budgets {_dims(multi.budgets)}" if multi.budgets else ""
    return f"dims {_dims(multi.dims)}{budgets}; {projection}"


def _projection(dense: tuple[DenseConfig, ...], width: int | None, bias: bool) -> str:
    layers = [
        f"{layer.width} {layer.activation}{', bias' if layer.bias else ''}{', residual' if layer.residual else ''}"
        for layer in dense
    ]
    layers += [f"projected to {width}{' with bias' if bias else ''}"] if width else []
    return " → ".join(layers) or "no projection"


def _dims(dims: tuple[int, ...]) -> str:
    return ", ".join(map(str, dims))


def _record(model: ModelConfig, kind: str) -> str:
    prompt, instruction = getattr(model, f"{kind}_prompt"), getattr(model, f"{kind}_instruction")
    said = repr(prompt) + (f" after the instruction {instruction!r}" if instruction else "")
    if model.template == "none":
        said += ", no chat template"
    return said + (", an opened answer at the end" if model.generation_prompt else "")


def _expansion(model: ModelConfig) -> str | None:
    expansion = model.query_expansion
    if expansion is None:
        return None
    seen = "attended" if expansion.attend else "not attended"
    return f"to {expansion.length} tokens by {expansion.token or 'the mask token'}, {seen}"


def _skipped(model: ModelConfig) -> str | None:
    said = ["all of a document but its pictures' tokens"] if model.document_vectors == "image" else []
    for kind, words in (("documents", model.document_skiplist), ("queries", model.query_skiplist)):
        said += [f"{kind}: {' '.join(words)}"] if words else []
    return "; ".join(said) or None


def _lora(lora: LoraConfig) -> str:
    return f"LoRA, rank {lora.r}, alpha {lora.alpha}"


def licence_of(folder: Path) -> str | None:
    """As the model card's head says, or the first line of a licence's text."""
    card = folder / "README.md"
    if card.is_file():
        lines = card.read_text(encoding="utf-8", errors="replace").splitlines()
        if lines[:1] == ["---"]:
            for line in lines[1 : lines.index("---", 1) if "---" in lines[1:] else len(lines)]:
                if line.startswith("license:"):
                    return line.partition(":")[2].strip().strip("\"'")
    for path in sorted(folder.glob("LICENSE*")):
        return next(
            (line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()),
            None,
        )
    return None
