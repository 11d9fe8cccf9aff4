"""What a listwise reranker gives on Amazon Beauty: what a person has next, leaving one out.

    python benchmarks/beauty.py --data DIR                                # baselines and a small Qwen3 from scratch
    python benchmarks/beauty.py --data DIR --model FOLDER --name SmolLM2  # and a text model with real weights
    python benchmarks/beauty.py --data DIR --model x.gguf --name SmolLM2  # one that is packed (needs `gguf`)

DIR: user_sequence.txt and item_short_text.txt (the 5-core set: 22,363 users, 12,101 items). First stages: popularity, a
first-order Markov chain, BM25 on the history. The reranker sees item texts. It begins as a
bi-encoder of histories and items (`--first-steps`, other users' items as negatives), is then trained on random splits
of what precedes the last two items with 19 random items beside each target, and reorders

    ground_truth   the target among 19 random items, of `--lists` drawn users
    retrieval      the 20 best of a first stage: of the users whose target is among them, `--lists` drawn ones; whatever
                   order a list has that lacks the target, it gives 0, so that numbers of all users follow exactly from
                   these and the share of users who have it

Random order is the mean of 20 shuffles. Rows go to benchmarks/results/beauty.json as they are found.
"""

import argparse
import json
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, Qwen2Tokenizer

from colmrl import provenance
from colmrl.config import Config
from colmrl.configure import load_config
from colmrl.data.reading import read_collection
from colmrl.data.records import Collection, relevant
from colmrl.evaluation.baselines import bm25_on_history, markov, popularity
from colmrl.evaluation.metrics import mean, of_orders
from colmrl.evaluation.reranking import Judged, beside, by_position, ordered, scored
from colmrl.files import write_text
from colmrl.reranking.candidates import Candidates, ground_truth
from colmrl.reranking.reranker import Reranker, open_reranker
from colmrl.runtime import use_torch
from colmrl.training.run import train

