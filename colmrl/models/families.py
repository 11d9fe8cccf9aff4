"""Of which family a model is, from what stands in its folder or at its hub id."""

import json
from pathlib import Path
from typing import Any

from transformers import AutoConfig
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES  # pyright: ignore[reportPrivateImportUsage]

from colmrl.errors import InputError
from colmrl.models.sources.source import refuse_remote_code
from colmrl.models.weights import files_said


def _read_config(source: str) -> Any:
    if not source:
        raise InputError("model.backbone: not given: name a folder with a model, or a hub id such as Qwen/Qwen3-0.6B")
    with files_said(f"model.backbone: {source!r}", "give a folder or hub id", source):
        try:
            return AutoConfig.from_pretrained(source, trust_remote_code=False)
        except (OSError, ValueError):
            refuse_remote_code(Path(source))  # the likely reason, where the folder asks for it
            raise


def sees_pictures(family: str) -> bool:
    """Whether transformers has a processor for it, and not a tokenizer alone."""
    return family in PROCESSOR_MAPPING_NAMES


def how_to_read(source: str) -> dict[str, Any]:
    """For from_pretrained: of the backbone under `vlm` in a model with a projection (ColQwen2ForRetrieval)."""
    config = getattr(_read_config(source), "vlm_config", None)
    if config is None:
        return {}
    return {"config": config, "key_mapping": {r"^vlm\.(model\.(?=language_model|visual))?": ""}}


def family_of(source: str) -> str:
    """transformers' name of what is in a folder or hub id; InputError where it cannot be known. An adapter is of its
    base's, a model made of a backbone and a projection (`vlm_config`) of the backbone's.
    """
    adapter = Path(source) / "adapter_config.json"
    if adapter.is_file() and not (Path(source) / "config.json").is_file():
        source = json.loads(adapter.read_bytes())["base_model_name_or_path"]
    config = _read_config(source)
    return getattr(config, "vlm_config", config).model_type
