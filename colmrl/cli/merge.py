"""colmrl merge A B … --out DIR [--weights 0.5,0.5]"""

from typing import Annotated

import typer

from colmrl.cli.common import SETTINGS, app, friendly
from colmrl.errors import InputError

merge_app = app("Average checkpoints of one recipe.")


@merge_app.command(context_settings=SETTINGS)
@friendly
def merge(
    checkpoints: Annotated[list[str], typer.Argument(metavar="CHECKPOINT...", help="Folders that train.py wrote.")],
    out: Annotated[str, typer.Option(help="The new checkpoint.")],
    weights: Annotated[
        str | None, typer.Option(help="A share for each, e.g. 0.7,0.3; divided by their sum. Else equal.")
    ] = None,
) -> None:
    """The weighted mean of what they trained: heads, and backbone or LoRA (exactly, so that ranks add up)."""
    try:
        shares = [float(share) for share in weights.split(",")] if weights else None
    except ValueError:
        raise InputError(f"--weights: {weights!r}: not numbers between commas: write e.g. 0.7,0.3") from None
    from colmrl.models.merging import merge as run

    typer.echo(run(checkpoints, shares, out))
