"""python eval.py --store DIR | --checkpoint DIR --data DIR | --config RECIPE"""

from pathlib import Path
from typing import Annotated

import typer

from colmrl.cli.common import SETTINGS, ConfigFile, Gpu, Overrides, Strict, app, configured, friendly, show_table

eval_app = app("Judge a store, a checkpoint, or a recipe's untrained model, at any list of views.")


@eval_app.command(context_settings=SETTINGS)
@friendly
def evaluate(
    overrides: Overrides = None,
    config: ConfigFile = None,
    store: Annotated[str | None, typer.Option(help="The folder that encode.py wrote.")] = None,
    checkpoint: Annotated[str | None, typer.Option(help="Encode with this first, beside it.")] = None,
    data: Annotated[str | None, typer.Option(help="The data folder; else the store's or the config's.")] = None,
    split: Annotated[str | None, typer.Option(help="The qrels to judge by; else test.")] = None,
    views: Annotated[str | None, typer.Option(help="e.g. single@64,multi@64x16; else all that there are.")] = None,
    out: Annotated[str | None, typer.Option(help="Where the numbers go; by default STORE/results.json.")] = None,
    strict: Strict = None,
    gpu: Gpu = None,
) -> None:
    """nDCG@{1,5,10}, Recall@{1,5,10}, MRR@10, MAP@10 and bytes a document. With a config alone: zero-shot."""
    from colmrl.errors import InputError

    if not (store or checkpoint or config):
        raise InputError("nothing to judge: give --store, --checkpoint with --data, or --config")
    flags = {
        "data.eval_path": data,
        "data.eval_split": split,
        "eval.views": views.split(",") if views else None,
        "data.strict": strict,
        "eval.gpu": gpu,
    }
    settings = configured(config, overrides, flags)
    from colmrl.encoding import encode
    from colmrl.evaluation.report import table_lines
    from colmrl.evaluation.run import chosen_views, judge, write_results
    from colmrl.loop import judge_untrained

    if store is None and checkpoint is None:
        store, rows = judge_untrained(settings)
    else:
        if store is None:
            assert checkpoint is not None
            folder = settings.data.eval_path or settings.data.path
            store = str(encode(settings, checkpoint, folder, Path(checkpoint).parent / "store"))
        rows = judge(settings, store, chosen_views(settings))
    show_table(table_lines(rows))  # first: a place that cannot be written must not cost the numbers
    path = Path(out or Path(store) / "results.json")
    write_results(path, rows, settings.seed, store=store)
    typer.echo(path)
