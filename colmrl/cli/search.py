"""colmrl search --store DIR --query TEXT | --image FILE"""

from pathlib import Path
from typing import Annotated

import typer

from colmrl.cli.common import SETTINGS, Overrides, app, configured, friendly, show_table
from colmrl.cli.given import check_checkpoint, check_store

search_app = app("Ask a store for documents, with a text or a picture, and look at what it finds.")

_EXPLAINED = 3  # documents


@search_app.command(context_settings=SETTINGS)
@friendly
def search(
    store: Annotated[str, typer.Option(help="The folder that encode.py wrote.")],
    overrides: Overrides = None,
    query: Annotated[str, typer.Option(help="What to look for.")] = "",
    image: Annotated[Path | None, typer.Option(help="A picture to look for, with or without a text.")] = None,
    view: Annotated[str | None, typer.Option(help="e.g. multi@128, or a funnel: single@64/1000+multi@128.")] = None,
    index: Annotated[
        str | None, typer.Option(help="What colmrl index wrote, or a database (export index); else exactly.")
    ] = None,
    k: Annotated[int, typer.Option(min=1, help="Documents to show.")] = 10,
    checkpoint: Annotated[str | None, typer.Option(help="The store's; where it is now.")] = None,
    rerank: Annotated[str | None, typer.Option(help="A reranker, for rerank.top_k (at least k) found.")] = None,
    out: Annotated[Path | None, typer.Option(help="For the files; by default search, beside the store.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Paint each query token's similarity over pages.")] = False,
) -> None:
    """A table, results.jsonl and a contact sheet; with --explain what the first three pages matched by."""
    from colmrl.errors import InputError

    query = query.strip()
    if not query and image is None:
        raise InputError("nothing to look for: give --query, --image, or both")
    if image is not None and not image.is_file():
        raise InputError(f"--image {image}: no such file: give a picture")
    settings = configured(None, overrides, {})
    check_store(store, view)
    if checkpoint is not None:
        check_checkpoint(checkpoint)
    from colmrl.data.media import open_image
    from colmrl.data.records import Query
    from colmrl.showing.answering import answer, write_answer

    try:
        _ = image and open_image(str(image))
    except InputError as error:
        raise InputError(f"--image {str(error).rpartition(': ')[0]}: give another picture") from None
    asked = Query("query", query, (str(image),) if image else ())
    given = [override.partition("=")[0] for override in overrides or []]
    answered = answer(settings, store, asked, view, index, k, checkpoint, rerank, given)
    lines = [[str(r.rank), r.document.id, f"{r.score:.4f}", r.first_words] for r in answered.results]
    show_table([["rank", "id", "score", "text"], *lines])
    folder = out or Path(store).parent / "search"
    missing = write_answer(answered, folder)
    if missing:
        typer.echo(f"attention: no font here has {missing}: they are counted in the sheet")
    for path in sorted(folder.glob("explain-*.png")):  # of the question before
        path.unlink()
    if explain:
        from colmrl.showing.explaining import write_explanations

        write_explanations(answered, folder, _EXPLAINED)
    typer.echo(folder)
