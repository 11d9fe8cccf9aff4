"""Exports of tiny random checkpoints, each opened by the library that it is for: how far its vectors are from ours.

`rows` is what `python benchmarks/run.py interop` calls. By itself: python benchmarks/interop_targets.py [TOOL …]

sentence-transformers, transformers and onnxruntime run here, PyLate and colpali-engine in environments of their own
(peers.py), by the code of the folder's model card. vLLM does not run here: its rows are transformers on vLLM's folder,
by vLLM's rules (tests/exporting/test_vllm.py), and say so. minilm is the dense path with real weights and SciFact,
where ../shared has them: its judged documents, or, asked for by name here, all of it (20 CPU minutes).
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import peers
import torch
from PIL import Image
from safetensors.torch import load_file

from colmrl.configure import load_config
from colmrl.data.reading import read_collection
from colmrl.data.records import Document, Query
from colmrl.encoding import embed
from colmrl.evaluation.metrics import mean, per_query
from colmrl.exporting.plain import load_plain
from colmrl.exporting.run import Asked, export
from colmrl.models.processors import load_processor
from colmrl.models.retriever import Embeddings, Retriever
from colmrl.models.tiny import write_tiny_model

TOOLS = ("sentence-transformers", "pylate", "colpali-engine", "vllm", "transformers", "onnxruntime", "minilm")
FAMILIES = {
    "sentence-transformers": ("bert", "qwen3", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl"),
    "pylate": ("bert", "qwen3"),
    "colpali-engine": ("qwen2_vl", "qwen2_5_vl", "qwen3_vl"),
    "vllm": ("qwen3", "qwen3_vl"),
    "transformers": ("bert", "qwen3", "qwen2_5_vl"),
    "onnxruntime": ("bert", "qwen3"),
}
TEXT = ("bert", "qwen3")
QUERIES = ["red circle", "blue star, it seems.", "green ring and a black cross, or is it a square?"]
SHARED = Path(__file__).parents[2] / "shared"
_JUDGED = 10**9  # every so manieth document beside the judged ones: none
Vectors = dict[str, torch.Tensor]  # query-0 …, document-0 …


def rows(work: Path, tools: Sequence[str] = TOOLS, every: int = _JUDGED) -> Iterator[dict[str, Any]]:
    """A row a case: a tool, a backbone's family and a head."""
    for tool in tools:
        if tool == "minilm":
            yield from minilm_rows(work, every)
            continue
        for family in FAMILIES[tool]:
            yield from case_rows(work / tool / family, tool, family)


def case_rows(work: Path, tool: str, family: str) -> Iterator[dict[str, Any]]:
    checkpoint, documents = make(work, family)
    mine = {head: ours(checkpoint, documents, head) for head in ("single", "multi")}
    row = {"direction": "target", "tool": "vllm's rules" if tool == "vllm" else tool}
    try:
        found, version, note = OPENED[tool](work, checkpoint, family, documents)
    except peers.Unavailable as reason:
        yield row | {"case": family, "version": "", "loads": False, "parity_error": None, "note": str(reason)}
        return
    for head, vectors in found.items():
        error = max(
            float((vectors[name].reshape(own.shape) - own).abs().max())
            for name, own in mine[head].items()
            if name in vectors
        )
        yield row | {
            "case": f"{family}, {head}",
            "version": version,
            "loads": True,
            "parity_error": error,
            "note": note,
        }


def make(work: Path, family: str) -> tuple[Path, list[Document]]:
    """A checkpoint with LoRA that does something and both heads; texts, and pages where it sees."""
    work.mkdir(parents=True)
    write_tiny_model(family, work / "base")
    prompts = ['model.query_prompt="Query: {text}"', 'model.document_prompt="Doc: {text}"']
    sizes = ["single.dims=[128,32]", "multi.dims=[64,16]", "model.tuning=lora"]
    model = Retriever.create(load_config(None, [f"model.backbone={work / 'base'}", *prompts, *sizes]))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    model.save(work / "checkpoint")
    documents = [Document(str(number), text) for number, text in enumerate(QUERIES)]
    if family not in TEXT:
        pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
        Image.fromarray(pixels).save(work / "page.png")
        documents = [*documents[:1], Document("page", "a page", images=(str(work / "page.png"),))]
    return work / "checkpoint", documents


def ours(checkpoint: Path, documents: list[Document], head: str) -> Vectors:
    model = Retriever.load(checkpoint).eval()
    queries = [Query(str(number), text) for number, text in enumerate(QUERIES)]
    found = {"query": embed(model, "queries", queries, 4), "document": embed(model, "documents", documents, 4)}
    return {f"{role}-{i}": one for role, of in found.items() for i, one in enumerate(by_record(of, head))}


