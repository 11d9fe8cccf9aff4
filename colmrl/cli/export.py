"""colmrl export CHECKPOINT --out DIR"""

from typing import Annotated

import typer

from colmrl.cli.common import friendly


@friendly
def export(
    checkpoint: Annotated[str, typer.Argument(help="A pointwise reranker with rerank.score=yes_no.")],
    out: Annotated[str, typer.Option(help="A new folder.")],
) -> None:
    """A reranker for sentence-transformers.

    A folder that CrossEncoder(OUT) opens.
    """
    from colmrl.reranking.export import export_cross_encoder

    typer.echo(export_cross_encoder(checkpoint, out))
