"""A retriever's checkpoint in another library's layout, in a new folder that appears whole."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from colmrl.errors import InputError
from colmrl.exporting import usage
from colmrl.exporting.card import write_card
from colmrl.exporting.colpali import write_colpali
from colmrl.exporting.onnx import write_onnx
from colmrl.exporting.plain import Plain, load_plain, write_json
from colmrl.exporting.pylate import write_pylate
from colmrl.exporting.sentence_transformers import write_sentence_transformers
from colmrl.exporting.transformers import write_transformers
from colmrl.exporting.vllm import head_of, write_vllm
from colmrl.files import new_folder
from colmrl.models.retriever import fingerprint, read_description

log = logging.getLogger(__name__)

Format = Literal["sentence-transformers", "pylate", "colpali-engine", "vllm", "transformers", "onnx"]
Head = Literal["single", "multi"]
_KEEPS_ADAPTERS = ("transformers", "colpali-engine")


@dataclass(frozen=True)
class Asked:
    """What is to be written."""

    to: Format
    head: Head | None = None  # of the two, where a layout has room for one
    adapter: bool = False  # LoRA as it is, not merged
    license: str | None = None


def asked_for(to: str, head: str | None, adapter: bool, license: str | None) -> Asked:
    """The same, from words that may be wrong."""
    if to not in get_args(Format):
        raise InputError(f"--to {to}: unknown: choose from {', '.join(get_args(Format))}")
    if head is not None and head not in get_args(Head):
        raise InputError(f"--head {head}: unknown: choose from {', '.join(get_args(Head))}")
    return Asked(cast(Format, to), cast(Head | None, head), adapter, license)


def export(checkpoint: str | Path, asked: Asked, out: str | Path) -> Path:
    """Write the new folder `out`, or find it there as the same command left it."""
    checkpoint, out = Path(checkpoint), Path(out)
    _check(checkpoint, asked)
    made = {"checkpoint": fingerprint(checkpoint), **asdict(asked)}
    there = out / "export.json"
    if there.is_file() and json.loads(there.read_text()) == made:
        log.info("%s: is there already", out)
        return out
    return _write(out, checkpoint, asked, made)


def _check(checkpoint: Path, asked: Asked) -> None:
    description = read_description(checkpoint)
    if asked.head is not None and asked.to != "vllm":
        raise InputError(f"--head: {asked.to} takes {_heads(asked.to)}: leave it out")
    if asked.adapter and asked.to not in _KEEPS_ADAPTERS:
        raise InputError(f"--adapter: {asked.to} takes merged weights: leave it out, or use --to transformers")
    if asked.adapter and not (checkpoint / "adapter").is_dir():
        raise InputError(f"--adapter: {checkpoint}: has no LoRA (model.tuning: {description.model.tuning})")


def _heads(to: Format) -> str:
    match to:
        case "sentence-transformers" | "transformers":
            return "both heads"
        case "onnx":
            return "the single head"
        case _:
            return "the multi head"


@new_folder
def _write(out: Path, checkpoint: Path, asked: Asked, made: Mapping[str, object]) -> None:
    plain = load_plain(checkpoint)
    blocks = _layout(out, checkpoint, plain, asked)
    write_card(out, checkpoint, plain, asked.to, blocks, asked.license)
    write_json(out / "export.json", made)


def _layout(out: Path, checkpoint: Path, plain: Plain, asked: Asked) -> dict[str, Sequence[str]]:
    """Write the folder's model; returns the code that uses it, by language."""
    adapter = checkpoint / "adapter" if asked.adapter else None
    match asked.to:
        case "sentence-transformers":
            write_sentence_transformers(out, plain)
            return {"python": usage.sentence_transformers(plain)}
        case "pylate":
            write_pylate(out, plain)
            return {"python": usage.pylate(plain)}
        case "colpali-engine":
            write_colpali(out, plain, adapter)
            return {"python": usage.colpali(plain, asked.adapter)}
        case "vllm":
            head = head_of(plain, asked.head)
            write_vllm(out, plain, head)
            return {"bash": usage.vllm(plain, head)}
        case "transformers":
            write_transformers(out, plain, adapter)
            return {"python": usage.transformers(plain)}
        case "onnx":
            write_onnx(out, plain)
            return {"python": usage.onnx(plain)}
