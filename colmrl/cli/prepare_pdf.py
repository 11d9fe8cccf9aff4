"""colmrl prepare pdf"""

from pathlib import Path
from typing import Annotated

import typer

from colmrl.cli.common import friendly


@friendly
def pdf(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="A folder with PDFs, in it and below; or one PDF.")],
    out: Annotated[str, typer.Option(help="A new folder; or one that was begun, to go on with it.")],
    dpi: Annotated[int, typer.Option(help="Pixels an inch of the page.")] = 144,
    workers: Annotated[int, typer.Option(help="Processes, each with a PDF of its own.")] = 1,
) -> None:
    """PDFs as a data folder: each page a document, with its picture and its text layer."""
    from colmrl.files import locked
    from colmrl.preparing.pdf import prepare_pdf

    with locked(Path(out), beside=True):
        typer.echo(prepare_pdf(folder, out, dpi, workers))