METRICS = ("recall_at_10", "ndcg_at_10", "mrr_at_10")
INSTRUCTION = "Given what a person has had so far, choose the item that they want next."
SMALL = ["train.learning_rate=1e-3", "train.warmup_steps=30", "train.adam_beta2=0.98"]
FIRST = ["multi.dims=[]", "single.dims=[128,64,32,16]", "single.temperature=0.1", "train.batch_size=64"]
REAL = ["model.tuning=lora", "model.dtype=bf16", "lora.dropout=0.0", "train.learning_rate=7e-4"]
REAL += ["train.schedule=linear", "train.warmup_steps=10", "train.adam_beta2=0.98"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="a folder with a text model that writes; none: a small Qwen3")
    parser.add_argument("--name", default="small Qwen3")
    parser.add_argument("--first-steps", type=int, default=300, help="as a bi-encoder, before (0 with --model: LoRA)")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--answer", default="relevance", choices=["relevance", "identifier"])
    parser.add_argument("set", nargs="*", help="section.key=value of the reranker's training")
    parser.add_argument("--lists", type=int, default=200)
    parser.add_argument("--identifiers", default="letters", choices=["letters", "numbers"])
    parser.add_argument("--permutations", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("outputs/beauty"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/beauty.json"))
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    base = settings(asked)
    use_torch(base)
    collection = read_collection(str(asked.data), base.data, base.show)
    stages = {made.source: made for made in (popularity(collection, "test", 20), markov(collection, "test", 20))}
    for found in (*stages.values(), bm25_on_history(collection, "test", 20)):
        values = mean(of_orders(dict(found.of), found.qrels, METRICS))
        note(asked.out, {"case": "first stage alone", "system": found.source, "users": len(found), **values})
    lists = {"ground_truth": (ground_truth(collection, "test", 19, 0).drawn(asked.lists, 0), 1.0)}
    lists |= {name: answerable(found, asked.lists) for name, found in stages.items()}
    judge_all(asked, base, collection, lists)


def settings(asked: argparse.Namespace) -> Config:
    """The reranker's, after what it begins with."""
    model = asked.model or asked.work / "small-qwen3"
    if not model.exists():
        write_small_qwen3(model, [line.partition(" ")[2] for line in (asked.data / "item_short_text.txt").open()])
    if model.suffix == ".gguf":
        model = unpacked(model, asked.work / model.stem)
    name = asked.name.replace(" ", "-")
    given = [f"model.backbone={model}", "model.max_document_tokens=16", "device=cpu", "threads=1"]
    given += [f"data.path={asked.data}", "show.history=8", *(REAL if asked.model else SMALL)]
    first = asked.work / f"{name}-first"
    if asked.first_steps and not (first / "checkpoint").exists():
        train(load_config(None, [*given, *FIRST, f"output={first}", f"train.max_steps={asked.first_steps}"]))
    given += ["task=listwise", f"output={asked.work / name}-{asked.answer}-{asked.identifiers}"]
    given += [f"rerank.instruction={INSTRUCTION}", "model.padding_side=left", "train.log_steps=10"]
    given += [f"rerank.identifiers={asked.identifiers}", f"rerank.answer={asked.answer}", "rerank.relevance=1"]
    given += [f"train.init_from={first / 'checkpoint'}"] if asked.first_steps else []
    given += [f"train.max_steps={asked.steps}", "train.batch_size=8"]
    return load_config(None, [*given, "train.weight_decay=0.01", *asked.set])


def unpacked(path: Path, folder: Path) -> Path:
    """The weights of a GGUF file, in a folder as transformers writes it."""
    if not folder.exists():
        packed = AutoModelForCausalLM.from_pretrained(str(path.parent), gguf_file=path.name, dtype=torch.float32)
        plain = AutoModelForCausalLM.from_config(packed.config)
        plain.load_state_dict(packed.state_dict())
        AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name).save_pretrained(folder)
        plain.save_pretrained(folder)
    return folder


def write_small_qwen3(folder: Path, texts: Sequence[str]) -> None:
    """Random weights, 4 layers 192 wide, and a tokenizer of 4,096 tokens, made of the items' texts."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=4096, initial_alphabet=alphabet, show_progress=False)  # pyright: ignore
    asked = f" {INSTRUCTION} Answer with the letter number of the best candidate. Which item comes next? Items so far"
    tokenizer.train_from_iterator([*(f" {text.strip()}" for text in texts), *[asked] * 50], trainer)
    state: dict[str, Any] = json.loads(tokenizer.to_str())["model"]
    merges: Any = [tuple(merge) for merge in state["merges"]]
    built = Qwen2Tokenizer(vocab=state["vocab"], merges=merges, eos_token="<|im_end|>", padding_side="left")
    width = 192
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(
            "qwen3",
            vocab_size=len(built),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=4,
            num_attention_heads=6,
            num_key_value_heads=3,
            head_dim=32,
            initializer_range=width**-0.5,
            max_position_embeddings=4096,
            tie_word_embeddings=True,
        )
    )
    model.save_pretrained(folder)
    built.save_pretrained(folder)


def answerable(found: Candidates, lists: int) -> tuple[Candidates, float]:
    """Drawn lists that have their target, and the share of all users that have it."""
    having = found.only(name for name, names in found.of.items() if relevant(found.qrels[name]) & set(names))
    return having.drawn(lists, 0), len(having) / len(found)


def judge_all(
    asked: argparse.Namespace, base: Config, collection: Collection, lists: dict[str, tuple[Candidates, float]]
) -> None:
    """Train (or take the checkpoint that is there), then judge what was trained to answer, and what is read."""
    checkpoint, started = Path(base.output) / "checkpoint", time.perf_counter()
    trained: dict[str, Any] = {"train_lists": base.train.max_steps * base.train.batch_size}
    if not checkpoint.exists():
        train(base)
        trained["train_s"] = time.perf_counter() - started
    used = replace(base.rerank, permutations=asked.permutations, candidates=20)
    answers = ["relevance"] if asked.answer == "relevance" else ["identifier", "relevance"]
    for answer in answers:
        reranker = open_reranker(checkpoint, replace(used, answer=answer))
        name = f"{answer}, {asked.identifiers}" if answer == "identifier" else answer
        judge(asked, collection, lists, reranker, f"{asked.name}, {name}, {asked.permutations} orders", trained)


def judge(
    asked: argparse.Namespace,
    collection: Collection,
    lists: dict[str, tuple[Candidates, float]],
    reranker: Reranker,
    system: str,
    trained: dict[str, Any],
) -> None:
    """Rows of one reranker, beside what else there is."""
    for mode, (candidates, share) in lists.items():
        started = time.perf_counter()
        orders = ordered(candidates, dict(scored(reranker, candidates, collection)))
        each_s = (time.perf_counter() - started) / len(candidates)
        judged = Judged(system, mean(of_orders(orders, candidates.qrels, METRICS)), orders)
        for row in [*beside(candidates, collection, 0, METRICS), judged]:
            values = {name: share * row.values[name] for name in METRICS}
            extra = trained | {"list_s": each_s} if row is judged else {}
            case = mode if mode == "ground_truth" else f"retrieval, top 20 of {mode}"
            note(
                asked.out,
                {"case": case, "system": row.system, "lists": len(candidates), "share": share, **values, **extra},
            )
        if mode == "ground_truth":
            found = by_position(candidates, orders, candidates.qrels)
            note(asked.out, {"case": "by position of the target, ground_truth", "system": system, "positions": found})


def note(out: Path, row: dict[str, Any]) -> None:
    """One more row of the results, in place of an older one of the same case and system; numbers to five places."""
    row = {key: round(value, 5) if isinstance(value, float) else value for key, value in row.items()}
    logging.info("%s", json.dumps({key: value for key, value in row.items() if key != "positions"}))
    rows = json.loads(out.read_text())["rows"] if out.exists() else []
    rows = [one for one in rows if (one["case"], one["system"]) != (row["case"], row["system"])] + [row]
    out.parent.mkdir(parents=True, exist_ok=True)
    machine = f"{os.cpu_count()} CPU cores, one used"
    head = {"command": "python benchmarks/beauty.py --data DIR", "commit": provenance.commit(), "machine": machine}
    write_text(out, json.dumps(head | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