def by_record(embeddings: Embeddings, head: str) -> list[torch.Tensor]:
    if head == "single":
        assert embeddings.single is not None
        return list(embeddings.single)
    assert embeddings.multi is not None
    return embeddings.multi.unpack()


def sentence_transformers(work: Path, checkpoint: Path, family: str, documents: list[Document]):
    from sentence_transformers import MultiVectorEncoder, SentenceTransformer

    folder = str(export(checkpoint, Asked("sentence-transformers"), work / "out"))
    with processors():
        single, multi = SentenceTransformer(folder, device="cpu"), MultiVectorEncoder(folder, device="cpu")
    found: dict[str, Vectors] = {"single": {}, "multi": {}}
    for head, model, options in (("single", single, {"convert_to_tensor": True}), ("multi", multi, {})):
        for i, text in enumerate(QUERIES):
            found[head][f"query-{i}"] = model.encode_query([text], **options)[0]
        for i, document in enumerate(documents):
            found[head][f"document-{i}"] = model.encode_document([shown(document)], **options)[0]
    note = "" if family in TEXT else "its processor without the video part, which needs torchvision"
    return found, metadata.version("sentence-transformers"), note


class processors:
    """AutoProcessor needs torchvision for models that see; here it gives theirs without the video part."""

    def __enter__(self) -> None:
        from sentence_transformers.base.modules import transformer

        self.module, self.before = transformer, transformer.AutoProcessor

        class Loader:
            from_pretrained = staticmethod(lambda source, **_: load_processor(source, None, None))

        transformer.AutoProcessor = Loader  # pyright: ignore

    def __exit__(self, *_: object) -> None:
        self.module.AutoProcessor = self.before


def shown(document: Document) -> object:
    if not document.images:
        return document.text
    return {"image": Image.open(document.images[0]).convert("RGB"), "text": document.text}


