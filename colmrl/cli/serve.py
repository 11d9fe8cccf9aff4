"""colmrl serve --store DIR"""

from pathlib import Path
from typing import Annotated

import typer

from colmrl.cli.common import SETTINGS, Overrides, app, configured, friendly
from colmrl.cli.given import check_checkpoint, check_store

serve_app = app("Search a store from a browser: a page to look at, and the same as JSON.")


@serve_app.command(context_settings=SETTINGS)
@friendly
def serve(
    store: Annotated[str, typer.Option(help="The folder that encode.py wrote.")],
    overrides: Overrides = None,
    index: Annotated[list[Path] | None, typer.Option(help="A folder that colmrl index wrote; again for more.")] = None,
    checkpoint: Annotated[str | None, typer.Option(help="The store's; where it is now.")] = None,
    rerank: Annotated[str | None, typer.Option(help="A reranker, for rerank.top_k found.")] = None,
    view: Annotated[str | None, typer.Option(help="To begin with, e.g. multi@128; else the index's or first.")] = None,
    host: Annotated[str, typer.Option(help="Whom to answer: this machine, or 0.0.0.0 for all that reach it.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
) -> None:
    """Prints the address; Ctrl-C ends it. The API is described in docs/serve.md."""
    settings = configured(None, overrides, {})
    check_store(store, view)
    if checkpoint is not None:
        check_checkpoint(checkpoint)
    from colmrl.errors import InputError

    try:
        from colmrl.serving.run import serve, take, url_of
    except ModuleNotFoundError as error:
        remedy = 'pip install -e ".[serve]"'
        raise InputError(f"colmrl serve: {error.name} is not installed: {remedy}") from None
    from colmrl.serving.desk import Desk
    from colmrl.serving.guard import loopback_names
    from colmrl.showing.answering import Answerer

    taken = take(host, port)
    typer.echo(f"opening {store} and its model", err=True)
    given = [override.partition("=")[0] for override in overrides or []]
    desk = Desk(Answerer(settings, store, checkpoint, rerank, given), index or (), view)
    desk.warm_up()
    if loopback_names(host) is None:
        typer.echo(
            f"attention: {host} is no loopback address: whoever reaches it may ask, and see every page of the store; "
            "there is no password and no encryption",
            err=True,
        )
    serve(desk, taken, host, lambda: typer.echo(f"{url_of(host, taken)}   (Ctrl-C ends it)"))
