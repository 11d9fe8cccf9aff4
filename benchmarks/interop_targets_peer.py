"""Run in another library's own environment: an exported folder opened by the code of its own model card.

    python interop_targets_peer.py TOOL FOLDER ASKED.json OUT.safetensors

ASKED: {"queries": [text], "documents": [{"text": …, "images": [path]}]}. OUT: vectors query-0 …, document-0 …
"""

import importlib
import json
import os
import re
import sys
from importlib import metadata
from pathlib import Path

import torch
from safetensors.torch import save_file

TOOLS = {"pylate": "pylate", "colpali-engine": "colpali-engine"}


def main(tool: str, folder: str, asked: str, out: str) -> None:
    torch.set_num_threads(1)
    wanted, out = json.loads(Path(asked).read_text()), str(Path(out).resolve())
    os.chdir(folder)
    prepare = {"pylate": pylate, "colpali-engine": colpali}[tool]
    embed = prepare()
    found = {f"query-{i}": embed("query", {"text": text}) for i, text in enumerate(wanted["queries"])}
    found |= {f"document-{i}": embed("document", document) for i, document in enumerate(wanted["documents"])}
    save_file({name: torch.as_tensor(rows).float().contiguous() for name, rows in found.items()}, out)
    print(metadata.version(TOOLS[tool]))


def card() -> dict:
    """The names that the card's code makes."""
    names: dict = {}
    for block in re.findall(r"^```python\n(.*?)^```$", Path("README.md").read_text(), re.DOTALL | re.MULTILINE):
        exec(block, names)
    return names


def pylate():
    model = card()["model"]
    return lambda role, record: model.encode([record["text"]], is_query=role == "query", prompt_name=role)[0]


def colpali():
    operators = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):  # torchvision describes them as it is imported; its CUDA build cannot define them here
        operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from PIL import Image
    from transformers import AutoTokenizer, Qwen2VLVideoProcessor
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    models = importlib.import_module("colpali_engine.models")
    for kind in (models.ColQwen2Processor, models.ColQwen2_5_Processor, models.ColQwen3Processor):

        def opened(folder, kind=kind):
            """Tiny models have no video settings, and pictures are prepared by the PIL backend, as ours are."""
            images = Qwen2VLImageProcessorPil.from_pretrained(folder)
            video = Qwen2VLVideoProcessor(patch_size=images.patch_size, merge_size=images.merge_size)
            template = Path(folder, "chat_template.jinja").read_text()
            return kind(images, AutoTokenizer.from_pretrained(folder), video, chat_template=template)

        kind.from_pretrained = opened
    embed = card()["embed"]

    def one(role, record):
        pictures = [Image.open(path).convert("RGB") for path in record.get("images", [])]
        return embed(role, record["text"], pictures)

    one.operators = operators
    return one


if __name__ == "__main__":
    main(*sys.argv[1:])
