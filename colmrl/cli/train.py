"""python train.py --config RECIPE [FLAGS] [section.key=value …]"""

from typing import Annotated

import typer

from colmrl.cli.common import SETTINGS, ConfigFile, Overrides, Strict, app, configured, friendly, say_once
from colmrl.inputs import check_inputs

train_app = app("Train a retriever, or a reranker (the recipe's `task`): heads, LoRA adapters or the whole backbone.")


@train_app.command(context_settings=SETTINGS)
@friendly
def train(
    overrides: Overrides = None,
    config: ConfigFile = None,
    output: Annotated[str | None, typer.Option(help="Run folder; OUTPUT/checkpoint is what is trained.")] = None,
    data: Annotated[str | None, typer.Option(help="Folder with corpus.jsonl, queries.jsonl, qrels/.")] = None,
    triples: Annotated[str | None, typer.Option(help='JSONL of {"query", "pos", "negs"}, e.g. from mine.py.')] = None,
    root: Annotated[str | None, typer.Option(help="Where the triples' relative picture paths start.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Queries a step.")] = None,
    lora: Annotated[bool, typer.Option("--lora", help="Train LoRA adapters rather than the whole backbone.")] = False,
    auto_batch: Annotated[
        bool, typer.Option("--auto-batch", help="Find how much fits into 90% of device memory (train.auto_batch).")
    ] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Write where five steps' time goes to OUTPUT/profile (train.profile).")
    ] = False,
    strict: Strict = None,
) -> None:
    """Train on the qrels' pairs, or on triples with hard negatives; writes OUTPUT/checkpoint."""
    flags = {
        "output": output,
        "data.path": data,
        "data.triples": triples,
        "data.root": root,
        "train.batch_size": batch_size,
        "model.tuning": "lora" if lora else None,
        "train.auto_batch": 0.9 if auto_batch else None,
        "train.profile": 5 if profile else None,
        "data.strict": strict,
    }
    settings = configured(config, overrides, flags)
    check_inputs(settings)
    from colmrl.training.run import train as run

    say_once(run(settings))
