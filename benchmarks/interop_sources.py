"""Started from: models made by sentence-transformers and PyLate in their own environments, and what we read of them.

Tiny random models of the real classes; with ../shared also MiniLM's real weights and Qwen's real tokenizers and
processors. The error is the largest difference of any coordinate of any query's or document's vectors, in fp32.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import peers
import torch
from PIL import Image

from colmrl.data.records import Document, Query
from colmrl.errors import InputError
from colmrl.models.retriever import Retriever
from colmrl.models.tiny import write_tiny_model

HERE = Path(__file__).parent
SHARED = HERE.parents[1] / "shared"
TEXTS = [
    "a red circle, and a Blue star!",
    "what is (left) of the small square; if anything?",
    ("green triangle " * 60).strip(),
]
INSTRUCTIONS = {
    "queries": "Retrieve images or text relevant to the user's query.",
    "documents": "Represent the user's input.",
}
_PLAIN: dict[str, Any] = {"bias": False, "activation_function": "Identity"}
_TOKENS: dict[str, Any] = {"module_input_name": "token_embeddings"}
_ENDED = {  # what Qwen3-Embedding's tokenizer adds to Qwen3's
    "type": "TemplateProcessing",
    "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [151643], "tokens": ["<|endoftext|>"]}},
}


@dataclass(frozen=True)
class Case:
    name: str
    tool: str  # of interop_sources_peer.py
    base: str
    kind: str = "SentenceTransformer"
    make: dict | None = None  # null: the base is the whole model
    pictures: bool = False
    size: tuple[int, int] = (96, 160)  # which needs no resizing, that torchvision does in its own way
    note: str = "tiny random"
    environment: str | None = None  # null: named as the tool
    instructions: dict = field(default_factory=lambda: INSTRUCTIONS)


def dense(*modules: tuple[str, dict], prompts: dict | None = None, **transformer: Any) -> dict:
    return {"transformer": transformer, "modules": [*modules, ("Normalize", {})], "prompts": prompts or {}}


def late(*modules: tuple[str, dict], **transformer: Any) -> dict:
    made = dense(*modules, prompts={"query": "query: ", "document": ""}, **transformer)
    made["modules"][-1] = ("Normalize", _TOKENS)
    return made


def pooling(mode: str, width: int = 128) -> tuple[str, dict]:
    return "Pooling", {"embedding_dimension": width, "pooling_mode": mode}


CASES = [
    Case("dense, mean, prompts", "sentence-transformers", "bert", make=dense(
        pooling("mean"), prompts={"query": "query: ", "document": "passage: "}, max_seq_length=48)),
    Case("dense, cls, two Dense layers", "sentence-transformers", "bert", make=dense(
        pooling("cls"), ("Dense", {"in_features": 128, "out_features": 96}),
        ("Dense", {"in_features": 96, "out_features": 64, **_PLAIN}))),
    Case("dense, last token, lower case", "sentence-transformers", "qwen3", make=dense(
        pooling("lasttoken"), do_lower_case=True)),
    Case("MultiVectorEncoder, expansion and skiplist", "sentence-transformers", "bert", "MultiVectorEncoder", late(
        ("Dense", {"in_features": 128, "out_features": 48, "activation_function": "Identity", **_TOKENS}),
        ("MultiVectorMask", {"skiplist_words": list("!?,.;()")}),
        query_expansion={"strategy": "fixed", "length": 24}, document_length=64)),
    Case("MultiVectorEncoder, attended, residual layer", "sentence-transformers", "bert", "MultiVectorEncoder", late(
        ("Dense", {"in_features": 128, "out_features": 64, "activation_function": "ReLU", "use_residual": True,
            **_TOKENS}),
        ("Dense", {"in_features": 64, "out_features": 32, **_PLAIN, **_TOKENS}),
        ("MultiVectorMask", {}),
        query_expansion={"strategy": "min", "length": 16, "attend": True}, query_length=32)),
    Case("ColBERT, as PyLate makes it", "pylate", "bert", make={}),
    Case("ColBERT, attended, bias, own lengths", "pylate", "bert", make={
        "attend_to_expansion_tokens": True, "bias": True, "embedding_size": 48, "query_length": 16,
        "document_length": 24, "skiplist_words": ["!"]}),
    Case("ColBERT, no expansion, no prefixes", "pylate", "bert", make={
        "do_query_expansion": False, "query_prefix": "", "document_prefix": "", "query_length": 20}),
    Case("all-MiniLM-L6-v2", "sentence-transformers", "minilm", note="real weights"),
    Case("Qwen3-Embedding's layout", "sentence-transformers", "qwen3-embedding", make=dense(
        pooling("lasttoken", 64), prompts={"query": "Instruct: Given a web search query, retrieve relevant passages "
        "that answer the query\nQuery:", "document": ""}, modality_config={"text": {
        "method": "forward", "method_output_name": "last_hidden_state"}}, module_output_name="token_embeddings"),
        note="tiny random, real tokenizer"),
    Case("Qwen3-VL-Embedding, its script", "qwen-vl-utils", "qwen3-vl-embedding", pictures=True,
        size=(90, 150), note="tiny random, real processor", environment="sentence-transformers"),
    Case("Qwen3-VL-Embedding, modules.json", "sentence-transformers", "qwen3-vl-embedding", make=dense(
        pooling("lasttoken", 64), prompts={"query": INSTRUCTIONS["queries"], "document": INSTRUCTIONS["documents"]},
        processing_kwargs={"chat_template": {"add_generation_prompt": True}}), pictures=True,
        note="tiny random, real processor"),
]  # fmt: skip


def rows(work: Path) -> Iterator[dict]:
    for number, case in enumerate(CASES):
        row = {"direction": "source", "case": case.name, "tool": case.tool, "version": "", "note": case.note}
        out = work / str(number)
        out.mkdir()
        picture = out / "picture.png"
        Image.effect_noise(case.size, 60).convert("RGB").save(picture)
        try:
            base = base_of(case.base, work)
            folder = made_by_peer(case, base, out, picture)
            row |= {"version": (out / "version").read_text()}
            yield row | {"loads": True, "parity_error": largest_difference(folder, out, case, picture)}
        except (peers.Unavailable, InputError) as error:
            yield row | {"loads": False, "parity_error": None, "note": str(error)}


def base_of(name: str, work: Path) -> Path:
    """A tiny model, written once; InputError where it needs what is not here."""
    folder = work / "bases" / name
    if folder.is_dir():
        return folder
    match name:
        case "minilm":
            return needed(SHARED / "models" / "all-MiniLM-L6-v2")
        case "qwen3-embedding":
            tokenizer = needed(SHARED / "processors" / "qwen3-0.6b")
            shutil.copytree(tokenizer, folder)
            stated = json.loads((folder / "tokenizer.json").read_text())
            (folder / "tokenizer.json").write_text(json.dumps(stated | {"post_processor": _ENDED}))
            shrink(folder, json.loads((folder / "config.json").read_text()), "text")
            return folder
        case "qwen3-vl-embedding":
            shutil.copytree(needed(SHARED / "processors" / "qwen3-vl-embedding-8b"), folder)
            (folder / "model.safetensors.index.json").unlink()
            shrink(folder, json.loads((folder / "config.json").read_text()), "vision")
            return folder
        case _:
            return write_tiny_model(name, folder)


def needed(folder: Path) -> Path:
    if not folder.is_dir():
        raise InputError(f"{folder}: is not here: the case is left out")
    return folder


def shrink(folder: Path, config: dict, kind: str) -> None:
    """Random weights of the config's architecture, 64 wide."""
    from transformers import AutoConfig, AutoModel

    small = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "head_dim": 16,
    }
    small |= {"num_key_value_heads": 2, "dtype": "float32", "max_window_layers": 2}
    if kind == "vision":
        vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64}
        config["vision_config"] |= vision | {"num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]}
        config["vision_config"]["dtype"] = config["dtype"] = "float32"
        config["text_config"] |= small
        config["text_config"]["rope_scaling"] |= {"mrope_section": [4, 2, 2]}
    else:
        config |= small | {"torch_dtype": "float32"}
        config.pop("layer_types", None)
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.from_pretrained(folder)).save_pretrained(folder)


