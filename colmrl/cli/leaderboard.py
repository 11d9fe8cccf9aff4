"""colmrl leaderboard DIR DIR"""

from pathlib import Path
from typing import Annotated

import typer

from colmrl.cli.common import SETTINGS, app, friendly, show_table

leaderboard_app = app("Results of several runs in one table.")


@leaderboard_app.command(context_settings=SETTINGS)
@friendly
def leaderboard(
    runs: Annotated[list[str], typer.Argument(help="Folders with results.json, or such files.", show_default=False)],
    metric: Annotated[str, typer.Option(help="What to rank by, e.g. ndcg_at_10.")] = "ndcg_at_5",
    top: Annotated[int, typer.Option(min=0, help="Rows of each table; 0: all.")] = 30,
    out: Annotated[Path | None, typer.Option(help="A file for the tables, in Markdown.")] = None,
) -> None:
    """Of eval.py, eval.py rerank, eval.py run, frontier and loop. =N: no more than noise below rank N (paired bootstrap
    over queries); ?: noise unknown. Different judgements are different tables.
    """
    from colmrl.evaluation.leaderboard import as_markdown, board_lines
    from colmrl.evaluation.leaderboard import leaderboard as collect
    from colmrl.files import write_text

    boards = collect(runs, metric)
    for board in boards:
        typer.echo(board.judged)
        show_table(board_lines(board, top))
    if out:
        write_text(out, as_markdown(boards, metric, top))
        typer.echo(out)
