"""Run in another library's own environment: a model is made with its classes (or opened), saved, and gives its vectors.

    python interop_sources_peer.py TOOL OUT < asked.json

asked: {"model": folder, "make": how (null: opened as it is), "queries": [{"text"}], "documents": [{"text", "images"}]}.
OUT: model/ where one was made, and queries.npy, documents.npy with the numbers of vectors in *.lengths.npy.
"""

import json
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch


def without_nms() -> None:
    """PyPI's torchvision is built for CUDA's torch; beside the CPU's it lacks operators that no picture model needs."""
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    globals()["_library"] = library  # which goes with its object


def pylate(asked: dict, out: Path):
    from pylate import models

    model = models.ColBERT(asked["model"], device="cpu", **(asked["make"] or {}))
    if asked["make"] is not None:
        model.save(str(out / "model"))
    return lambda kind, record: np.asarray(model.encode(record["text"], is_query=kind == "queries"))


def sentence_transformers(asked: dict, out: Path):
    without_nms()
    import sentence_transformers as library
    from PIL import Image
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
    from sentence_transformers.sentence_transformer.modules import Pooling

    classes: dict[str, Any] = {c.__name__: c for c in (Dense, Normalize, Pooling, MultiVectorMask)}
    make, folder = asked["make"], asked["model"]
    kind = getattr(library, asked["class"])
    if make is not None:
        modules: list = [Transformer(folder, **make["transformer"])]
        for name, options in make["modules"]:
            if "activation_function" in options:
                options["activation_function"] = getattr(torch.nn, options["activation_function"])()
            modules.append(classes[name](**options))
        kind(modules=modules, prompts=make["prompts"], device="cpu").save(str(out / "model"), create_model_card=False)
        folder = str(out / "model")
    model = kind(folder, device="cpu")

    def embed(what: str, record: dict) -> np.ndarray:
        given: dict = {"image": Image.open(record["images"][0])} if record.get("images") else {}
        given |= {"text": record["text"]} if record["text"] else {}
        encode = model.encode_query if what == "queries" else model.encode_document
        return np.asarray(encode([given if "image" in given else record["text"]])[0])

    return embed


def qwen(asked: dict, out: Path):
    """As Qwen3VLEmbedder of the published scripts/qwen3_vl_embedding.py goes."""
    without_nms()
    from qwen_vl_utils.vision_process import process_vision_info
    from transformers import Qwen3VLModel
    from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor

    model = Qwen3VLModel.from_pretrained(asked["model"], dtype=torch.float32).eval()
    processor = Qwen3VLProcessor.from_pretrained(asked["model"], padding_side="right")

    def embed(what: str, record: dict) -> np.ndarray:
        pixels = {"min_pixels": 4 * 32 * 32, "max_pixels": 1800 * 32 * 32}
        content: list = [{"type": "image", "image": f"file://{path}", **pixels} for path in record.get("images", [])]
        content += [{"type": "text", "text": record["text"]}] if record["text"] else []
        instruction = asked["instructions"][what]
        turns = [{"role": "system", "content": [{"type": "text", "text": instruction}]}]
        turns.append({"role": "user", "content": content})
        text = processor.apply_chat_template([turns], add_generation_prompt=True, tokenize=False)
        images, _ = process_vision_info([turns], image_patch_size=16)
        inputs = processor(text=text, images=images, padding=True, do_resize=False, return_tensors="pt")
        with torch.no_grad():
            hidden = model(**inputs).last_hidden_state
        return torch.nn.functional.normalize(hidden[0, -1], dim=-1).numpy()

    return embed


TOOLS = {"pylate": pylate, "sentence-transformers": sentence_transformers, "qwen-vl-utils": qwen}


def main(tool: str, out: Path) -> None:
    torch.set_num_threads(1)
    asked = json.load(sys.stdin)
    embed = TOOLS[tool](asked, out)
    for kind in ("queries", "documents"):
        vectors = [np.atleast_2d(embed(kind, record)) for record in asked[kind]]
        np.save(out / f"{kind}.npy", np.concatenate(vectors).astype(np.float32))
        np.save(out / f"{kind}.lengths.npy", np.array([len(each) for each in vectors]))
    (out / "version").write_text(metadata.version(tool))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
