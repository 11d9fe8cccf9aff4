"""colmrl prepare qilin"""

from pathlib import Path
from typing import Annotated

import typer

from colmrl.cli.common import Strict, configured, friendly


@friendly
def qilin(
    data: Annotated[str, typer.Argument(metavar="DIR", help="Qilin's tables and image/, or THUIR/Qilin.")],
    out: Annotated[str, typer.Option(help="A new folder; or one that was begun, to go on with it.")],
    task: Annotated[str, typer.Option(help="search or recommendation.")] = "search",
    max_pixels: Annotated[int, typer.Option(help="Larger covers are made smaller.")] = 1024 * 1024,
    root: Annotated[str | None, typer.Option(help="Where image/ is, if not in DIR.")] = None,
    strict: Strict = None,
) -> None:
    """Click logs as a data folder: notes, searches, clicks, what was shown and not clicked, and lists to rerank."""
    kind = {"search": "qilin", "recommendation": "qilin-recommendation"}.get(task, task)
    flags = {"data.path": data, "data.format": kind, "data.root": root, "data.strict": strict}
    settings = configured(None, None, flags)
    from colmrl.files import locked
    from colmrl.preparing.converting import convert

    with locked(Path(out), beside=True):
        typer.echo(convert(settings, "beir", out, max_pixels=max_pixels))