def records(case: Case, picture: Path) -> dict[str, list[dict]]:
    queries, documents = [{"text": text} for text in TEXTS], [{"text": text, "images": []} for text in TEXTS]
    if case.pictures:
        documents += [{"text": "", "images": [str(picture)]}, {"text": TEXTS[0], "images": [str(picture)]}]
    return {"queries": queries, "documents": documents}


def made_by_peer(case: Case, base: Path, out: Path, picture: Path) -> Path:
    asked = {"model": str(base), "class": case.kind, "make": case.make, "instructions": case.instructions}
    command = [peers.python(case.environment or case.tool), HERE / "interop_sources_peer.py", case.tool, out]
    given = json.dumps(asked | records(case, picture))
    done = subprocess.run(command, input=given, capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"{case.tool}: {done.stderr.strip().splitlines()[-1]}")
    return base if case.make is None else out / "model"


def largest_difference(folder: Path, out: Path, case: Case, picture: Path) -> float:
    model, given, worst = Retriever.load(folder).eval(), records(case, picture), 0.0
    for kind in ("queries", "documents"):
        expected, lengths = np.load(out / f"{kind}.npy"), np.load(out / f"{kind}.lengths.npy")
        if kind == "queries":
            inputs = model.inputs.queries([Query(str(i), one["text"]) for i, one in enumerate(given[kind])])
        else:
            documents = [
                Document(str(i), one["text"], images=tuple(one["images"])) for i, one in enumerate(given[kind])
            ]
            inputs = model.inputs.documents(documents)
        with torch.inference_mode():
            made = model(inputs)
        if made.multi is not None:
            assert np.diff(made.multi.offsets).tolist() == lengths.tolist(), (case.name, kind)
        vectors = made.single if made.multi is None else made.multi.vectors
        assert vectors is not None
        worst = max(worst, float(np.abs(vectors.numpy() - expected).max()))
    return worst
