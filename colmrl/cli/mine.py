"""python mine.py --store DIR --view single@64"""

from pathlib import Path
from typing import Annotated

import typer

from colmrl.cli.common import SETTINGS, ConfigFile, Gpu, Overrides, app, configured, friendly, show_table
from colmrl.cli.given import check_store
from colmrl.inputs import check_data

mine_app = app("Mine hard negatives from a store, and write triples to train on.")


@mine_app.command(context_settings=SETTINGS)
@friendly
def mine(
    store: Annotated[str, typer.Option(help="The folder that encode.py wrote.")],
    overrides: Overrides = None,
    config: ConfigFile = None,
    view: Annotated[str | None, typer.Option(help="A view, or a funnel (single@64/1000+multi@128).")] = None,
    k: Annotated[int | None, typer.Option(help="How deep to search.")] = None,
    negatives: Annotated[int | None, typer.Option(help="Negatives to keep, at most, a pair.")] = None,
    split: Annotated[str | None, typer.Option(help="The qrels whose queries are mined for; else train.")] = None,
    out: Annotated[str | None, typer.Option(help="The triples; by default beside the store.")] = None,
    data: Annotated[str | None, typer.Option(help="The data folder; else where the store was encoded from.")] = None,
    teacher: Annotated[
        str | None, typer.Option(help="A reranker's checkpoint or a store: filters, and scores.")
    ] = None,
    gpu: Gpu = None,
) -> None:
    """Known answers are never negatives; what else is left out, mine.filters says (docs/mining.md)."""
    flags = {
        "mine.view": view,
        "mine.k": k,
        "mine.negatives": negatives,
        "data.train_split": split,
        "data.path": data,
        "mine.gpu": gpu,
    }
    settings = configured(config, overrides, flags)
    check_store(store, settings.mine.view)
    if data is not None:
        check_data(data, settings.data)
    from colmrl.mining import mine as run
    from colmrl.mining import read_report, step_lines
    from colmrl.mining.teacher import taught_by

    settings = taught_by(settings, teacher) if teacher else settings
    triples = run(settings, store, out or Path(store).parent / "triples.jsonl")
    show_table(step_lines(read_report(triples)))
    typer.echo(triples)
