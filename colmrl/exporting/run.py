"""A retriever's checkpoint in another library's layout, in a new folder that appears whole."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from colmrl.exporting import usage
from colmrl.exporting.asked import Asked, check, check_layout, head_of
from colmrl.exporting.card import write_card
from colmrl.exporting.colpali import write_colpali
from colmrl.exporting.onnx import write_onnx
from colmrl.exporting.plain import Plain, load_plain, write_json
from colmrl.exporting.pylate import write_pylate
from colmrl.exporting.sentence_transformers import write_sentence_transformers
from colmrl.exporting.transformers import write_transformers
from colmrl.exporting.vllm import write_vllm
from colmrl.files import new_folder
from colmrl.models.retriever import fingerprint

log = logging.getLogger(__name__)


def export(checkpoint: str | Path, asked: Asked, out: str | Path) -> Path:
    """Write the new folder `out`, or find it there as the same command left it."""
    checkpoint, out = Path(checkpoint), Path(out)
    check(checkpoint, asked)
    made = {"checkpoint": fingerprint(checkpoint), **asdict(asked)}
    there = out / "export.json"
    if there.is_file() and json.loads(there.read_bytes()) == made:
        log.info("%s: is there already", out)
        return out
    return _write(out, checkpoint, asked, made)


@new_folder
def _write(out: Path, checkpoint: Path, asked: Asked, made: Mapping[str, object]) -> None:
    plain = load_plain(checkpoint)
    if plain.sees_pictures and plain.description.model.resize == "pil":
        log.warning(
            "%s: resizes pictures by Pillow; with torchvision the library's vectors differ a little", checkpoint
        )
    blocks = _layout(out, checkpoint, plain, asked)
    write_card(out, checkpoint, plain, asked.to, blocks, asked.license)
    write_json(out / "export.json", made)


def _layout(out: Path, checkpoint: Path, plain: Plain, asked: Asked) -> dict[str, Sequence[str]]:
    """Write the folder's model; returns the code that uses it, by language."""
    check_layout(asked, plain)
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
            head = head_of(plain.description, asked.head)
            write_vllm(out, plain, head)
            return {"bash": usage.vllm(plain, head)}
        case "transformers":
            write_transformers(out, plain, adapter)
            return {"python": usage.transformers(plain)}
        case "onnx":
            write_onnx(out, plain)
            return {"python": usage.onnx(plain)}
