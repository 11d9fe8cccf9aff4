"""colmrl prepare sample | tiny-model"""

from typing import Annotated

import typer

from colmrl.cli.common import SETTINGS, app, friendly

prepare_app = app("Write data and models to start from.")


@prepare_app.command(context_settings=SETTINGS)
@friendly
def sample(
    out: Annotated[str, typer.Option(help="A new folder; OUT/train and OUT/test are data folders.")],
    seed: Annotated[int, typer.Option(help="Another seed, other pictures.")] = 0,
) -> None:
    """Generated pictures of coloured shapes with captions, and near-duplicates that make hard negatives."""
    from colmrl.data.sample import write_sample

    typer.echo(write_sample(out, seed))


@prepare_app.command(context_settings=SETTINGS)
@friendly
def tiny_model(
    family: Annotated[str, typer.Option(help="qwen2_vl, qwen2_5_vl, qwen3_vl, internvl, qwen3 or bert.")],
    out: Annotated[str, typer.Option(help="A new folder, for model.backbone.")],
    seed: Annotated[int, typer.Option(help="Another seed, other weights.")] = 0,
) -> None:
    """A small random model of a real architecture, with its real processor class and a small tokenizer."""
    from colmrl.models.tiny import write_tiny_model

    typer.echo(write_tiny_model(family.replace("-", "_"), out, seed))