def peer(tool: str, asked: Asked) -> Callable[..., Any]:
    def opened(work: Path, checkpoint: Path, family: str, documents: list[Document]):
        program = peers.python(tool)
        folder = export(checkpoint, asked, work / "out")
        wanted = [{"text": one.text, "images": list(one.images)} for one in documents]
        (work / "asked.json").write_text(json.dumps({"queries": QUERIES, "documents": wanted}))
        script = Path(__file__).with_name("interop_targets_peer.py")
        command = [program, script, tool, folder.resolve(), work / "asked.json", work / "out.safetensors"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        note = "LoRA kept, projection beside it" if asked.adapter else ""
        return {"multi": load_file(work / "out.safetensors")}, done.stdout.split()[-1], note

    return opened


def by_rules(work: Path, checkpoint: Path, family: str, documents: list[Document]):
    """What vLLM makes of its folder, by transformers: queries alone."""
    from torch.nn.functional import normalize
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    single = family in TEXT
    folder = export(checkpoint, Asked("vllm", "single" if single else "multi"), work / "out")
    loader = AutoModelForCausalLM if single else AutoModelForImageTextToText
    model = loader.from_pretrained(folder).eval()
    weights = {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}
    inputs = Retriever.load(checkpoint).inputs
    found: Vectors = {}
    with torch.no_grad():
        for i, text in enumerate(QUERIES):
            batch = inputs.queries([Query("q", text)])
            batch.pop("positions", None)
            states = model.model(**batch, use_cache=False).last_hidden_state[0]
            vectors = states.mean(0) if single else states @ weights["custom_text_proj.weight"].T
            found[f"query-{i}"] = normalize(vectors, dim=-1)
    note = "vLLM was not run: names of tensors and vectors by the rules of its source"
    return {"single" if single else "multi": found}, "source at 055e47c28003", note


def transformers(work: Path, checkpoint: Path, family: str, documents: list[Document]):
    """The card's code for texts; of models that see, hidden states of the merged weights, projected."""
    from torch.nn.functional import normalize
    from transformers import AutoModel

    folder = export(checkpoint, Asked("transformers"), work / "out")
    model, heads = AutoModel.from_pretrained(folder).eval(), load_file(folder / "heads.safetensors")
    inputs = Retriever.load(checkpoint).inputs
    found: Vectors = {}
    records = [
        ("query", inputs.queries, [Query("q", text) for text in QUERIES]),
        ("document", inputs.documents, documents),
    ]
    with torch.no_grad():
        for role, build, some in records:
            for i, record in enumerate(some):
                batch = build([record])  # pyright: ignore[reportArgumentType]
                batch.pop("positions", None)
                states = model(**batch, use_cache=False).last_hidden_state[0]
                found[f"{role}-{i}"] = normalize(states @ heads["multi"].T, dim=-1)
    return {"multi": found}, metadata.version("transformers"), "LoRA merged"


def onnxruntime(work: Path, checkpoint: Path, family: str, documents: list[Document]):
    try:
        import onnxruntime as runtime
    except ImportError:
        raise peers.Unavailable("pip install colmrl[onnx]") from None
    folder = export(checkpoint, Asked("onnx"), work / "out")
    session, tokenizer = runtime.InferenceSession(str(folder / "model.onnx")), load_plain(checkpoint).tokenizer
    found: Vectors = {}
    texts = [("query", f"Query: {text}") for text in QUERIES] + [("document", f"Doc: {text}") for text in QUERIES]
    for i, (role, text) in enumerate(texts):
        inputs = tokenizer([text], return_tensors="np")
        given = {name: inputs[name].astype(np.int64) for name in ("input_ids", "attention_mask")}
        found[f"{role}-{i % len(QUERIES)}"] = torch.from_numpy(session.run(None, given)[0][0])
    return {"single": found}, metadata.version("onnxruntime"), ""


OPENED: Mapping[str, Callable[..., Any]] = {
    "sentence-transformers": sentence_transformers,
    "pylate": peer("pylate", Asked("pylate")),
    "colpali-engine": peer("colpali-engine", Asked("colpali-engine", adapter=True)),
    "vllm": by_rules,
    "transformers": transformers,
    "onnxruntime": onnxruntime,
}


def minilm_rows(work: Path, every: int) -> Iterator[dict[str, Any]]:
    """all-MiniLM-L6-v2 → checkpoint → export → SentenceTransformer: nDCG@10 on SciFact before and after."""
    what = "all of SciFact" if every == 1 else "SciFact's judged documents"
    row = {"direction": "target", "case": f"all-MiniLM-L6-v2, {what}", "tool": "sentence-transformers"}
    row["version"] = metadata.version("sentence-transformers")
    if not SHARED.is_dir():
        yield row | {"loads": False, "parity_error": None, "note": f"{SHARED} is not there"}
        return
    before, after, error = round_trip(work / "minilm", SHARED, every)
    note = f"nDCG@10 {before:.4f} before, {after:.4f} after"
    yield row | {"loads": True, "parity_error": error, "note": note}


def round_trip(work: Path, shared: Path, every: int) -> tuple[float, float, float]:
    """Of all judged documents and each `every`-th other one; the largest difference of a number in a vector last."""
    from sentence_transformers import SentenceTransformer

    paths = [f"model.backbone={shared}/models/all-MiniLM-L6-v2", f"data.path={shared}/data/scifact"]
    config = load_config("minilm-scifact", paths)
    model = Retriever.create(config).eval()
    model.save(work / "checkpoint")
    data = read_collection(config.data.path, config.data)
    qrels = data.qrels["test"]
    judged = {document for answers in qrels.values() for document in answers}
    documents = [one for n, one in enumerate(data.documents) if one.id in judged or n % every == 0]
    queries = [data.queries.named(name) for name in qrels]
    mine = [embed(model, "queries", queries, 8).single, embed(model, "documents", documents, 8).single]
    theirs = SentenceTransformer(
        str(export(work / "checkpoint", Asked("sentence-transformers"), work / "out")), device="cpu"
    )
    options = {"convert_to_tensor": True, "batch_size": 8}
    found = [theirs.encode_query([one.text for one in queries], **options)]
    found.append(theirs.encode_document([one.body for one in documents], **options))
    quality = []
    for of_queries, of_documents in (mine, found):
        assert of_queries is not None and of_documents is not None
        best = (of_queries @ of_documents.T).topk(10)
        run = {
            query.id: {documents[place].id: score for place, score in zip(places, scores, strict=True)}
            for query, places, scores in zip(queries, best.indices.tolist(), best.values.tolist(), strict=True)
        }
        quality.append(mean(per_query(run, qrels, ["ndcg_at_10"]))["ndcg_at_10"])
    error = max(float((a - b).abs().max()) for a, b in zip(mine, found, strict=True) if a is not None)
    return quality[0], quality[1], error


if __name__ == "__main__":
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    with tempfile.TemporaryDirectory() as folder:
        for found in rows(Path(folder), sys.argv[1:] or TOOLS, 1 if "minilm" in sys.argv else _JUDGED):
            print(json.dumps(found))
