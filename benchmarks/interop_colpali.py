"""What colpali-engine and transformers save of ColPali's kind, read by colmrl: do its vectors equal theirs?

Small random checkpoints of the real classes (interop_colpali_peer.py in colpali-engine's environment; transformers' in
this one) and what they make of two pages and two queries, against `Retriever.load` of the same folders. The error is
the largest of any number in any vector; other tokens than theirs are no match at all.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peers
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, ColQwen2Config, ColQwen2ForRetrieval, ColQwen2Processor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from colmrl.data.records import Document, Query
from colmrl.models.retriever import Retriever
from colmrl.models.tiny import write_tiny_model

Vectors = dict[str, Tensor]  # page-0, page-0-ids, …: what a tool makes of each page and query, and of which tokens
CLASSES = {"ColQwen2": "qwen2_vl", "ColQwen2_5": "qwen2_5_vl", "ColQwen3": "qwen3_vl"}
QUERIES = ("a blue star", "the page with a red circle and a square, second edition")
NATIVE = "transformers ColQwen2ForRetrieval"


def rows(work: Path) -> Iterator[dict[str, Any]]:
    write_records(work)
    version = peers.PEERS["colpali-engine"].bare[0].partition("==")[2]
    try:
        write_colpali_engine(work, [*CLASSES])
    except peers.Unavailable as error:
        yield _row("all", "colpali-engine", version, None, str(error))
    else:
        for name in CLASSES:
            for form in ("base", "adapter", "merged", "adapter, published names"):
                folder = work / name / form
                if form == "adapter, published names":
                    if name == "ColQwen3":  # which has none
                        continue
                    folder = old_names(work / name)
                yield _row(f"{name}, {form}", "colpali-engine", version, folder)
    yield _row("ColQwen2ForRetrieval", "transformers", transformers.__version__, write_native(work))


def _row(case: str, tool: str, version: str, folder: Path | None, note: str = "") -> dict[str, Any]:
    said = {"direction": "source", "case": case, "tool": tool, "version": version, "note": note}
    if folder is None:
        return {**said, "loads": False, "parity_error": None}
    theirs = load_file(folder.with_suffix(".safetensors"))
    return {**said, "loads": True, "parity_error": error(ours(folder, folder_of_records(folder)), theirs)}


def folder_of_records(folder: Path) -> Path:
    return next(parent for parent in folder.parents if (parent / "queries.json").exists())


def write_records(work: Path) -> None:
    """Two pages of whole patches, which no tool resizes, and two queries of different length."""
    generator = torch.Generator().manual_seed(0)
    for place, (rows, columns) in enumerate(((8, 8), (6, 4))):
        cells = torch.randint(0, 256, (rows, columns, 3), generator=generator, dtype=torch.uint8)
        pixels = cells.repeat_interleave(8, 0).repeat_interleave(8, 1)
        Image.fromarray(pixels.numpy()).save(work / f"page-{place}.png")
    (work / "queries.json").write_text(json.dumps(QUERIES))


def write_colpali_engine(work: Path, classes: list[str]) -> None:
    """WORK/CLASS/{base,adapter,merged} and their vectors. Raises peers.Unavailable where it cannot be installed."""
    program = peers.python("colpali-engine")
    tiny = [f"{name}={_tiny(work, CLASSES[name])}" for name in classes]
    script = Path(__file__).with_name("interop_colpali_peer.py")
    done = subprocess.run([program, script, work, *tiny], cwd=work, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{script.name}: {done.stderr[-2000:]}")


def _tiny(work: Path, family: str) -> Path:
    folder = work / "tiny" / family
    return folder if folder.exists() else write_tiny_model(family, folder)


def old_names(made: Path) -> Path:
    """The adapter with its base as published ones are named: vidore/colqwen2-v1.0, vidore/colqwen2.5-v0.2."""
    out = made / "published" / "adapter"
    base = _renamed(made / "base", made / "published" / "base", "model.safetensors", r"^language_model\.", "model.")
    prefix = "base_model.model."
    _renamed(made / "adapter", out, "adapter_model.safetensors", rf"^{prefix}language_model\.", f"{prefix}model.")
    config = json.loads((out / "adapter_config.json").read_text())
    (out / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": str(base)}))
    return out


def _renamed(folder: Path, out: Path, file: str, pattern: str, replacement: str) -> Path:
    shutil.copytree(folder, out)
    shutil.copy(folder.with_suffix(".safetensors"), out.with_suffix(".safetensors"))
    tensors = load_file(folder / file)
    renamed = {re.sub(pattern, replacement, name): tensor for name, tensor in tensors.items()}
    assert renamed.keys() != tensors.keys()
    save_file(renamed, out / file, {"format": "pt"})
    return out


@torch.no_grad()
def write_native(work: Path) -> Path:
    """WORK/native, a ColQwen2ForRetrieval, and its vectors."""
    folder, tiny = work / "native", _tiny(work, "qwen2_vl")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = ColQwen2ForRetrieval(ColQwen2Config(vlm_config=AutoConfig.from_pretrained(tiny))).eval()
        torch.nn.init.normal_(model.embedding_proj_layer.bias, std=0.5)
    images, tokenizer = Qwen2VLImageProcessorPil.from_pretrained(tiny), AutoTokenizer.from_pretrained(tiny)
    processor = ColQwen2Processor(images, tokenizer)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    pages = [Image.open(page) for page in sorted(work.glob("page-*.png"))]
    found: Vectors = {}
    for name, batch in (("page", processor(images=pages)), ("query", processor(text=list(QUERIES)))):
        embedded = model(**batch).embeddings
        for place, mask in enumerate(batch["attention_mask"].bool()):
            found[f"{name}-{place}"] = embedded[place][mask]
            found[f"{name}-{place}-ids"] = batch["input_ids"][place][mask]
    save_file({name: tensor.contiguous() for name, tensor in found.items()}, folder.with_suffix(".safetensors"))
    return folder


@torch.no_grad()
def ours(folder: Path, work: Path) -> Vectors:
    """What `Retriever.load` of the folder makes of the same pages and queries."""
    model = Retriever.load(folder).eval()
    pages = [Document(id=page.name, images=(str(page),)) for page in sorted(work.glob("page-*.png"))]
    queries = [Query(id=text, text=text) for text in json.loads((work / "queries.json").read_text())]
    found: Vectors = {}
    for name, batch in (("page", model.inputs.documents(pages)), ("query", model.inputs.queries(queries))):
        multi = model(batch).multi
        assert multi is not None
        for place, mask in enumerate(batch["attention_mask"].bool()):
            found[f"{name}-{place}"] = multi.vectors[multi.offsets[place] : multi.offsets[place + 1]]
            found[f"{name}-{place}-ids"] = batch["input_ids"][place][mask]
    return found


def error(one: Vectors, other: Vectors) -> float:
    """The largest difference of any number; infinite where tokens differ."""
    worst = 0.0
    for name in [name for name in other if not name.endswith("-ids")]:
        if one[f"{name}-ids"].tolist() != other[f"{name}-ids"].tolist():
            return float("inf")
        worst = max(worst, (one[name] - other[name]).abs().max().item())
    return worst
