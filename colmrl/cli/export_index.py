"""colmrl export index --store DIR --to ADDRESS --views single@128,multi@128"""

from typing import TYPE_CHECKING, Annotated

import typer

from colmrl.cli.common import Gpu, Overrides, configured, friendly, show_table
from colmrl.cli.given import check_store

if TYPE_CHECKING:
    from colmrl.database.agreement import Agreement


@friendly
def export_index(
    store: Annotated[str, typer.Option(help="The folder that encode.py wrote.")],
    to: Annotated[str, typer.Option(help="A folder, or a Qdrant server or cluster: http://HOST:6333.")],
    views: Annotated[str, typer.Option(help="What a document is there, e.g. single@128,multi@128,multi@64x32:int8.")],
    overrides: Overrides = None,
    collection: Annotated[str | None, typer.Option(help="Its name there; by default documents.")] = None,
    token: Annotated[
        str | None, typer.Option(envvar="QDRANT_API_KEY", help="Of the server; better in the environment.")
    ] = None,
    queries: Annotated[int, typer.Option(min=0, help="Asked of both afterwards, to compare; 0: none.")] = 20,
    gpu: Gpu = None,
) -> None:
    """A store in a vector database (Qdrant): ids, texts, pictures' paths, meta and the vectors of several views.

    Given again it goes on where it was killed, and brings the collection up to date with the store.
    """
    settings = configured(None, overrides, {"index.gpu": gpu})
    check_store(store, views)
    from colmrl.database import Address
    from colmrl.database import export_index as run
    from colmrl.errors import InputError
    from colmrl.view import parse_views

    asked = parse_views(views)
    if not asked:
        raise InputError("--views: empty: name what the database is to hold, e.g. single@128,multi@128")
    address = Address.parse(to, collection)
    if address.where:
        raise InputError(f"--to {to}: ?FIELD=VALUE is for searching: leave it out")
    done = run(settings, store, asked, address, token)
    if queries:
        from colmrl.database.agreement import agreements

        header = ["asked", "queries", "recall@10", "scores differ by", "query ms", "exact ms"]
        lines = [_line(one) for one in agreements(settings, store, asked, address, token, queries)]
        show_table([header, *lines])
    size = f"; {done.size_bytes:,} bytes" if done.size_bytes is not None else ""
    typer.echo(
        f"{done.documents:,} documents: {done.added:,} new, {done.changed:,} changed, {done.kept:,} as they were; "
        f"{done.removed:,} removed{size}"
    )
    typer.echo(f"colmrl search --store {store} --index '{address}' --view {asked[-1]} --query …")


def _line(one: "Agreement") -> list[str]:
    numbers = (f"{one.recall:.3f}", f"{one.difference:.1e}", f"{one.query_ms:.1f}", f"{one.exact_ms:.1f}")
    return [str(one.plan), str(one.queries), *numbers]
