"""LoRA that another library trained (peft's adapter_model.safetensors), in the names of our backbone.

What a module is called differs by the class that it was trained in: `model.layers.0.…` where ColQwen2 was made of the
class that writes text (the published adapters), `language_model.layers.0.…` since, `vlm.…` in transformers' own. Each
is looked for in the base, by name and shape, so that none stays untrained in silence.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colmrl.config import LoraConfig
from colmrl.errors import InputError
from colmrl.models.sources.saved_tensors import SavedTensors, Shape

_FILE = "adapter_model.safetensors"
# What changes the computation, and the values with which it does not.
_PLAIN: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": (None, "none"),
    **dict.fromkeys(("fan_in_fan_out", "use_dora", "use_rslora", "use_qalora", "lora_bias"), (None, False)),
    **dict.fromkeys(("rank_pattern", "alpha_pattern", "layer_replication"), (None, {}, [])),
    **dict.fromkeys(("target_parameters", "trainable_token_indices"), (None, {}, [])),
}
_RENAMED = (
    (r"^base_model\.model\.", ""),
    (r"^vlm\.", ""),
    (r"^model\.(?=(language_model|visual|vision_tower|multi_modal_projector)\.)", ""),
    (r"^language_model\.model\.", "language_model."),
    (r"^model\.", "language_model."),
)


@dataclass(frozen=True)
class Adapter:
    tensors: SavedTensors
    lora: LoraConfig  # with the modules as `targets`
    modules: frozenset[str]  # of our backbone
    names: Mapping[str, str]  # in the file → on our backbone
    head: Mapping[str, str]  # lora_A and lora_B, or weight and bias, of the projection → in the file

    @classmethod
    def read(
        cls, folder: Path, config: Mapping[str, Any], base: Mapping[str, Shape], heads: tuple[str, ...]
    ) -> "Adapter":
        """Of a folder with `config` in adapter_config.json, on a base that has weights of such names and shapes."""
        _check_config(folder / "adapter_config.json", config)
        tensors = SavedTensors.of(folder, _FILE)
        path = folder / _FILE
        own = {_own(name.removesuffix(".weight")): shape for name, shape in base.items() if name.endswith(".weight")}
        names, head, modules = {}, {}, set()
        for key, shape in tensors.shapes.items():
            module, part = _parts(path, key)
            if module.rpartition(".")[2] in heads:
                head[part] = key
                continue
            side = {"lora_A": 1, "lora_B": 0}.get(part)  # of the weight's shape (out, in) that it shares
            if side is None or (name := _own(module)) not in own or own[name][side] != shape[side]:
                raise InputError(
                    f"{path}: {key} {list(shape)}: the base has no linear layer of that name and size: name the base "
                    "that it was trained on (base_model_name_or_path)"
                )
            modules.add(name)
            names[key] = f"base_model.model.{name}.{part}.weight"
        targets = _targets(modules, own)
        return cls(tensors, _lora(folder, config, targets), frozenset(modules), names, head)

    @property
    def projection(self) -> Shape | None:
        """Of the projection, where all of it is here."""
        return self.tensors.shapes[self.head["weight"]] if "weight" in self.head else None

    def on_backbone(self) -> dict[str, Any]:
        return {self.names[key]: tensor for key, tensor in self.tensors.read(self.names).items()}

    def on_head(self, head: Mapping[str, Any]) -> dict[str, Any]:
        """The base's projection, with what the adapter holds of it."""
        saved = self.tensors.read(self.head.values())
        mine = {part: saved[key].float() for part, key in self.head.items()}
        found = dict(head) | {f"multi.projection.{part}": mine[part] for part in ("weight", "bias") if part in mine}
        if "lora_A" in mine:
            change = mine["lora_B"] @ mine["lora_A"] * (self.lora.alpha / self.lora.r)
            found["multi.projection.weight"] = found["multi.projection.weight"] + change
        return found


def _check_config(path: Path, config: Mapping[str, Any]) -> None:
    for name, plain in _PLAIN.items():
        if (value := config.get(name)) not in plain:
            raise InputError(
                f"{path}: {name}: {value!r}: only plain LoRA can be read: merge it with the library that made it "
                "(merge_and_unload, save_pretrained)"
            )


def _lora(folder: Path, config: Mapping[str, Any], targets: str) -> LoraConfig:
    r, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(r, int) or alpha is None or alpha != int(alpha):
        raise InputError(f"{folder / 'adapter_config.json'}: r: {r!r}, lora_alpha: {alpha!r}: whole numbers are due")
    return LoraConfig(r=r, alpha=int(alpha), dropout=config.get("lora_dropout") or 0.0, targets=targets)


def _parts(path: Path, key: str) -> tuple[str, str]:
    """A name in the file → the module, and which of its tensors: lora_A, lora_B, weight or bias."""
    name = key.replace(".modules_to_save", "").replace(".default", "")
    module, _, part = name.removesuffix(".weight").rpartition(".") if ".lora_" in name else name.rpartition(".")
    if part not in ("lora_A", "lora_B", "weight", "bias"):
        raise InputError(f"{path}: {key}: neither lora_A nor lora_B of a linear layer: merge it with its own library")
    return module, part


def _own(name: str) -> str:
    for pattern, replacement in _RENAMED:
        name = re.sub(pattern, replacement, name)
    return name


def _targets(modules: set[str], every: Mapping[str, Shape]) -> str:
    """A regular expression for just these of all modules, short where whole layers are meant."""
    escaped = sorted(map(re.escape, modules))
    short = "|".join(dict.fromkeys(re.sub(r"(?<=\.)\d+(?=\\\.)", r"\\d+", name) for name in escaped))
    return short if {name for name in every if re.fullmatch(short, name)} == modules else "|".join(escaped)
