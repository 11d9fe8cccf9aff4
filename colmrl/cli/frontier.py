"""colmrl frontier --checkpoint DIR --data DIR"""

from pathlib import Path
from typing import Annotated

import typer

from colmrl.cli.common import SETTINGS, ConfigFile, Overrides, app, configured, friendly, show_table
from colmrl.cli.given import check_checkpoint, check_store

frontier_app = app("How good the answers are at how many bytes, and which size to take.")


@frontier_app.command(context_settings=SETTINGS)
@friendly
def frontier(
    overrides: Overrides = None,
    config: ConfigFile = None,
    checkpoint: Annotated[str | None, typer.Option(help="The folder that train.py wrote.")] = None,
    data: Annotated[str | None, typer.Option(help="The data folder; else the store's or the config's.")] = None,
    store: Annotated[str | None, typer.Option(help="Its encoding; else beside the checkpoint.")] = None,
    out: Annotated[Path | None, typer.Option(help="For the files; else frontier, beside the store.")] = None,
    split: Annotated[str | None, typer.Option(help="The qrels to judge by; else test.")] = None,
    peers: Annotated[Path | None, typer.Option(help="Published points: a CSV of name,bytes,ndcg_at_5.")] = None,
    max_bytes: Annotated[float | None, typer.Option(min=0, help="Name the best of so many a document.")] = None,
    max_ms: Annotated[float | None, typer.Option(min=0, help="Name the best of so many a query, search alone.")] = None,
) -> None:
    """Judges every head, dim, number of vectors and precision (frontier.indexes, frontier.depths: indexes and two
    stages too) from one encoding in full. Goes on where it was interrupted.
    """
    from colmrl.errors import InputError

    if not (checkpoint or store):
        raise InputError("nothing to sweep: give --checkpoint with --data, or --store")
    settings = configured(config, overrides, {"data.eval_path": data, "data.eval_split": split})
    if checkpoint is not None:
        check_checkpoint(checkpoint)
    if store is not None and checkpoint is None:
        check_store(store)
    from colmrl.evaluation.frontier_report import advice_lines, read_peers, run_frontier

    published = read_peers(peers) if peers else []
    folder, advice = run_frontier(settings, checkpoint, store, out, published, max_bytes, max_ms)
    show_table(advice_lines(advice, settings.seed))
    typer.echo(folder / "frontier.md")
