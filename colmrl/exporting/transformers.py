"""A folder for code with transformers alone: the backbone, LoRA merged into it or as an adapter beside the name of its
base, processor, and heads.safetensors: `single` (absent where pooled states are the vector as they are) and `multi`,
each a matrix of dims × hidden units. The folder's README.md has the dozen lines that make vectors of it.
"""

import json
import shutil
from pathlib import Path

from safetensors.torch import save_file

from colmrl.exporting.chat import chat_template
from colmrl.exporting.plain import Plain, write_json


def write_transformers(out: Path, plain: Plain, adapter: Path | None) -> None:
    """`adapter`: the checkpoint's adapter folder, to keep it."""
    if adapter is None:
        plain.save_model(out)
    else:
        settings = json.loads((adapter / "adapter_config.json").read_bytes())
        settings["base_model_name_or_path"] = plain.description.model.backbone
        write_json(out / "adapter_config.json", settings)
        shutil.copy(adapter / "adapter_model.safetensors", out)
    heads = {"single": plain.single, "multi": plain.multi}
    save_file({name: head.contiguous() for name, head in heads.items() if head is not None}, out / "heads.safetensors")
    plain.save_processor(out)
    if plain.sees_pictures:
        (out / "chat_template.jinja").write_text(chat_template(plain.processor, plain.description), encoding="utf-8")
