"""colmrl prepare pdf | qilin | amazon | sample | tiny-model"""

from pathlib import Path
from typing import Annotated

import typer

from colmrl.cli.common import SETTINGS, app, friendly
from colmrl.cli.prepare_amazon import amazon
from colmrl.cli.prepare_pdf import pdf
from colmrl.cli.prepare_qilin import qilin

prepare_app = app("Write data and models to start from.")
for command in (pdf, qilin, amazon):
    prepare_app.command(context_settings=SETTINGS)(command)


@prepare_app.command(context_settings=SETTINGS)
@friendly
def sample(
    out: Annotated[str, typer.Option(help="A new folder.")],
    kind: Annotated[
        str, typer.Option(help="shapes, video-pairs, qilin, sequences, query-image or triples.")
    ] = "shapes",
    seed: Annotated[int, typer.Option(help="Another seed, other data.")] = 0,
    searches: Annotated[int | None, typer.Option(help="qilin: so many to train on, a quarter to test on.")] = None,
) -> None:
    """Generated data of a format. shapes: coloured shapes with captions and near-duplicates, OUT/train and OUT/test."""
    from colmrl.data.samples import write_sample_of

    write_sample_of(kind, Path(out), seed, searches)
    typer.echo(out)


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
