"""colmrl's and sentence-transformers' part of `train.py`, each in a process of its own.

    python train_peers.py TOOL FOLDER

FOLDER is of one case (`train.prepare`). Prints what `train_measure.measure` gives, as the last line.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import datasets  # noqa: F401
import torch
import transformers
from interop_targets import processors
from torch.nn.functional import cross_entropy
from torch.utils.data import BatchSampler, SequentialSampler
from train_measure import adapt, dataset, measure, read_case, settings
from workers import resident


def main(tool: str, folder: Path) -> None:
    torch.set_num_threads(1)
    case = read_case(folder)
    found = sentence_transformers(folder, case) if tool == "sentence-transformers" else colmrl(folder, case, tool)
    print(json.dumps(found))


def colmrl(folder: Path, case: dict, tool: str) -> dict:
    """As `colmrl.training.run` trains: reading and checking before, metrics.jsonl and throughput along the way."""
    from dataclasses import replace

    from colmrl.configure import load_config
    from colmrl.data.reading import read_training
    from colmrl.models.retriever import Retriever
    from colmrl.runtime import use_torch
    from colmrl.training.batches import Collator, ExampleDataset
    from colmrl.training.caching import prepare_cache
    from colmrl.training.throughput import Throughput
    from colmrl.training.trainer import RetrieverTrainer, arguments

    held = resident("VmRSS")
    cached = ["train.tower_cache=${output}/features"] if "tower_cache" in tool else []
    config = load_config(None, [*case["options"], f"output={tempfile.mkdtemp(dir=folder)}", *cached])
    use_torch(config)
    examples, positives = read_training(config.data, config.show)
    data = ExampleDataset(examples, 0, config.seed)
    model = Retriever.create(config)
    trainer = RetrieverTrainer(
        config,
        model=model,
        args=arguments(config, Path(config.output) / "trainer", case["steps"]),
        train_dataset=data,
        data_collator=Collator(model.inputs, positives),
    )
    throughput = Throughput()
    trainer.add_callback(throughput)
    trainer.on_batch.append(throughput.on_batch)
    trainer.numbers.append(throughput.numbers)

    def run() -> None:
        if cached:
            trainer.data_collator = replace(trainer.data_collator, inputs=prepare_cache(config, model, data, None))
        trainer.fit(Path(config.output))

    return measure(trainer, run, case, held)


def sentence_transformers(folder: Path, case: dict) -> dict:
    import sentence_transformers as library

    held = resident("VmRSS")
    single = case["head"] == "single"
    with processors():
        kind = library.SentenceTransformer if single else library.MultiVectorEncoder
        model = kind(str(folder / "sentence-transformers"), device="cpu")
    if case["family"] != "bert":  # its own, by the backend whose pixels are ours too
        own = transformers.AutoImageProcessor.from_pretrained(folder / "sentence-transformers", backend="pil")
        processor: Any = model[0].processor
        processor.image_processor = own
    if case["tuning"] == "lora":
        adapt(model, model[0].auto_model, folder)
    prefix = "SentenceTransformer" if single else "MultiVectorEncoder"
    told = getattr(library, f"{prefix}TrainingArguments")(
        output_dir=str(folder / "peer"), batch_sampler=in_order, **settings(case)
    )
    loss = matryoshka(model, case) if single else both_ways(model, case)
    trainer = getattr(library, f"{prefix}Trainer")(model=model, args=told, train_dataset=dataset(folder), loss=loss)
    return measure(trainer, trainer.train, case, held)


def in_order(pairs, batch_size: int, drop_last: bool, **_: object) -> BatchSampler:
    return BatchSampler(SequentialSampler(pairs), batch_size, drop_last)


def matryoshka(model, case: dict):
    """The mean over the dims of InfoNCE in both directions, as colmrl has it."""
    from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss, MultipleNegativesRankingLoss

    inner = MultipleNegativesRankingLoss(
        model,
        scale=1 / case["temperature"],
        directions=("query_to_doc", "doc_to_query"),
        partition_mode="per_direction",
    )
    dims = case["dims"]
    return MatryoshkaLoss(model, inner, dims, [1 / len(dims)] * len(dims)) if len(dims) > 1 else inner


def both_ways(model, case: dict):
    """Its multi-vector loss is from queries to documents; the other direction, on the same scores, is added."""
    from sentence_transformers.multi_vector_encoder.losses import MultiVectorMultipleNegativesRankingLoss
    from sentence_transformers.multi_vector_encoder.scoring import mean_colbert_scores

    class Loss(MultiVectorMultipleNegativesRankingLoss):
        def forward(self, *args, **kwargs):
            there = super().forward(*args, **kwargs)
            back = self.seen.T * self.scale
            return (there + cross_entropy(back, torch.arange(len(back)))) / 2

        def scored(self, *args, **kwargs):
            self.seen = mean_colbert_scores(*args, **kwargs)
            return self.seen

    loss = Loss(model, scale=1 / case["temperature"])
    loss.similarity_fct = loss.scored
    return loss


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
