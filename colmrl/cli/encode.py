"""python encode.py --checkpoint DIR --data DIR [--views …] [--append]; torchrun or --ray shares the shards"""

from pathlib import Path
from typing import Annotated

import typer

from colmrl.cli.common import SETTINGS, ConfigFile, Overrides, Strict, app, configured, friendly, say_once
from colmrl.cli.given import check_checkpoint
from colmrl.inputs import check_data

encode_app = app("Encode a corpus and its queries into a store that serves every size.")


@encode_app.command(context_settings=SETTINGS)
@friendly
def encode(
    checkpoint: Annotated[str, typer.Option(help="The folder that train.py wrote.")],
    data: Annotated[str, typer.Option(help="Folder with corpus.jsonl and queries.jsonl.")],
    overrides: Overrides = None,
    config: ConfigFile = None,
    out: Annotated[str | None, typer.Option(help="The store; by default beside the checkpoint.")] = None,
    views: Annotated[
        str | None, typer.Option(help="What to keep, e.g. single@64,multi@64x16; else everything.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Records a forward pass.")] = None,
    append: Annotated[bool, typer.Option("--append", help="Add what the data has more to a finished store.")] = False,
    ray: Annotated[str | None, typer.Option(help="Encode on Ray's workers: local, auto, or HOST:PORT.")] = None,
    strict: Strict = None,
) -> None:
    """Goes on where it was interrupted; refuses to mix checkpoints. Processes of torchrun, or Ray, share the shards."""
    flags = {
        "encode.views": views.split(",") if views else None,
        "encode.batch_size": batch_size,
        "encode.ray": ray,
        "data.strict": strict,
    }
    settings = configured(config, overrides, flags)
    check_checkpoint(checkpoint, views)
    check_data(data, settings.data)
    from colmrl.encoding import encode as run

    say_once(run(settings, checkpoint, data, out or Path(checkpoint).parent / "store", append))
