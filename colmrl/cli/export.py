"""colmrl export CHECKPOINT --out DIR; colmrl export index --store DIR --to ADDRESS --views VIEWS"""

from typing import Annotated

import typer

from colmrl.cli.common import SETTINGS, FirstIsMeant, app, friendly
from colmrl.cli.export_index import export_index

export_app = app("A checkpoint for other libraries, or a store in a vector database.", FirstIsMeant)


@export_app.command(context_settings=SETTINGS)
@friendly
def model(
    checkpoint: Annotated[str, typer.Argument(help="A pointwise reranker with rerank.score=yes_no.")],
    out: Annotated[str, typer.Option(help="A new folder.")],
) -> None:
    """A reranker for sentence-transformers.

    A folder that CrossEncoder(OUT) opens.
    """
    from colmrl.reranking.export import export_cross_encoder

    typer.echo(export_cross_encoder(checkpoint, out))


export_app.command("index", context_settings=SETTINGS)(export_index)
