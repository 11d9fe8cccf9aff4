"""The multi head as colpali-engine (0.3.18) loads it: ColQwen2, ColQwen2_5 and ColQwen3.

Its `custom_text_proj` has a fixed width (128; ColQwen3: 320) and a bias. Ours has no bias, which is a bias of zeros; a
narrower head is filled up with rows of zeros, which change neither norms nor products. Either the whole model, or,
with `adapter`, the pair: LoRA and, whole beside it, the projection (peft's `modules_to_save`), for the base that it was
trained on.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import pad

from colmrl.exporting.asked import CLASSES
from colmrl.exporting.chat import chat_template
from colmrl.exporting.plain import Plain, write_json
from colmrl.models.weights import read_tensors


def write_colpali(out: Path, plain: Plain, adapter: Path | None) -> None:
    """`adapter`: the checkpoint's adapter folder, to write the pair."""
    assert plain.multi is not None
    name, _, width = CLASSES[plain.family]
    template = chat_template(plain.processor, plain.description)
    projection = {
        "custom_text_proj.weight": pad(plain.multi, (0, 0, 0, width - len(plain.multi))),
        "custom_text_proj.bias": torch.zeros(width),
    }
    if adapter is None:
        plain.save_as(out, name, "", projection)
    else:
        _write_pair(out, adapter, projection, plain.description.model.backbone)
    plain.save_processor(out)
    (out / "chat_template.jinja").write_text(template, encoding="utf-8")


def _write_pair(out: Path, adapter: Path, projection: dict[str, Tensor], base: str) -> None:
    settings = json.loads((adapter / "adapter_config.json").read_bytes())
    settings |= {"base_model_name_or_path": base, "modules_to_save": ["custom_text_proj"], "task_type": None}
    write_json(out / "adapter_config.json", settings)
    weights = read_tensors(adapter / "adapter_model.safetensors")
    weights |= {f"base_model.model.{name}": tensor for name, tensor in projection.items()}
    save_file(weights, out / "adapter_model.safetensors", {"format": "pt"})
