"""What the tools of `train.py` train on: data, one model's weights for each of them, the order of the pairs."""

import json
import random
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoConfig, AutoModel

from colmrl.configure import load_config
from colmrl.data.reading import read_training
from colmrl.data.records import Document, Query
from colmrl.data.sample import FAMILY_SIZE, vocabulary, write_sample
from colmrl.exporting.run import Asked, export
from colmrl.models.retriever import Retriever
from colmrl.models.tiny import write_tiny_model
from colmrl.training.batches import ExampleDataset
from colmrl.training.resumable import batches_of

TEMPERATURE, LEARNING_RATE = 0.05, 1e-4
SIDES, PIXELS = (64, 224), 160**2  # of a page; at most so many are seen, in patches of 8 pixels, 4 a token
WORDS, QUERY_WORDS = (8, 160), (4, 12)  # of a text
_MARK = "QUERY"


def prepare(folder: Path, case: dict[str, Any], tools: tuple[str, ...]) -> None:
    """Into `folder`; what else a tool must know goes into `case`, and with it into case.json."""
    case |= {"temperature": TEMPERATURE, "learning_rate": LEARNING_RATE, "steps": case["pairs"] // case["batch"]}
    write_model(folder / "model", case["family"])
    seen = case["family"] != "bert"
    (write_pages if seen else write_texts)(folder / "data", case["pairs"])
    off = "multi" if case["head"] == "single" else "single"
    case["options"] = [f"model.backbone={folder}/model", f"data.path={folder}/data/test", "data.train_split=test"]
    case["options"] += [f"{case['head']}.dims={case['dims']}", f"{off}.dims=[]", "device=cpu", "threads=1"]
    case["options"] += [f"{case['head']}.temperature={TEMPERATURE}", f"train.learning_rate={LEARNING_RATE}"]
    case["options"] += [f"train.batch_size={case['batch']}", f"train.epochs={case['epochs']}"]
    case["options"] += [f"model.max_pixels={PIXELS}", "model.resize=pil"] if seen else []  # the peers' pixels
    case["options"] += [f"model.tuning={case['tuning']}"]
    config = load_config(None, case["options"])
    model = Retriever.create(config)
    model.save(folder / "checkpoint")
    for tool in tools:
        export(folder / "checkpoint", Asked(tool), folder / tool)  # pyright: ignore[reportArgumentType]
    examples, _ = read_training(config.data, config.show)
    batches, pairs = batches_of(config, ExampleDataset(examples, 0, config.seed)), []
    for epoch in range(case["epochs"]):
        batches.set_epoch(epoch)
        for one in (examples.with_negatives(place, ()) for batch in batches for place in batch):
            shown = {"image": one.positive.images[0]} if one.positive.images else {"document": one.positive.text}
            pairs.append({"query": one.query.text} | shown)
    if seen:
        case |= prompts(model, pairs[0]["image"])
    (folder / "pairs.json").write_text(json.dumps(pairs))
    (folder / "case.json").write_text(json.dumps(case))


def prompts(model: Retriever, page: str) -> dict[str, Any]:
    """The text around a page and around a query."""
    inputs = model.inputs
    around = [inputs.documents([Document("d", images=(page,))]), inputs.queries([Query("q", _MARK)])]
    document, query = (inputs.tokenizer.decode(one["input_ids"][0]) for one in around)
    token = inputs.processor.image_token
    before, _, after = document.partition(token)
    return {"page": before + token + after.replace(token, ""), "around_query": query.split(_MARK)}


def write_model(out: Path, family: str) -> None:
    """Tiny, save that BERT is as large as MiniLM-L6; without dropout.

    The padding token's embedding is drawn like the others: where it is zero, colpali-engine divides zero by zero.
    """
    write_tiny_model(family, out)
    if family == "bert":
        sizes = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
        dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        torch.manual_seed(0)
        model = AutoModel.from_config(AutoConfig.from_pretrained(out, **sizes, **dropout))
    else:
        model = AutoModel.from_pretrained(out)
        embeddings = model.get_input_embeddings().weight.data
        embeddings[model.config.get_text_config().pad_token_id].normal_(std=float(embeddings.std()))
    model.save_pretrained(out)


def write_pages(out: Path, pairs: int, seed: int = 0) -> None:
    """The sample's pictures in many sizes and forms, each with one caption that is true of it alone."""
    rng = random.Random(seed)
    assert pairs % FAMILY_SIZE == 0
    write_sample(out, seed, train_families=1, test_families=pairs // FAMILY_SIZE)
    for path in sorted((out / "test/images").glob("*.png")):
        size = rng.randint(*SIDES), rng.randint(*SIDES)
        Image.open(path).resize(size, Image.Resampling.BICUBIC).save(path)


def write_texts(out: Path, pairs: int, seed: int = 0) -> None:
    """Texts of many lengths, each with a query of some of its words."""
    rng, words, folder = random.Random(seed), vocabulary(), out / "test"
    (folder / "qrels").mkdir(parents=True)
    corpus, queries, qrels = [], [], ["query-id\tcorpus-id\tscore"]
    for n in range(pairs):
        text = rng.choices(words, k=round(WORDS[0] * (WORDS[1] / WORDS[0]) ** rng.random()))
        query = rng.sample(text, min(len(text), rng.randint(*QUERY_WORDS)))
        corpus.append(json.dumps({"_id": f"d{n}", "text": " ".join(text)}))
        queries.append(json.dumps({"_id": f"q{n}", "text": " ".join(query)}))
        qrels.append(f"q{n}\td{n}\t1")
    for name, lines in (("corpus.jsonl", corpus), ("queries.jsonl", queries), ("qrels/test.tsv", qrels)):
        (folder / name).write_text("\n".join(lines) + "\n")
