"""colmrl report RUN --out FILE"""

from pathlib import Path
from typing import Annotated

import typer

from colmrl.cli.common import SETTINGS, app, friendly

report_app = app("One self-contained HTML file of a run.")


@report_app.command(context_settings=SETTINGS)
@friendly
def report(
    run: Annotated[Path, typer.Argument(help="The folder of a loop or a training run.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="The file; else RUN/report.html.")] = None,
) -> None:
    """Command and lineage, frontier, tables, training curves, mining, and example queries with the five pages found
    first and what the first matched by. Pictures are inside; readable on a phone.
    """
    from colmrl.errors import InputError

    if not run.is_dir():
        raise InputError(f"{run}: no such folder: give the --output of colmrl loop or train.py")
    from colmrl.reporting.run_report import write_run_report

    typer.echo(write_run_report(run, out or run / "report.html"))
