"""A folder with `modules.json`: sentence-transformers (dense, MultiVectorEncoder) and PyLate.

Transformer → Pooling → Dense* → Normalize is a single head, Transformer → Dense* on tokens → MultiVectorMask →
Normalize a multi head; a folder may have both. After sentence_transformers 6.2 and pylate 1.6.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from colmrl.config import DenseConfig, LoraConfig, ModelConfig, MultiConfig, SingleConfig
from colmrl.errors import InputError
from colmrl.models.description import Description
from colmrl.models.sources.late_interaction import is_pylate, late_settings
from colmrl.models.sources.nested import nested_dims
from colmrl.models.sources.source import Source, hidden_size, read_json, read_tensors, saved_dtype, token_limit

_LIBRARIES = {"sentence_transformers": "sentence-transformers", "pylate": "PyLate"}
_READ = ("Transformer", "Pooling", "Dense", "Normalize", "MultiVectorMask", "Dropout")
# Of the mean and of the sum over √length only the length differs, which Normalize takes away.
_POOLING: dict[str, Literal["mean", "last", "cls"]] = {
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean",
    "cls": "cls",
    "lasttoken": "last",
}
_OLD_POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_TOKENS, _SENTENCE = "token_embeddings", "sentence_embedding"
_ACTIVATIONS = {
    "Identity": "none",
    "Tanh": "tanh",
    "GELU": "gelu",
    "ReLU": "relu",
    "SiLU": "silu",
    "Sigmoid": "sigmoid",
}


@dataclass(frozen=True)
class Module:
    """A line of modules.json with its config; `on` is the feature that it changes."""

    name: str
    path: Path
    config: Mapping[str, Any]
    on: str


@dataclass(frozen=True)
class Layers:
    """A head's dense layers, in its section's words, and the folders of their weights by their names in ours."""

    dense: tuple[DenseConfig, ...]
    width: int
    projected: bool
    bias: bool
    folders: dict[str, Path]


def read(folder: Path) -> Source | None:
    listed = read_json(folder / "modules.json")
    if listed is None:
        return None
    stated = read_json(folder / "config_sentence_transformers.json") or {}
    late = is_pylate(stated) or stated.get("model_type") == "MultiVectorEncoder"
    modules = _modules(folder, listed, late)
    base = modules[0].path
    width = hidden_size(read_json(base / "config.json") or {})
    if width is None:
        raise InputError(f"{base}: no config.json that says a hidden_size: give a folder with the whole model")
    single, multi, folders = SingleConfig(dims=()), MultiConfig(dims=()), {}
    of_tokens = [module for module in modules[1:] if module.on == _TOKENS]
    if any(module.name == "Pooling" for module in modules):
        of_sentences = [module for module in modules[1:] if module.on == _SENTENCE]
        single, more = _single(folder, modules, of_sentences, width, stated)
        folders |= more
    if not single.dims or any(module.name == "Dense" for module in of_tokens):
        multi, more = _multi(folder, of_tokens, width, is_pylate(stated) or bool(single.dims))
        folders |= more
    model = _model(base, modules[0].config, stated)
    if multi.dims:
        masks = [module.config for module in modules if module.name == "MultiVectorMask"]
        model = late_settings(model, modules[0].config, stated, masks)
    library = "PyLate" if is_pylate(stated) else "sentence-transformers"
    heads = " and ".join(name for name, head in (("dense", single), ("multi-vector", multi)) if head.dims)
    return Source(
        kind=f"{library}, {heads}",
        folder=folder,
        description=Description(model, LoraConfig(), single, multi),
        heads=lambda: _weights(folders),
        processor=str(base.resolve()),
    )


def _modules(folder: Path, listed: Sequence[Mapping[str, Any]], late: bool) -> list[Module]:
    modules = []
    for line in listed:
        library, name = line["type"].partition(".")[0], line["type"].rpartition(".")[2]
        if library not in _LIBRARIES:
            raise InputError(
                f"{folder}: modules.json: {line['type']}: the model asks to run Python of its own (trust_remote_code), "
                "which is never done: take a model of the library's own modules"
            )
        if name not in _READ:
            raise InputError(f"{folder}: modules.json: {line['type']}: cannot be read: {', '.join(_READ)} can")
        path = folder / line["path"]
        file = "sentence_bert_config.json" if name == "Transformer" else "config.json"
        config = read_json(path / file) or {}
        on = config.get("module_input_name")
        if on is None:
            on = _TOKENS if name == "MultiVectorMask" or (late and name == "Dense") else _SENTENCE
        if config.get("module_output_name") not in (None, on, _TOKENS if name == "Transformer" else on):
            raise InputError(
                f"{path}: module_output_name: {config['module_output_name']}: has to be what it reads, {on}"
            )
        if name != "Dropout":
            modules.append(Module(name, path, config, on))
    if not modules or modules[0].name != "Transformer":
        raise InputError(f"{folder}: modules.json: does not begin with a Transformer: such a model cannot be read")
    return modules


def _model(base: Path, config: Mapping[str, Any], stated: Mapping[str, Any]) -> ModelConfig:
    """A prompt stands before the text; where there is a chat template ("message"), in a system turn before it."""
    limit = min(token_limit(base), config.get("max_seq_length") or token_limit(base))
    of_backbone = read_json(base / "config.json") or {}
    prompts = {kind: (stated.get("prompts") or {}).get(kind) or "" for kind in ("query", "document")}
    model = ModelConfig(
        backbone=str(base.resolve()),
        tuning="frozen",
        dtype=saved_dtype(of_backbone),
        lower_case=bool(config.get("do_lower_case")),
        query_prompt=prompts["query"] + "{text}",
        document_prompt=prompts["document"] + "{text}",
        max_query_tokens=limit,
        max_document_tokens=limit,
    )
    sees = "vision_config" in of_backbone
    if "message" not in (config.get("modality_config") or {}):
        if sees:
            raise InputError(f"{base}: sees pictures, but without a chat template (modality_config): cannot be read")
        return model
    if not sees:
        raise InputError(
            f"{base}: puts texts into a chat template (modality_config: message), which is only done for models that "
            "see: save it with modality_config for text only"
        )
    given = (config.get("processing_kwargs") or {}).get("chat_template") or {}
    if unknown := set(given) - {"add_generation_prompt"}:
        raise InputError(f"{base}: processing_kwargs: chat_template: {', '.join(sorted(unknown))}: cannot be done")
    return replace(
        model,
        query_prompt="{text}",
        document_prompt="{text}",
        query_instruction=prompts["query"] or None,
        document_instruction=prompts["document"] or None,
        generation_prompt=bool(given.get("add_generation_prompt")),
    )


def _single(
    folder: Path, modules: Sequence[Module], of_sentences: Sequence[Module], width: int, stated: Mapping[str, Any]
) -> tuple[SingleConfig, dict[str, Path]]:
    (pooling,) = [module for module in modules if module.name == "Pooling"]
    normalised = any(module.name == "Normalize" for module in of_sentences)
    similarity = stated.get("similarity_fn_name") or "cosine"
    if not normalised and similarity != "cosine":
        raise InputError(
            f"{folder}: its vectors are not normalised and compared by {similarity}: ours are all of length 1: take a "
            "model that is compared by cosine"
        )
    mode, prompts = _pooling_mode(pooling), stated.get("prompts") or {}
    if not pooling.config.get("include_prompt", True) and any(prompts.values()):
        raise InputError(f"{pooling.path}: include_prompt: false: pooling without the prompt cannot be done")
    layers = _layers("single", of_sentences, width)
    dims = nested_dims(folder, layers.width, stated)
    projection = layers.width if layers.projected else None
    return SingleConfig(dims, mode, layers.dense, projection, layers.bias), layers.folders


def _pooling_mode(pooling: Module) -> Literal["mean", "last", "cls"]:
    stated = pooling.config.get("pooling_mode") or [
        mode for flag, mode in _OLD_POOLING.items() if pooling.config.get(flag)
    ]
    modes = [stated] if isinstance(stated, str) else list(stated)
    if len(modes) != 1 or modes[0] not in _POOLING:
        raise InputError(
            f"{pooling.path}: pooling: {', '.join(modes)}: cannot be done: one of {', '.join(_POOLING)} can"
        )
    return _POOLING[modes[0]]


def _multi(
    folder: Path, of_tokens: Sequence[Module], width: int, normalised: bool
) -> tuple[MultiConfig, dict[str, Path]]:
    if not normalised and not any(module.name == "Normalize" for module in of_tokens):
        raise InputError(f"{folder}: its tokens' vectors are not normalised, ours are all of length 1: add a Normalize")
    layers = _layers("multi", of_tokens, width)
    return MultiConfig(
        dims=(layers.width,), dense=layers.dense, projection=layers.projected, bias=layers.bias
    ), layers.folders


def _layers(head: str, modules: Sequence[Module], width: int) -> Layers:
    """The last layer is the head's projection where nothing follows on its linear map."""
    dense, folders = [module for module in modules if module.name == "Dense"], {}
    configs = [_dense(module) for module in dense]
    plain = DenseConfig(configs[-1].width, configs[-1].bias) if configs else None
    projected = bool(configs) and configs[-1] == plain
    for number, module in enumerate(dense):
        last = projected and number == len(dense) - 1
        folders[f"{head}.projection" if last else f"{head}.dense.{number}"] = module.path
    bias = projected and configs[-1].bias
    before = configs[:-1] if projected else configs
    return Layers(tuple(before), configs[-1].width if configs else width, projected, bias, folders)


def _dense(module: Module) -> DenseConfig:
    config = module.config
    library, _, name = str(config.get("activation_function", "torch.nn.modules.activation.Tanh")).rpartition(".")
    if not library.startswith("torch.nn") or name not in _ACTIVATIONS:
        raise InputError(f"{module.path}: activation_function: {name}: cannot be read: {', '.join(_ACTIVATIONS)} can")
    residual = bool(config.get("use_residual"))
    return DenseConfig(config["out_features"], config.get("bias", True), _ACTIVATIONS[name], residual)  # pyright: ignore


def _weights(folders: Mapping[str, Path]) -> dict[str, Any]:
    tensors = {}
    for name, folder in folders.items():
        for part, tensor in read_tensors(folder).items():
            tensors[f"{name}.{part.removeprefix('linear.') if name.endswith('projection') else part}"] = tensor.float()
    return tensors
