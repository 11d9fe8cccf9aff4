"""One tool's encoding, in a process of its own: python encode_tools.py TOOL CASE

CASE is a folder that encode.py has made: data/, what was exported for the tool, and asked.json. The tools are given the
same files and open them themselves. Each line on the input asks for one run; the first run's vectors are kept.
"""

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from workers import answering, measured, trimmed

ALONE = "one at a time"
Vectors = list[np.ndarray]  # one, or one a token, of each document
Run = Callable[[], Callable[[], Vectors]]  # what is measured, and what hands out its vectors


def main(tool: str, folder: str) -> None:
    torch.set_num_threads(1)
    case = Path(folder)
    asked = json.loads((case / "asked.json").read_text())
    library, _, way = tool.partition(": ")
    preparing = Preparing()
    run = {"colmrl": ours, "sentence-transformers": sentence_transformers, "colpali-engine": colpali}[library](
        case, way, asked, preparing
    )
    kept = case / f"{tool}.npz"

    def answer(_: str) -> dict[str, float]:
        preparing.seconds = 0.0
        trimmed()
        vectors, found = measured(run)
        if not kept.exists():
            keep(kept, vectors())
        return found | {"preparing_s": preparing.seconds}

    answering({"version": metadata.version(library)}, answer)


def keep(path: Path, vectors: Vectors) -> None:
    rows = [np.atleast_2d(each).astype(np.float32) for each in vectors]
    np.savez(path, vectors=np.concatenate(rows), lengths=np.array([len(each) for each in rows]))


class Preparing:
    """CPU seconds in what makes a model's input of records: pictures, templates, tokens, padding."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any, **named: Any) -> Any:
            start = time.thread_time()
            try:
                return function(*given, **named)
            finally:
                self.seconds += time.thread_time() - start

        return timed


def ours(case: Path, way: str, asked: dict[str, Any], preparing: Preparing) -> Run:
    """ "store": the whole of encode.py but loading the model; "embed": records in memory → vectors in memory."""
    from colmrl.configure import load_config
    from colmrl.data.reading import read_collection
    from colmrl.encoding import begin_stores, embed, fill_stores, finish_stores
    from colmrl.models.retriever import Retriever, fingerprint
    from colmrl.store import EmbeddingStore

    size, head, out = asked["batch_size"], asked["head"], case / "store"
    checkpoint = case / ("checkpoint, PIL" if way == "embed, PIL" else "checkpoint")
    model = Retriever.load(checkpoint).eval()
    model.inputs.documents = preparing.timed(model.inputs.documents)  # pyright: ignore
    config = load_config(None, ["device=cpu", f"encode.batch_size={size}"])

    def to_memory() -> Callable[[], Vectors]:
        found = embed(model, "documents", documents, size)
        return lambda: of_head(found, head)

    def to_store() -> Callable[[], Vectors]:
        shutil.rmtree(out, ignore_errors=True)
        records = {"documents": read_collection(str(case / "data"), config.data).documents}
        stamp = fingerprint(checkpoint)
        writers = begin_stores(config, model.description, records, str(case / "data"), stamp, checkpoint, out)
        fill_stores(config, model, records, writers, {kind: writer.missing() for kind, writer in writers.items()})
        finish_stores(writers)
        return stored

    def stored() -> Vectors:
        store = EmbeddingStore(out / "documents")
        view = next(one for one in store.views() if one.head == head)  # the largest
        if head == "single":
            return list(np.concatenate(list(store.single(view))))
        return [one.numpy() for items in store.multi(view) for one in items.unpack()]

    if way == "store":
        return to_store
    documents = list(read_collection(str(case / "data"), config.data).documents)
    return to_memory


def of_head(embeddings: Any, head: str) -> Vectors:
    made = list(embeddings.single) if head == "single" else embeddings.multi.unpack()
    return [each.numpy() for each in made]


def sentence_transformers(case: Path, way: str, asked: dict[str, Any], preparing: Preparing) -> Run:
    from PIL import Image

    without_nms()
    sees = asked["sees"]
    import sentence_transformers as library

    kind = library.SentenceTransformer if asked["head"] == "single" else library.MultiVectorEncoder
    model: Any = kind(str(case / "sentence-transformers"), device="cpu")
    if sees and not way.startswith("torchvision"):
        model[0].processor.image_processor = by_pil(case / "sentence-transformers")
    model.preprocess = preparing.timed(model.preprocess)
    documents = list(read(case / "data"))

    def given(document: dict[str, Any]) -> object:
        if document["image"] is None:
            return document["text"]
        return {"image": document["image"] if way == "paths" else Image.open(document["image"])}

    def run() -> Callable[[], Vectors]:
        options = {"batch_size": 1 if way.endswith(ALONE) else asked["batch_size"], "convert_to_numpy": True}
        made = model.encode_document([given(document) for document in documents], **options)
        return lambda: list(made)

    return run


def colpali(case: Path, way: str, asked: dict[str, Any], preparing: Preparing) -> Run:
    """As its README goes: a DataLoader over pages, `process_images` collates."""
    without_nms()
    from importlib import import_module

    from PIL import Image
    from torch.utils.data import DataLoader
    from transformers import AutoTokenizer, Qwen2VLVideoProcessor
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

    folder, models = case / "colpali-engine", import_module("colpali_engine.models")
    images = Qwen2VLImageProcessor.from_pretrained(folder) if way == "torchvision" else by_pil(folder)
    video = Qwen2VLVideoProcessor(patch_size=images.patch_size, merge_size=images.merge_size)
    template = (folder / "chat_template.jinja").read_text()
    processor = models.ColQwen2_5_Processor(
        images, AutoTokenizer.from_pretrained(folder), video, chat_template=template
    )
    page = [{"role": "user", "content": [{"type": "image"}]}]
    processor.visual_prompt_prefix = processor.apply_chat_template(page, tokenize=False)  # ours, for the same tokens
    model = models.ColQwen2_5.from_pretrained(folder).eval()
    process = preparing.timed(lambda paths: processor.process_images([Image.open(path) for path in paths]))
    paths = [document["image"] for document in read(case / "data")]

    def run() -> Callable[[], Vectors]:
        made: list[torch.Tensor] = []
        loader = DataLoader(paths, batch_size=asked["batch_size"], shuffle=False, collate_fn=process)
        with torch.inference_mode():
            for batch in loader:
                embedded = model(**batch)
                made += [vectors[mask.bool()] for vectors, mask in zip(embedded, batch["attention_mask"], strict=True)]
        return lambda: [vectors.numpy() for vectors in made]

    return run


def read(data: Path) -> Iterator[dict[str, Any]]:
    """{"text", "image": a path or none} of each document, in order."""
    with (data / "corpus.jsonl").open() as file:
        for line in file:
            row = json.loads(line)
            yield {"text": row.get("text", ""), "image": str(data / row["image"]) if "image" in row else None}


def by_pil(folder: Path) -> Any:
    """The processor's PIL backend, whose pixels are the ones that ours are to be compared by."""
    from transformers import AutoImageProcessor

    return AutoImageProcessor.from_pretrained(folder, backend="pil")


def without_nms() -> None:
    """PyPI's torchvision is built for CUDA's torch; beside the CPU's it lacks operators that no picture model needs."""
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    globals()["_library"] = library  # which goes with its object


if __name__ == "__main__":
    main(*sys.argv[1:])
