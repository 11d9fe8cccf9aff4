"""colmrl convert DATA --to CONVENTION --out DIR"""

from pathlib import Path
from typing import Annotated

import typer

from colmrl.cli.common import ConfigFile, Overrides, Strict, configured, friendly


@friendly
def convert(
    data: Annotated[str, typer.Argument(help="A folder, a file, a data set of the hub, or sample:KIND.")],
    out: Annotated[str, typer.Option(help="A new folder; or one that was begun, to go on with it.")],
    overrides: Overrides = None,
    to: Annotated[str, typer.Option(help="beir, or a column convention (docs/data.md).")] = "beir",
    config: ConfigFile = None,
    fields: Annotated[str, typer.Option(help="What of a document: text, image, or text,image.")] = "text,image",
    max_pixels: Annotated[int | None, typer.Option(help="beir: larger pictures are made smaller.")] = None,
    strict: Strict = None,
) -> None:
    """Read data in any format, write it in any other. Interrupted, it goes on with the same command."""
    settings = configured(config, overrides, {"data.path": data, "data.strict": strict})
    from colmrl.files import locked
    from colmrl.preparing.converting import convert as run

    with locked(Path(out), beside=True):
        typer.echo(run(settings, to, out, tuple(fields.split(",")), max_pixels))
