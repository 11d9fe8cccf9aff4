"""colmrl export CHECKPOINT --to FORMAT --out DIR; colmrl export index --store DIR --to ADDRESS --views VIEWS"""

from pathlib import Path
from typing import Annotated

import typer

from colmrl.cli.common import SETTINGS, FirstIsMeant, app, friendly
from colmrl.cli.export_index import export_index
from colmrl.errors import InputError

export_app = app("A checkpoint for other libraries and servers, or a store in a vector database.", FirstIsMeant)


@export_app.command(context_settings=SETTINGS)
@friendly
def model(
    checkpoint: Annotated[str, typer.Argument(help="A retriever, or a pointwise reranker with rerank.score=yes_no.")],
    out: Annotated[Path, typer.Option(help="A new folder.")],
    to: Annotated[
        str | None,
        typer.Option(help="sentence-transformers, pylate, colpali-engine, vllm, transformers or onnx."),
    ] = None,
    head: Annotated[str | None, typer.Option(help="single or multi, where a layout has room for one.")] = None,
    adapter: Annotated[bool, typer.Option("--adapter", help="LoRA as it is, not merged into its base.")] = False,
    license: Annotated[str | None, typer.Option(help="For the model card, e.g. apache-2.0.")] = None,
    push: Annotated[str | None, typer.Option(help="A repository of the hub: say what would go there.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do push.")] = False,
) -> None:
    """A retriever in another library's layout, with a model card; a reranker as a folder that CrossEncoder opens.

    What each layout holds, and how equal it was found to be: docs/export.md. A store into a vector database: colmrl
    export index --help.
    """
    if yes and push is None:
        raise InputError("--yes: confirms --push REPO, which is not given")
    if not checkpoint:
        raise InputError("CHECKPOINT: no name: give the OUTPUT/checkpoint of train.py, or a model's folder")
    if push is not None:
        from colmrl.exporting.push import check_repo

        check_repo(push)
    from colmrl.reranking.description import is_checkpoint

    if is_checkpoint(checkpoint):
        if to or head or adapter or license or push:
            raise InputError(f"{checkpoint}: a reranker: takes --out alone, and becomes a CrossEncoder")
        from colmrl.reranking.export import export_cross_encoder

        typer.echo(export_cross_encoder(checkpoint, out))
        return
    if to is None:
        raise InputError(f"{checkpoint}: not a reranker: of a retriever name a layout, e.g. --to sentence-transformers")
    from colmrl.exporting.asked import asked_for, check

    asked = asked_for(to, head, adapter, license)
    check(Path(checkpoint), asked)  # before torch is imported
    from colmrl.exporting.run import export

    typer.echo(export(checkpoint, asked, out))
    if push is not None:
        _push(out, push, yes)


def _push(folder: Path, repo: str, yes: bool) -> None:
    from colmrl.exporting.push import files_of, push

    if yes:
        typer.echo(push(folder, repo))
        return
    files = files_of(folder)
    for name, size in files:
        typer.echo(f"{size:>15,}  {name}")
    typer.echo(f"{sum(size for _, size in files):>15,}  bytes would go to {repo}; with --yes they do")


export_app.command("index", context_settings=SETTINGS)(export_index)
