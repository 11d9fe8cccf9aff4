"""Training and encoding at the real size of Qwen2.5-VL-3B (random weights, real processor, real pages) on a GPU.

    python benchmarks/real_size.py --processor ../shared/processors/qwen2.5-vl-7b --data ../shared/data/pages_lilypond

Random weights cost what trained ones do; nothing is downloaded. Writes benchmarks/results/real_size.json.
"""

import argparse
import itertools
import json
import shutil
import time
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModel

from colmrl import provenance
from colmrl.configure import load_config
from colmrl.data.beir import read_corpus, read_queries
from colmrl.encoding import embed
from colmrl.models.retriever import Retriever
from colmrl.scoring import maxsim
from colmrl.training.run import train

GIB = 1 << 30


def write_backbone(processor: Path, folder: Path) -> None:
    """Random bf16 weights in the shape of Qwen2.5-VL-3B-Instruct, with the family's real processor files."""
    shutil.copytree(processor, folder)
    config = AutoConfig.from_pretrained(processor)
    text = {"hidden_size": 2048, "num_hidden_layers": 36, "num_attention_heads": 16, "num_key_value_heads": 2}
    text |= {"intermediate_size": 11008, "vocab_size": 151936, "tie_word_embeddings": True, "layer_types": None}
    text["layer_types"] = ["full_attention"] * 36
    for name, value in text.items():
        setattr(config.text_config, name, value)
    config.vision_config.out_hidden_size = 2048
    config.vision_config.hidden_size = 1280
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = AutoModel.from_config(config)
    torch.set_default_dtype(torch.float32)
    print(f"{model.num_parameters() / 1e9:.2f} G parameters", flush=True)
    model.save_pretrained(folder)


def time_training(backbone: Path, data: Path, work: Path, batch_size: int, steps: int, checkpointing: bool) -> dict:
    """Pairs and seconds a step, after three steps of warming up; peak memory."""
    output = work / f"train-{batch_size}-{checkpointing}"
    overrides = [f"output={output}", f"model.backbone={backbone}", f"data.path={data}", "data.train_split=test"]
    overrides += [f"train.batch_size={batch_size}", f"train.max_steps={steps}", "train.log_steps=1", "train.workers=8"]
    overrides += ["train.warmup_steps=0", f"train.gradient_checkpointing={checkpointing}"]
    torch.cuda.reset_peak_memory_stats()
    train(load_config("qwen2_5vl-pages", overrides))
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    seconds = [line["seconds"] for line in lines if "loss" in line]
    step_s = sorted(b - a for a, b in itertools.pairwise(seconds[2:]))
    step_s = step_s[len(step_s) // 2]
    case = f"train LoRA, both heads, batch {batch_size}, {'' if checkpointing else 'no '}gradient checkpointing"
    return {
        "case": case,
        "median_s": step_s,
        "pairs_per_s": batch_size / step_s,
        "peak_gib": torch.cuda.max_memory_allocated() / GIB,
    }


def time_encoding(checkpoint: Path, data: Path, batch_size: int) -> tuple[dict, object]:
    model = Retriever.load(checkpoint).to("cuda").eval()
    pages = read_corpus(data)
    embed(model, "documents", pages[: 2 * batch_size], batch_size, 8)
    torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    embedded = embed(model, "documents", pages, batch_size, 8)
    seconds = time.perf_counter() - start
    queries = embed(model, "queries", read_queries(data), 64)
    row = {
        "case": f"encode pages, batch {batch_size}",
        "median_s": seconds,
        "pages_per_s": len(pages) / seconds,
        "vectors_per_page": float(embedded.multi.counts.float().mean()),
        "peak_gib": torch.cuda.max_memory_allocated() / GIB,
    }
    return row, (queries.multi, embedded.multi)


def time_maxsim(queries, documents) -> dict:
    queries, documents = queries.to("cuda"), documents.to("cuda")
    times = []
    for _ in range(6):
        torch.cuda.synchronize()
        start = time.perf_counter()
        with torch.inference_mode():
            for block in range(0, len(queries), 32):
                maxsim(queries.slice(block, min(block + 32, len(queries))), documents)
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    median = sorted(times[1:])[2]
    return {
        "case": f"exact MaxSim fp32, {len(queries)} queries × {len(documents)} pages",
        "median_s": median,
        "ms_per_query": 1000 * median / len(queries),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processor", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("outputs/real_size"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/real_size.json"))
    parser.add_argument("--steps", type=int, default=10)
    arguments = parser.parse_args()
    backbone = arguments.work / "backbone"
    if not backbone.exists():
        write_backbone(arguments.processor, backbone)
    torch.cuda.empty_cache()
    rows = []

    def keep(row: dict) -> None:
        rows.append({"tool": "colmrl", "version": provenance.environment()["packages"], **row})
        print(row, flush=True)
        machine = {"gpu": torch.cuda.get_device_name(), **provenance.environment()}
        content = {"command": provenance.command(), "commit": provenance.commit(), "machine": machine, "rows": rows}
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(content, indent=1))

    for batch_size, checkpointing in ((32, True), (64, True), (16, False), (128, True)):
        try:
            keep(time_training(backbone, arguments.data, arguments.work, batch_size, arguments.steps, checkpointing))
        except torch.OutOfMemoryError:
            keep({"case": f"train, batch {batch_size}, checkpointing {checkpointing}", "out_of_memory": True})
        torch.cuda.empty_cache()
    for batch_size in (8, 32):
        row, vectors = time_encoding(arguments.work / "train-32-True/checkpoint", arguments.data, batch_size)
        keep(row)
    keep(time_maxsim(*vectors))


if __name__ == "__main__":
    main()
